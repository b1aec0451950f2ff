"""The roles as processes: started like anybody would start them, waited for, watched, and stopped in order.

A role is ready when it has written its `.ready` file for the pid that was started. One that ends before it was asked to
is an error that shows the end of its log. Stopping asks politely (SIGTERM: drain), asks again, then kills; every
process is in this one's session and dies with it (PR_SET_PDEATHSIG), so that nothing is left behind.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import WorldFault

READY_SECONDS = 60.0
POLL_SECONDS = 0.05
STOP_SECONDS = 10.0
LOG_TAIL_BYTES = 3000
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Role:
    """A role to start: `fedci <command> <verb> <directory>`."""

    title: str
    command: str
    directory: Path
    verb: str = "serve"

    @property
    def log(self) -> Path:
        return self.directory / f"{self.command}.log"

    @property
    def ready_file(self) -> Path:
        return self.directory / f"{self.command}.ready"


class RoleEnded(WorldFault):
    """A role's process ended without having been asked to."""


@dataclass
class RoleProcesses:
    """The running roles; make it with `running`."""

    _running: dict[Role, asyncio.subprocess.Process] = field(default_factory=dict)
    _told_to_end: set[int] = field(default_factory=set)
    _is_stopping: bool = False

    async def start(self, *roles: Role) -> None:
        """Start these roles at once and return when all are ready.

        Raises RoleEnded when one ends instead, WorldFault when one is not ready in time.
        """
        for role in roles:
            self._running[role] = await _spawn(role)
        async with asyncio.TaskGroup() as waits:
            for role in roles:
                waits.create_task(self._until_ready(role))

    async def end(self, role: Role, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a role this signal and return its exit status when it has ended; `start` may start it again.

        There is no deadline: who wants one sets it. After a cancel the role is still asked to end.
        """
        process = self._running[role]
        self._told_to_end.add(process.pid)
        process.send_signal(number)
        return await process.wait()

    async def watch(self) -> None:
        """Return never; raises RoleEnded as soon as one of the roles that run now ends by itself."""
        async with asyncio.TaskGroup() as watches:
            for role, process in self._running.items():
                watches.create_task(self._watch(role, process))

    async def stop(self) -> None:
        """Stop all roles, the last started first, and reap them."""
        self._is_stopping = True
        await asyncio.gather(*(_stop(process) for process in reversed(self._running.values())))

    def pids(self) -> dict[str, int]:
        return {role.title: process.pid for role, process in self._running.items()}

    async def _watch(self, role: Role, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        if not self._is_stopping and process.pid not in self._told_to_end:
            raise _ended(role, status)

    async def _until_ready(self, role: Role) -> None:
        process = self._running[role]
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not _is_ready(role, process.pid):
                    if process.returncode is not None:
                        raise _ended(role, process.returncode)
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise WorldFault(
                f"{role.title} is not ready after {READY_SECONDS:g} s", where=str(role.log), remedy=_tail(role.log)
            ) from error


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[RoleProcesses]:
    """Role processes for the length of a block; all are stopped when it is left, however that is."""
    processes = RoleProcesses()
    try:
        yield processes
    finally:
        await asyncio.shield(asyncio.ensure_future(processes.stop()))


async def _spawn(role: Role) -> asyncio.subprocess.Process:
    role.ready_file.unlink(missing_ok=True)
    with role.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "fedci",
            role.command,
            role.verb,
            str(role.directory),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            start_new_session=True,  # Ctrl-C is for us, who then stop the roles in order
            preexec_fn=_die_with_parent(),
        )


def _die_with_parent() -> Callable[[], None]:
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def set_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return set_death_signal


def _is_ready(role: Role, pid: int) -> bool:
    try:
        return bool(json.loads(role.ready_file.read_text(encoding="utf-8"))["pid"] == pid)
    except (OSError, ValueError, KeyError):
        return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
    await process.wait()


def _ended(role: Role, status: int) -> RoleEnded:
    return RoleEnded(f"{role.title} ended with status {status}", where=str(role.log), remedy=_tail(role.log))


def _tail(log: Path) -> str:
    try:
        text = log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")
    except OSError:
        return "There is no log."
    return f"The end of its log:\n{text}"
