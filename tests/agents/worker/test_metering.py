"""Usage facts: the same for the same attempt, exact, and with the reason of the end."""

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.sandbox.causes import Cause
from agents.sandbox.executor import End, Outcome, StepResult, Use
from agents.worker.jobs.ending import KILLED, read_outcome, report_steps
from agents.worker.jobs.metering import Meterer, measure, usage_of
from agents.worker.labels import Machine, labels_of
from runtime.errors import OurFault
from schemas.ends import ENDS, EndReason
from schemas.orders import Resources
from tests.agents.worker.jobs import PROVIDER, WORKER, make_job
from tests.clocks import START

CLAIM = "c" + "a" * 26
METERER = Meterer(PROVIDER, WORKER)
uses = st.builds(Use, st.floats(0, 1e5), st.floats(0, 1e5), st.integers(0, 2**40), is_estimated=st.booleans())


@given(wall=st.floats(0, 1e5), use=st.none() | uses, log=st.integers(0, 2**30), cores=st.integers(1, 64))
def test_metering_again_gives_the_same_facts(wall: float, use: Use | None, log: int, cores: int) -> None:
    job = make_job(resources=Resources(cores=cores))
    measured = measure(START, START + timedelta(seconds=wall), use, log)
    events = usage_of(METERER, job, CLAIM, measured, EndReason.EXIT_CODE)
    assert events == usage_of(METERER, job, CLAIM, measured, EndReason.EXIT_CODE)
    assert len({event.id for event in events}) == len(events) == 5
    assert all(type(event).from_payload(event.to_payload()) == event for event in events)
    quantities = {event.meter: event.quantity for event in events}
    assert quantities["attempts"] == 1
    assert quantities["wall-seconds"] == measured.wall_seconds * cores
    assert quantities["log-bytes"] == log


def test_the_fact_is_named_by_the_attempt_not_by_the_claim_or_the_end() -> None:
    job = make_job()
    ended = measure(START, START, None, 0)
    one = usage_of(METERER, job, CLAIM, ended, EndReason.WORKER_RESTARTED)
    other = usage_of(METERER, job, "c" + "b" * 26, ended, EndReason.SUCCEEDED)
    assert [event.id for event in one] == [event.id for event in other]


@pytest.mark.parametrize("reason", list(EndReason))
def test_every_end_is_metered_and_carries_its_reason(reason: EndReason) -> None:
    events = usage_of(METERER, make_job(), CLAIM, measure(START, START, None, 0), reason)
    assert {event.reason for event in events} == {reason}


def test_a_clock_that_went_back_bills_nothing() -> None:
    measured = measure(START, START - timedelta(seconds=5), None, 0)
    assert measured.wall_seconds == 0
    assert measured.ended_at == measured.started_at


def test_billed_meters_are_never_estimates() -> None:
    estimated = measure(START, START, Use(1, 1, 1, is_estimated=True), 0)
    events = usage_of(METERER, make_job(), CLAIM, estimated, EndReason.SUCCEEDED)
    assert {event.meter for event in events if event.is_estimate} == {"cpu-seconds", "memory-peak-bytes"}


def _step(exit_code: int | None, signal: int | None = None) -> StepResult:
    return StepResult("build", exit_code, signal, START, 0.5)


def _outcome(end: End, cause: Cause | None = None, *steps: StepResult) -> Outcome:
    return Outcome(end, cause, steps, Use(0, 0, 0, is_estimated=True))


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_of_a_kill_has_its_reason(cause: Cause) -> None:
    assert read_outcome(_outcome(End.KILLED, cause)) == KILLED[cause]


def test_an_exit_and_a_signal_are_told_apart() -> None:
    assert read_outcome(_outcome(End.FAILED, None, _step(0), _step(3))).reason is EndReason.EXIT_CODE
    assert read_outcome(_outcome(End.FAILED, None, _step(139, 11))).reason is EndReason.SIGNAL


def test_a_failure_without_a_failed_step_is_the_providers_fault() -> None:
    assert not ENDS[read_outcome(_outcome(End.FAILED, None, _step(0))).reason].is_billable


def test_steps_are_reported_in_the_contracts_words() -> None:
    (step,) = report_steps((_step(None, 9),))
    assert (step.exit_code, step.seconds) == (None, Decimal("0.500"))


def test_labels_state_what_the_machine_is() -> None:
    machine = Machine("linux", "riscv64", 4, 8 * 2**30 - 1)
    assert labels_of(machine, ("board=k1",)) == ("os=linux", "arch=riscv64", "cores=4", "memory-gib=7", "board=k1")


def test_an_owner_cannot_contradict_the_machine() -> None:
    with pytest.raises(OurFault, match="arch=z80"):
        labels_of(Machine("linux", "x86_64", 1, 1), ("arch=z80",))
