"""One prepared job on this machine: its warden, its log, its end. Same for every executor that a warden runs.

The log's pipe is read here, straight from the jail: nothing copies it in between, and a reader that stops reading
stops the job. Bytes over `log_bytes` end the job; a killed job's log ends with a line that says why.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import Any

from agents.sandbox.causes import Cause
from agents.sandbox.executor import End, JobSpec, Outcome, SandboxUnavailable, StepResult, Use
from agents.sandbox.orders import Order
from agents.sandbox.rooms import Rooms
from agents.sandbox.wire import Wire, use_of

CHUNK_BYTES = 64 * 1024
# From SIGKILL for the jail to the last report. A process in an uninterruptible call may take long; then we give up on
# the warden, and what is left is found by the next `reap`.
END_SECONDS = 30.0
# The packages' parent: with -I and -S the warden finds the standard library and, after it, this.
HOME = str(Path(__file__).resolve().parents[2])
# It leaves by _exit: with nothing open and nothing buffered, the interpreter's tidying up would only cost time.
BOOT = """import os, sys
sys.path.append(sys.argv[1])
from agents.sandbox.warden import main
main(int(sys.argv[2]), int(sys.argv[3]))
os._exit(0)"""

WHY = {
    Cause.CANCELLED: "cancelled",
    Cause.SHUTDOWN: "the worker is shutting down",
    Cause.WALL_TIMEOUT: "its wall time is over",
    Cause.LEASE_LOST: "the worker's lease ran out",
    Cause.WORKER_GONE: "its worker is gone",
    Cause.WARDEN_LOST: "its warden died",
    Cause.LOG_FLOOD: "its log is over its limit",
    Cause.OUT_OF_MEMORY: "it used more memory than its limit",
    Cause.WORKSPACE_FULL: "its workspace is over its limit",
    Cause.START_FAILED: "the sandbox did not start",
}


class LogGate:
    """Lets `limit` bytes pass, then nothing."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self.is_over = False

    def take(self, chunk: bytes) -> bytes:
        self.is_over = self.is_over or len(chunk) > self._left
        passed = chunk[: self._left]
        self._left -= len(passed)
        return passed


class WardenSandbox:
    """A `Sandbox` (see `executor`).

    `order` makes the order once the lease is known; `clean_up` kills what a lost warden left, and blocks.
    """

    def __init__(
        self,
        spec: JobSpec,
        rooms: Rooms,
        order: Callable[[float], Order],
        clean_up: Callable[[], object],
    ) -> None:
        self._spec = spec
        self._rooms = rooms
        self._order = order
        self._clean_up = clean_up
        self._cleaning: asyncio.Future[object] | None = None
        self._wire = Wire(tuple(step.name for step in spec.steps), self._warden_was_lost)
        self._is_running = False

    @property
    def workspace(self) -> Path:
        return self._rooms.workspace

    @property
    def owner(self) -> tuple[int, int]:
        return self._rooms.uid, self._rooms.gid

    @property
    def steps(self) -> tuple[StepResult, ...]:
        return tuple(self._wire.steps)

    @property
    def warden_pid(self) -> int:
        return self._warden.pid

    async def start_warden(self) -> None:
        """Starts the warden; the job waits for `run`.

        Raises:
            SandboxUnavailable: no process, pipe or socket to be had.
        """
        try:
            await self._connect()
        except OSError as error:
            raise SandboxUnavailable(f"cannot start a warden: {error}") from error

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._log = asyncio.StreamReader(limit=CHUNK_BYTES)
        with ExitStack() as unless_connected:  # with these closed, a warden that did start leaves again
            ours, theirs = socket.socketpair()
            unless_connected.callback(ours.close)
            log_out, log_in = _pipe()
            unless_connected.callback(log_out.close)
            with theirs, log_in:
                self._warden = await self._spawn(theirs.fileno(), log_in.fileno())
            await loop.create_connection(lambda: self._wire, sock=ours)
            self._log_pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._log), log_out)
            unless_connected.pop_all()

    async def _spawn(self, control: int, log: int) -> asyncio.subprocess.Process:
        arguments = (HOME, str(control), str(log), self._spec.job_id)  # the last is for people who read `ps`
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", BOOT, *arguments),
            pass_fds=(control, log),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={},
        )

    async def run(self, lease_until: float) -> AsyncIterator[bytes]:
        if self._is_running:
            raise RuntimeError(f"job {self._spec.job_id} was run before")
        self._is_running = True
        self._wire.run(self._order(lease_until))
        gate = LogGate(self._spec.limits.log_bytes)
        while chunk := await self._log.read(CHUNK_BYTES):
            if passed := gate.take(chunk):
                yield passed
            if gate.is_over:
                self._wire.end(Cause.LOG_FLOOD)
        outcome = await self.outcome()
        if outcome.cause is not None:
            yield f"\n[fedci] the job was ended: {WHY[outcome.cause]}\n".encode()

    def extend(self, lease_until: float) -> None:
        self._wire.extend(lease_until)

    async def signal(self, cause: Cause) -> None:
        self._wire.end(cause)

    async def outcome(self) -> Outcome:
        report = await asyncio.shield(self._wire.over)
        if report is None:
            await self._cleaned()
            return Outcome(End.KILLED, Cause.WARDEN_LOST, self.steps, Use(0.0, 0.0, 0, is_estimated=True))
        return outcome_of(report, self.steps, len(self._spec.steps))

    async def close(self) -> None:
        """Ends the job if it still runs, and returns when nothing of it is left."""
        self._log_pipe.close()  # what still writes there is about to die anyway
        if self._is_running:
            self._wire.end(Cause.LEASE_LOST)  # its caller has left: no grace
            await self._wait_for_warden()
        self._wire.close()
        await self._bury_warden()
        await self._cleaned()

    def _warden_was_lost(self) -> None:
        """At once, not when somebody asks: what is left of the job would keep its log open, and `run` waiting."""
        if self._is_running:
            self._cleaning = asyncio.get_running_loop().run_in_executor(None, self._clean_up)

    async def _cleaned(self) -> None:
        await asyncio.shield(self._wire.over)
        if self._cleaning is not None:
            await asyncio.shield(self._cleaning)

    async def _wait_for_warden(self) -> None:
        try:
            async with asyncio.timeout(END_SECONDS):
                await asyncio.shield(self._wire.over)
        except TimeoutError:
            self._warden.send_signal(signal.SIGKILL)

    async def _bury_warden(self) -> None:
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._warden.wait()
        except TimeoutError:
            self._warden.kill()
            await self._warden.wait()


def _pipe() -> tuple[FileIO, FileIO]:
    out, into = os.pipe2(os.O_CLOEXEC)
    return FileIO(out, "rb"), FileIO(into, "wb")


def outcome_of(report: dict[str, Any], steps: tuple[StepResult, ...], step_count: int) -> Outcome:
    """Decides the outcome from the warden's last report and the steps that ended before it."""
    if report["cause"] is not None:
        return Outcome(End.KILLED, Cause(report["cause"]), steps, use_of(report))
    is_success = report["code"] == 0 and len(steps) == step_count and all(step.is_success for step in steps)
    return Outcome(End.SUCCEEDED if is_success else End.FAILED, None, steps, use_of(report))
