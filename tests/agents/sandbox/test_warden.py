"""When a job has to end and of what: the warden's decisions, apart from its clock."""

import subprocess
import sys
import time

import pytest

from agents.sandbox.causes import POLITE, Cause
from agents.sandbox.sandbox import HOME
from agents.sandbox.warden import Deadlines


@pytest.fixture
def deadlines() -> Deadlines:
    return Deadlines(lease_until=100.0, wall_until=200.0, grace_seconds=5.0)


def test_nothing_is_due_before_its_time(deadlines: Deadlines) -> None:
    assert deadlines.due(99.9) is None
    assert deadlines.next_at() == 100.0


def test_a_lease_ends_on_its_instant(deadlines: Deadlines) -> None:
    assert deadlines.due(100.0) is Cause.LEASE_LOST


def test_an_extended_lease_leaves_the_wall_time(deadlines: Deadlines) -> None:
    deadlines.extend(500.0)
    assert deadlines.due(199.9) is None
    assert deadlines.due(200.0) is Cause.WALL_TIMEOUT


def test_a_lease_is_never_shortened(deadlines: Deadlines) -> None:
    deadlines.extend(50.0)
    assert deadlines.due(60.0) is None


@pytest.mark.parametrize("cause", sorted(POLITE))
def test_a_polite_cause_has_a_grace(deadlines: Deadlines, cause: Cause) -> None:
    deadlines.end(cause, 10.0)
    assert not deadlines.must_kill(14.9)
    assert deadlines.must_kill(15.0)
    assert deadlines.next_at() == 15.0


@pytest.mark.parametrize("cause", sorted(set(Cause) - POLITE))
def test_an_impolite_cause_kills_at_once(deadlines: Deadlines, cause: Cause) -> None:
    deadlines.end(cause, 10.0)
    assert deadlines.must_kill(10.0)


def test_the_first_cause_stands_and_a_later_one_only_ends_the_grace(deadlines: Deadlines) -> None:
    deadlines.end(Cause.CANCELLED, 10.0)
    deadlines.end(Cause.LOG_FLOOD, 11.0)
    assert deadlines.cause is Cause.CANCELLED
    assert deadlines.must_kill(11.0)


def test_asking_again_does_not_prolong_the_grace(deadlines: Deadlines) -> None:
    deadlines.end(Cause.CANCELLED, 10.0)
    deadlines.end(Cause.CANCELLED, 14.0)
    assert deadlines.must_kill(15.0)


def test_the_lease_counts_during_the_grace(deadlines: Deadlines) -> None:
    deadlines.end(Cause.CANCELLED, 98.0)
    assert deadlines.due(100.0) is Cause.LEASE_LOST


def test_the_wall_time_does_not_end_a_job_twice(deadlines: Deadlines) -> None:
    deadlines.extend(500.0)
    deadlines.end(Cause.CANCELLED, 199.0)
    assert deadlines.due(200.0) is None


def test_a_warden_starts_without_slow_modules() -> None:
    slow = ("typing", "dataclasses", "asyncio", "socket", "subprocess", "pathlib", "pydantic", "tempfile", "inspect")
    code = f"import sys; sys.path.append({HOME!r}); import agents.sandbox.warden; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not set(slow) & set(loaded.stdout.split())


def test_a_warden_without_an_order_leaves_with_its_worker() -> None:
    """The end of file on the socket is the worker's death."""
    code = f"import sys; sys.path.append({HOME!r}); from agents.sandbox.warden import main; main(0, 1)"
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert time.monotonic() - started < 10
