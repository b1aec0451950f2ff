"""How a role starts, becomes ready, and stops.

Start: `start_role` (the command line's way in) opens the log, takes the directory's lock, runs `serve` in an event
loop and turns errors into an exit status. Ready: `announce_ready` writes `<role>.ready` for whoever waits. Stop: the
first SIGTERM or SIGINT drains (take no new work), the second hands work back, the third kills: `serve` is cancelled.

`serve` gets the directory and a `Stop`, returns after `stop.draining()` when all is closed, and never installs signal
handlers. The lock is an flock: the kernel drops it with the process, however that ends.
"""

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from types import TracebackType

from runtime.addresses import without_userinfo
from runtime.errors import FedciError, OurFault, WorldFault, leaves
from runtime.logging import get_logger, log_to

Serve = Callable[[Path, "Stop"], Awaitable[None]]

EXIT_FAILED = 1
EXIT_MUST_ACT = 2
EXIT_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits(3)
_LOCK_NAME = "fedci.lock"
_log = get_logger(__name__)


class StopLevel(IntEnum):
    """How urgently a role is asked to stop; it only rises."""

    RUNNING = 0
    DRAIN = 1
    HAND_BACK = 2
    KILL = 3


class AlreadyRunning(OurFault):
    """Another process works on the same data directory."""


class Stop:
    """A role's wish to stop, seen by all its tasks; each signal raises it by one level."""

    def __init__(self) -> None:
        self._level = StopLevel.RUNNING
        self._reached = {level: asyncio.Event() for level in StopLevel if level}

    @property
    def level(self) -> StopLevel:
        return self._level

    def press(self) -> None:
        """Raise the level by one."""
        self.rise_to(StopLevel(min(self._level + 1, StopLevel.KILL)))

    def rise_to(self, level: StopLevel) -> None:
        """Raise the level to at least `level`; it never falls."""
        self._level = max(self._level, level)
        for each, event in self._reached.items():
            if each <= self._level:
                event.set()

    async def draining(self) -> None:
        """Return when no new work may be taken. Cancelling the wait changes nothing (so for the other two)."""
        await self._reached[StopLevel.DRAIN].wait()

    async def handing_back(self) -> None:
        """Return when running work must be given back."""
        await self._reached[StopLevel.HAND_BACK].wait()

    async def killed(self) -> None:
        """Return when everything must end at once."""
        await self._reached[StopLevel.KILL].wait()


class DirectoryLock:
    """Holds a data directory for one process, as a context manager; raises AlreadyRunning on entering."""

    def __init__(self, directory: Path, role: str) -> None:
        self._directory = directory
        self._role = role
        self._descriptor = -1

    def __enter__(self) -> "DirectoryLock":
        path = self._directory / _LOCK_NAME
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OurFault(
                f"cannot use this data directory ({error.strerror})",
                where=str(self._directory),
                remedy="Make it with the role's `init` command, or see who owns it.",
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 100, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise self._already_running(holder) from error
        # The file stays when the lock goes: removing it would let two processes lock two files of the same name.
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()} {self._role}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def _already_running(self, holder: str) -> AlreadyRunning:
        pid, _, role = holder.partition(" ")
        return AlreadyRunning(
            f"already in use by fedci {role or self._role} with pid {pid}",
            where=str(self._directory),
            remedy=f"Stop that one first (kill {pid}), or use another data directory.",
        )


def announce_ready(directory: Path, role: str, urls: Mapping[str, str] | None = None) -> None:
    """Write `<role>.ready` (JSON: pid, role, urls) for whoever waits for the role, and log `ready`."""
    urls = dict(urls or {})
    told = {"pid": os.getpid(), "role": role, "urls": urls}
    fresh = directory / f".{role}.ready.new"
    fresh.write_text(json.dumps(told), encoding="utf-8")
    fresh.replace(directory / f"{role}.ready")  # whoever polls sees the whole file or none
    _log.info("ready", urls=urls)


async def run_role(role: str, directory: Path, serve: Serve) -> None:
    """Run `serve` under the directory's lock and the signals until it returns.

    Raises what `serve` raises. After a third signal `serve` is cancelled and its CancelledError ends here.
    """
    stop = Stop()
    ready_file = directory / f"{role}.ready"
    with DirectoryLock(directory, role), _signals_press(stop):
        ready_file.unlink(missing_ok=True)
        try:
            await _until_done_or_killed(serve(directory, stop), stop)
        finally:
            ready_file.unlink(missing_ok=True)


def start_role(role: str, directory: Path, serve: Serve, *, log_file: Path | None = None) -> int:
    """Run a role as this whole process and return its exit status; errors are told on stderr.

    Status 0: stopped as asked; 2: a person must act (settings, ports, lock); 75: the world failed, start it again;
    1: anything else.
    """
    with log_to(log_file, role=role):
        use_pidfd_child_watcher()
        try:
            # Children work elsewhere, and must still find what they are told to.
            asyncio.run(run_role(role, directory.resolve(), serve))
        except BaseException as error:  # noqa: BLE001  # the last line of defence: told, logged, then an exit status
            return _exit_status(role, error)
    return 0


def use_pidfd_child_watcher() -> None:
    """On Python 3.11, watch children by pidfd instead of a thread each; 3.12 does so by itself."""
    if sys.version_info >= (3, 12):
        return
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # a kernel or a seccomp filter without pidfd: the threads work too
        return
    asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


async def _until_done_or_killed(serving: Awaitable[None], stop: Stop) -> None:
    async with asyncio.TaskGroup() as group:
        role = asyncio.ensure_future(serving)
        killer = group.create_task(_cancel_when_killed(role, stop))
        try:
            await asyncio.wait([role])
        finally:
            # Also when we ourselves are cancelled: the role never outlives its lock.
            killer.cancel()
            role.cancel()
            await asyncio.wait([role])
    if not (role.cancelled() and stop.level is StopLevel.KILL):
        role.result()


async def _cancel_when_killed(role: "asyncio.Future[None]", stop: Stop) -> None:
    await stop.killed()
    role.cancel()


@contextmanager
def _signals_press(stop: Stop) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def press(number: signal.Signals) -> None:
        stop.press()
        _log.info("stop_asked", signal=number.name, level=stop.level.name.lower())

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, press, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _exit_status(role: str, error: BaseException) -> int:
    if isinstance(error, SystemExit | KeyboardInterrupt):
        raise error
    causes = list(leaves(error))
    for cause in causes:
        _log.error("role_failed", kind=type(cause).__name__, reason=str(cause))
        with suppress(OSError):
            told = str(cause) if isinstance(cause, FedciError) else repr(cause)
            sys.stderr.write(f"fedci {role}: {without_userinfo(told)}\n")
    if not all(isinstance(cause, FedciError) for cause in causes):
        _log.exception("role_crashed")
        return EXIT_FAILED
    if any(isinstance(cause, OurFault) for cause in causes):
        return EXIT_MUST_ACT
    return EXIT_TRY_AGAIN if all(isinstance(cause, WorldFault) for cause in causes) else EXIT_FAILED
