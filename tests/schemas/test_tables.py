"""The tables of states and ends are closed, and say what the design says."""

from typing import TypeVar

import pytest

from schemas import ids, life
from schemas.ends import ENDS, EndReason, Outcome, Side
from schemas.life import (
    ATTEMPT_TRANSITIONS,
    FINAL_ATTEMPT_STATES,
    FINAL_JOB_STATES,
    JOB_TRANSITIONS,
    AttemptState,
    JobState,
)

State = TypeVar("State", AttemptState, JobState)


def reachable(table: dict[State, frozenset[State]], start: State) -> set[State]:
    seen, pending = {start}, [start]
    while pending:
        for following in table[pending.pop()] - seen:
            seen.add(following)
            pending.append(following)
    return seen


def test_every_state_has_its_row_and_is_reached() -> None:
    assert set(ATTEMPT_TRANSITIONS) == set(AttemptState)
    assert set(JOB_TRANSITIONS) == set(JobState)
    assert reachable(ATTEMPT_TRANSITIONS, AttemptState.PUBLISHED) == set(AttemptState)
    assert reachable(JOB_TRANSITIONS, JobState.WAITING) == set(JobState)


def test_from_every_state_a_final_one_is_reached() -> None:
    assert all(reachable(ATTEMPT_TRANSITIONS, state) & FINAL_ATTEMPT_STATES for state in AttemptState)
    assert all(reachable(JOB_TRANSITIONS, state) & FINAL_JOB_STATES for state in JobState)


def test_an_attempt_is_never_granted_twice_and_never_revived() -> None:
    assert not life.can_attempt_become(AttemptState.GRANTED, AttemptState.GRANTED)
    assert not life.can_attempt_become(AttemptState.GRANTED, AttemptState.CLAIMED)
    assert {AttemptState.FINISHED, AttemptState.RELEASED, AttemptState.REFUSED, AttemptState.LOST} == set(
        FINAL_ATTEMPT_STATES
    )


def test_every_end_has_its_row_and_outcomes_are_job_states() -> None:
    assert set(ENDS) == set(EndReason)
    assert {end.outcome.value for end in ENDS.values()} <= {state.value for state in FINAL_JOB_STATES}


@pytest.mark.parametrize("reason", EndReason)
def test_only_what_is_nobodys_failure_is_retried_and_the_provider_pays_for_its_own(reason: EndReason) -> None:
    end = ENDS[reason]
    assert end.is_retried == (end.outcome is Outcome.ERRORED)
    assert end.is_billable == (end.side is Side.CUSTOMER)
    if end.side is Side.PROVIDER:
        assert end.outcome is Outcome.ERRORED


def test_ids_of_one_kind_differ_and_those_of_two_kinds_never_meet() -> None:
    makers = (ids.new_attempt_id, ids.new_claim_id, ids.new_run_id, ids.new_message_id, ids.new_tab_id)
    made = [make() for make in makers for _ in range(50)]
    assert len(set(made)) == len(made)
    assert {name[0] for name in made} == {"a", "c", "r", "m", "b"}
    assert {len(name) for name in made} == {27}


def test_a_principal_is_the_pair_and_not_the_subject_alone() -> None:
    assert ids.tenant_id("https://a.example", "x") != ids.tenant_id("https://b.example", "x")
    with pytest.raises(ValueError, match="line feed"):
        ids.tenant_id("https://a.example\nx", "y")
