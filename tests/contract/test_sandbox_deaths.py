"""The worker dies, stops or comes back: what happens to its jobs then. A stand-in process plays the worker."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents.sandbox.local import EXECUTORS, LocalExecutor, Place, open_executor
from agents.sandbox.rooms import recorded_warden
from agents.sandbox.tree import boottime
from tests.sandboxes import (
    LEASE_SECONDS,
    groups_of,
    processes_of,
    rooms_of,
    run_job,
    spec,
    wait_until_dead,
    watched,
)

ROOT = Path(__file__).parents[2]
# A daemon that ignores what can be ignored, and a step that would run for ever.
STUBBORN = "setsid sh -c \"trap '' TERM HUP INT; touch up; while :; do sleep 1000; done\" >/dev/null 2>&1 &\n"
SCRIPT = STUBBORN + "while [ ! -e up ]; do :; done; echo up; exec sleep 1000"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "running")


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest, place: Place) -> LocalExecutor:
    return open_executor(request.param, place)


@contextmanager
def standin(executor: LocalExecutor, place: Place, job_id: str, lease: float) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that runs one job; it is up, and so is the job's daemon, when this yields."""
    arguments = [executor.name, str(place.state), job_id, str(lease), SCRIPT]
    command = [sys.executable, "-m", "tests.contract.sandbox_standin", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"up\n"
            yield worker
        finally:
            worker.kill()


def job_and_warden(place: Place, job_id: str) -> set[int]:
    warden = recorded_warden(place.state / job_id)
    assert warden is not None
    return {*processes_of(job_id), warden}


async def test_a_killed_worker_takes_its_job_along(executor: LocalExecutor, place: Place) -> None:
    with (
        standin(executor, place, "killed", LEASE_SECONDS) as worker,
        watched(job_and_warden(place, "killed")) as pidfds,
    ):
        assert len(pidfds) >= 4
        worker.send_signal(signal.SIGKILL)
        wait_until_dead(pidfds)
    assert groups_of(place) == set()


async def test_a_stopped_workers_job_dies_with_its_lease(executor: LocalExecutor, place: Place) -> None:
    until = boottime() + 1.5
    with standin(executor, place, "stopped", 1.5) as worker, watched(processes_of("stopped")) as pidfds:
        worker.send_signal(signal.SIGSTOP)
        assert wait_until_dead(pidfds) >= until
        worker.send_signal(signal.SIGCONT)
        assert worker.stdout is not None
        assert b"the worker's lease ran out" in worker.stdout.read()


async def test_an_interrupt_at_the_workers_terminal_leaves_nothing(executor: LocalExecutor, place: Place) -> None:
    with (
        standin(executor, place, "interrupted", LEASE_SECONDS) as worker,
        watched(job_and_warden(place, "interrupted")) as pidfds,
    ):
        worker.send_signal(signal.SIGINT)
        wait_until_dead(pidfds)
        worker.wait(10)
    assert (rooms_of(place), groups_of(place)) == ([], set())


async def test_a_new_life_removes_what_the_old_one_left(executor: LocalExecutor, place: Place) -> None:
    with standin(executor, place, "left", LEASE_SECONDS) as worker:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert await executor.reap() == ("left",)
    assert (processes_of("left"), rooms_of(place), groups_of(place)) == (set(), [], set())
    assert await executor.reap() == ()


async def test_a_new_life_ends_a_job_whose_worker_and_warden_were_killed(executor: LocalExecutor, place: Place) -> None:
    with standin(executor, place, "both", LEASE_SECONDS) as worker, watched(processes_of("both")) as pidfds:
        warden = recorded_warden(place.state / "both")
        assert warden is not None
        worker.send_signal(signal.SIGSTOP)
        os.kill(warden, signal.SIGKILL)
        worker.send_signal(signal.SIGKILL)
        await executor.reap()
        wait_until_dead(pidfds)
    assert (rooms_of(place), groups_of(place)) == ([], set())


async def test_a_stuck_warden_is_killed_by_the_new_life(
    executor: LocalExecutor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.sandbox.orphans.PATIENCE_SECONDS", 0.5)
    with standin(executor, place, "stuck", LEASE_SECONDS) as worker, watched(processes_of("stuck")) as pidfds:
        warden = recorded_warden(place.state / "stuck")
        assert warden is not None
        os.kill(warden, signal.SIGSTOP)
        worker.send_signal(signal.SIGKILL)
        assert await executor.reap() == ("stuck",)
        wait_until_dead(pidfds)


async def test_a_new_life_leaves_other_workers_and_strangers_alone(executor: LocalExecutor, place: Place) -> None:
    other = Place(place.state.with_name("other"))
    with standin(executor, place, "theirs", LEASE_SECONDS), watched(processes_of("theirs")) as pidfds:
        assert await open_executor(executor.name, other).reap() == ()
        with pytest.raises(AssertionError):
            wait_until_dead(pidfds, seconds=0.0)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


async def test_a_recycled_pid_is_not_taken_for_a_warden(
    executor: LocalExecutor, place: Place, stranger: subprocess.Popen[bytes]
) -> None:
    directory = place.state / "old"
    directory.mkdir(parents=True)
    (directory / "warden").write_text(f"{stranger.pid} 1 some-other-boot\n")
    assert await executor.reap() == ("old",)
    assert stranger.poll() is None


async def test_the_next_job_runs_as_if_nothing_had_happened(executor: LocalExecutor, place: Place) -> None:
    with standin(executor, place, "first", LEASE_SECONDS) as worker:
        worker.send_signal(signal.SIGKILL)
        await executor.reap()
    log, _ = await run_job(executor, spec("echo next", job_id="first"))
    assert log == b"next\n"
