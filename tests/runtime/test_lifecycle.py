"""Start, ready and stop of a role; the whole process where signals and exit statuses matter."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runtime.errors import OurFault, PeerFault, WorldFault
from runtime.lifecycle import AlreadyRunning, DirectoryLock, Stop, StopLevel, announce_ready, run_role, start_role

ROOT = Path(__file__).parents[2]


def test_each_press_stops_harder_and_the_last_stays() -> None:
    stop = Stop()
    seen = []
    for _ in range(4):
        stop.press()
        seen.append(stop.level)
    assert seen == [StopLevel.DRAIN, StopLevel.HAND_BACK, StopLevel.KILL, StopLevel.KILL]


async def test_a_higher_level_wakes_whoever_waits_for_a_lower_one() -> None:
    stop = Stop()
    stop.rise_to(StopLevel.HAND_BACK)
    stop.rise_to(StopLevel.DRAIN)
    assert stop.level is StopLevel.HAND_BACK
    async with asyncio.timeout(1):
        await stop.draining()
        await stop.handing_back()


def test_a_directory_is_held_by_one_process_and_the_other_is_told_which(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path, "desk"), pytest.raises(AlreadyRunning) as caught:  # noqa: SIM117
        with DirectoryLock(tmp_path, "desk"):
            pass
    assert f"fedci desk with pid {os.getpid()}" in str(caught.value)
    assert f"kill {os.getpid()}" in str(caught.value)


def test_a_directory_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with DirectoryLock(tmp_path, "desk"):
            assert str(os.getpid()) in (tmp_path / "fedci.lock").read_text()


def test_a_missing_directory_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(OurFault, match="`init` command"), DirectoryLock(tmp_path / "none", "desk"):
        pass


async def test_the_ready_file_lives_as_long_as_the_role(tmp_path: Path) -> None:
    path = tmp_path / "desk.ready"
    path.write_text("left by a crash")

    async def serve(directory: Path, stop: Stop) -> None:
        assert not path.exists()
        announce_ready(directory, "desk", {"http": "http://127.0.0.1:1"})
        assert json.loads(path.read_text()) == {
            "pid": os.getpid(),
            "role": "desk",
            "urls": {"http": "http://127.0.0.1:1"},
        }

    await run_role("desk", tmp_path, serve)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fedci.lock"]


async def test_two_signals_reach_serve_and_a_third_cancels_it(tmp_path: Path) -> None:
    seen = []

    async def serve(directory: Path, stop: Stop) -> None:
        for number, level in ((signal.SIGTERM, stop.draining), (signal.SIGINT, stop.handing_back)):
            os.kill(os.getpid(), number)
            await level()
            seen.append(stop.level)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            seen.append(stop.level)

    async with asyncio.timeout(5):
        await run_role("desk", tmp_path, serve)
    assert seen == [StopLevel.DRAIN, StopLevel.HAND_BACK, StopLevel.KILL]


async def test_a_role_cancelled_from_outside_is_cancelled_and_frees_its_directory(tmp_path: Path) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def serve(directory: Path, stop: Stop) -> None:
        started.set()
        try:
            await stop.draining()
        finally:
            ended.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run_role("desk", tmp_path, serve))
        await started.wait()
        task.cancel()
    assert task.cancelled()
    assert ended.is_set()
    with DirectoryLock(tmp_path, "desk"):
        pass


def failing(error: Exception) -> Callable[[Path, Stop], Awaitable[None]]:
    async def serve(directory: Path, stop: Stop) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_raise(error))

    return serve


async def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OurFault("port 1 is in use", remedy="change `listen`"), 2),
        (WorldFault("disk full"), 75),
        (PeerFault("nonsense"), 1),
        (RuntimeError("a bug"), 1),
    ],
)
def test_each_family_of_errors_has_its_exit_status(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], error: Exception, status: int
) -> None:
    assert start_role("desk", tmp_path, failing(error), log_file=tmp_path / "log") == status
    told = capfd.readouterr().err
    assert told.startswith("fedci desk: ")
    assert error.args[0] in told
    logged = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert logged[0]["event"] == "role_failed"
    assert any("traceback" in line for line in logged) == isinstance(error, RuntimeError)


PROGRAM = """
    import sys
    from pathlib import Path
    from runtime.lifecycle import announce_ready, start_role

    async def serve(directory, stop):
        announce_ready(directory, "desk")
        await stop.draining()

    sys.exit(start_role("desk", Path(sys.argv[1]), serve))
"""


def test_a_second_process_is_refused_and_the_first_stops_on_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as first:
        try:
            assert first.stderr is not None
            assert json.loads(first.stderr.readline())["event"] == "ready"
            second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
            assert second.returncode == 2
            assert f"with pid {first.pid}" in second.stderr
            first.send_signal(signal.SIGTERM)
            assert first.wait(timeout=20) == 0
        finally:
            first.kill()


def test_the_light_modules_stay_light() -> None:
    program = (
        "import sys, runtime.settings, runtime.logging, runtime.lifecycle, runtime.outbox\n"
        "heavy = {'sqlalchemy', 'starlette', 'httpx', 'uvicorn', 'alembic', 'aio_pika'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
