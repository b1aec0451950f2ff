"""The logs of all claims that are not settled: sent in the background, long after the job's slot is free again.

A claim's log is opened by its life, resumed after a restart, sent again on the controller's word, and deleted when the
controller has settled it. How far the bus has it is noted in the journal now and then, and at the end.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from agents.worker.journal.claims import ClaimEntry, Journal
from agents.worker.journal.spool import Cut, Spool, SpoolReader, delete_spool, spooled_claims
from agents.worker.speech.log_stream import LogStream, SendCut, StreamLimits, resend
from agents.worker.speech.post import Post
from agents.worker.speech.voice import ClaimRef, Voice
from runtime.clock import Clock
from runtime.errors import WorldFault, leaves
from runtime.logging import get_logger
from runtime.outbox import PublishResult

NOTE_SECONDS = 10
_log = get_logger(__name__)


class Logs:
    """Owns the spools. `run` must be running; it is the lifetime of everything that is sent from here."""

    def __init__(
        self,
        directory: Path,
        journal: Journal,
        post: Post,
        voice: Voice,
        clock: Clock,
        bounds: StreamLimits | None = None,
    ) -> None:
        self._directory = directory
        self._journal = journal
        self._post = post
        self._voice = voice
        self._clock = clock
        self._limits = bounds or StreamLimits()
        self._work: asyncio.Queue[tuple[str, Coroutine[Any, Any, None]]] = asyncio.Queue()
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}
        self._resending: set[str] = set()

    @property
    def is_busy(self) -> bool:
        """Whether any log is on its way."""
        return bool(self._tasks) or not self._work.empty()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                claim, work = await self._work.get()
                task = group.create_task(work)
                self._tasks.setdefault(claim, set()).add(task)
                task.add_done_callback(self._forget_task(claim))

    async def open(self, ref: ClaimRef, acknowledged: int = 0) -> LogStream:
        """Open a claim's log, new or left by an earlier life, and begin to send it. Raises OSError."""
        spool = await asyncio.to_thread(Spool, self._directory, ref.claim)
        stream = LogStream(
            spool, self._sender(ref), self._clock, acknowledged=min(acknowledged, spool.length), bounds=self._limits
        )
        self._work.put_nowait((ref.claim, self._guard(ref, self._stream(ref, spool, stream))))
        return stream

    async def resume(self, entry: ClaimEntry) -> None:
        """Send the rest of a log whose job is over."""
        stream = await self.open(ClaimRef(entry.tenant, entry.attempt, entry.claim), entry.log_acknowledged)
        await stream.close()

    def resend(self, ref: ClaimRef, start: int, end: int) -> None:
        """Send the messages of a range again; not while another range of this log is: the controller asks once more."""
        if ref.claim in self._resending:
            _log.info("resend_under_way", attempt=ref.attempt, claim=ref.claim)
            return
        self._resending.add(ref.claim)
        self._work.put_nowait((ref.claim, self._guard(ref, self._resend(ref, start, end))))

    async def forget(self, claim: str) -> None:
        """Stop sending a claim's log and delete it."""
        tasks = self._tasks.get(claim, set()).copy()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.to_thread(delete_spool, self._directory, claim)

    def orphans(self, known: frozenset[str]) -> list[str]:
        """Logs of claims that the journal does not know any more."""
        return [claim for claim in spooled_claims(self._directory) if claim not in known]

    def _sender(self, ref: ClaimRef) -> SendCut:
        async def send(cut: Cut, data: bytes) -> PublishResult:
            return await self._post.log(ref.tenant, self._voice.log(ref, cut, data), attempt=ref.attempt)

        return send

    async def _stream(self, ref: ClaimRef, spool: Spool, stream: LogStream) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                noting = group.create_task(self._note_progress(ref.claim, stream))
                await stream.run()
                noting.cancel()
        finally:
            spool.close()
        await self._journal.note_log(ref.claim, stream.acknowledged, is_whole=True)
        _log.info("log_sent", attempt=ref.attempt, claim=ref.claim, log_bytes=stream.length)

    async def _note_progress(self, claim: str, stream: LogStream) -> None:
        noted = stream.acknowledged
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            if stream.acknowledged > noted:
                noted = stream.acknowledged
                try:
                    await self._journal.note_log(claim, noted, is_whole=False)
                except WorldFault as error:
                    # After a restart more is sent again than need be; that is no reason to stop sending now.
                    _log.warning("log_progress_not_noted", claim=claim, reason=str(error))

    async def _resend(self, ref: ClaimRef, start: int, end: int) -> None:
        try:
            spool = await asyncio.to_thread(SpoolReader, self._directory, ref.claim)
            try:
                await resend(spool, spool.cuts(start, end), self._sender(ref), self._limits)
            finally:
                spool.close()
        finally:
            self._resending.discard(ref.claim)

    async def _guard(self, ref: ClaimRef, work: Coroutine[Any, Any, None]) -> None:
        """One log that cannot be read must not end the sending of the others; the controller will ask again."""
        try:
            await work
        except* (OSError, WorldFault) as errors:
            for error in leaves(errors):
                _log.error("log_not_sent", attempt=ref.attempt, claim=ref.claim, reason=str(error))

    def _forget_task(self, claim: str) -> Callable[[asyncio.Task[None]], None]:
        def forget(task: asyncio.Task[None]) -> None:
            tasks = self._tasks.get(claim, set())
            tasks.discard(task)
            if not tasks:
                self._tasks.pop(claim, None)

        return forget
