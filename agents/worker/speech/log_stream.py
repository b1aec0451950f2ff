"""A job's log on its way from the pipe to the bus: written to the spool first, sent from there.

Rules:

1. A byte is on the spool before it is sent, and every message is a cut of the spool: what is sent again is the same.
2. A message leaves when `LOG_CHUNK_BYTES` are there, or `batch_seconds` after the first byte that waits.
3. At most `window` messages are under way. One that the bus does not take is tried again, for ever, at growing
   intervals; the others behind it in the window go on.
4. A message that the disk has no room to note is made later; meanwhile nothing of the log is given up.
5. When the spool is `backlog_bytes` ahead of what the bus has confirmed, `write` waits, and so does the job's pipe.
   `stop_pausing` ends that for good: after the job was told to end, nothing may hold up its end.

At least once: after a restart what was not known to be confirmed is sent again. Heartbeats do not pass here.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agents.worker.journal.spool import Cut, Spool, SpoolReader
from runtime.clock import Clock
from runtime.errors import WorldFault
from runtime.logging import get_logger
from runtime.outbox import Later, PublishResult, Sent
from schemas import limits, wire

_log = get_logger(__name__)
SendCut = Callable[[Cut, bytes], Awaitable[PublishResult]]


@dataclass(frozen=True, slots=True)
class StreamLimits:
    batch_seconds: float = 0.075
    window: int = 8
    backlog_bytes: int = 4 * limits.MIB
    publish_seconds: float = 30
    first_retry_seconds: float = 0.25
    last_retry_seconds: float = 5


class LogStream:
    """One claim's log, while any of it is not confirmed."""

    def __init__(
        self, spool: Spool, send: SendCut, clock: Clock, *, acknowledged: int = 0, bounds: StreamLimits | None = None
    ) -> None:
        self._spool = spool
        self._send = send
        self._clock = clock
        self._limits = bounds or StreamLimits()
        self._start = acknowledged
        self._confirmed_bytes = acknowledged
        self._under_way: set[int] = set()
        self._file = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._is_closed = False
        self._is_pausing = True

    @property
    def length(self) -> int:
        return self._spool.length

    @property
    def acknowledged(self) -> int:
        """Up to which offset the bus has everything."""
        return min(self._under_way, default=max(self._start, self._spool.cut_to))

    async def write(self, data: bytes) -> None:
        """Append to the log; waits while the bus is too far behind. Raises OSError where the disk refuses."""
        async with self._file:
            await asyncio.to_thread(self._spool.append, data)
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(self._has_room)

    async def stop_pausing(self) -> None:
        async with self._changed:
            self._is_pausing = False
            self._changed.notify_all()

    async def close(self) -> str:
        """No more will be written; returns the SHA-256 of the whole log, which is on the disk by then if it can."""
        try:
            async with self._file:
                await asyncio.to_thread(self._spool.sync)
        except OSError:
            # What the disk would not keep is still sent as far as it can be read.
            _log.exception("log_not_synced")
        async with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        return self._spool.sha256

    async def run(self) -> None:
        """Send until the log is closed and all of it confirmed. Cancel: what is under way may arrive, and again."""
        async with self._sending() as launch:
            for cut in self._spool.cuts(self._start, self._spool.cut_to):
                await launch(cut)
            while await self._wait_for_batch():
                cut_now = await self._cut()
                if cut_now is not None:
                    await launch(cut_now)

    async def _cut(self) -> Cut | None:
        """Make the next message; None, after a pause, while the disk has no room for that: the bytes stay here."""
        try:
            async with self._file:
                return await asyncio.to_thread(self._spool.cut, wire.to_milliseconds(self._clock.now()))
        except OSError as error:
            _log.error("log_not_cut", reason=str(error))
            await asyncio.sleep(self._limits.last_retry_seconds)
            return None

    def _has_room(self) -> bool:
        return not self._is_pausing or self._spool.length - self._confirmed_bytes <= self._limits.backlog_bytes

    async def _wait_for_batch(self) -> bool:
        """Return when something should be cut; False when nothing will come any more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._spool.uncut or self._is_closed)
            if not self._is_batch_full():
                try:
                    async with asyncio.timeout(self._limits.batch_seconds):
                        await self._changed.wait_for(self._is_batch_full)
                except TimeoutError:
                    pass
        return bool(self._spool.uncut)

    def _is_batch_full(self) -> bool:
        return self._is_closed or self._spool.uncut >= limits.LOG_CHUNK_BYTES

    @asynccontextmanager
    async def _sending(self) -> AsyncIterator[Callable[[Cut], Awaitable[None]]]:
        """Gives a function that sends a cut in the background, once there is room in the window."""
        window = asyncio.Semaphore(self._limits.window)

        async def send(cut: Cut) -> None:
            try:
                await send_until_taken(self._spool, cut, self._send, self._limits)
            finally:
                window.release()
            await self._note_confirmed(cut)

        async with asyncio.TaskGroup() as group:

            async def launch(cut: Cut) -> None:
                self._under_way.add(cut.offset)
                await window.acquire()
                group.create_task(send(cut))

            yield launch

    async def _note_confirmed(self, cut: Cut) -> None:
        self._under_way.discard(cut.offset)
        async with self._changed:
            self._confirmed_bytes += cut.length
            self._changed.notify_all()


async def resend(spool: SpoolReader, cuts: Iterable[Cut], send: SendCut, bounds: StreamLimits) -> None:
    """Send these messages again, one after the other, each until the bus takes it."""
    for cut in cuts:
        await send_until_taken(spool, cut, send, bounds)


async def send_until_taken(spool: SpoolReader, cut: Cut, send: SendCut, bounds: StreamLimits) -> None:
    """Publish one log message as often as it needs."""
    data = await asyncio.to_thread(spool.read, cut)
    pause_seconds = bounds.first_retry_seconds
    while not isinstance(await _try(cut, data, send, bounds), Sent):
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, bounds.last_retry_seconds)


async def _try(cut: Cut, data: bytes, send: SendCut, bounds: StreamLimits) -> PublishResult:
    try:
        async with asyncio.timeout(bounds.publish_seconds):
            return await send(cut, data)
    except TimeoutError:
        return Later("no confirm in time")
    except WorldFault as error:
        return Later(str(error))
