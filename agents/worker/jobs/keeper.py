"""Keeps one job's lease: heartbeats to the controller, and the sandbox's warden told how long it may go on.

Only a heartbeat that the bus has confirmed extends the lease, and by its sending time (`lease`). A heartbeat is never
stored and never waits behind a log. When none gets through, nothing is done here: the warden kills in time, by itself.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from agents.sandbox.executor import Sandbox
from agents.worker.jobs.lease import Lease
from agents.worker.jobs.metering import measure
from agents.worker.journal.claims import Journal
from agents.worker.speech.post import Post
from agents.worker.speech.voice import ClaimRef, Voice
from runtime.clock import Clock
from runtime.errors import WorldFault
from runtime.logging import get_logger
from runtime.outbox import Later, PublishResult, Sent
from schemas.reports import Heartbeat

RETRY_FRACTION = 0.2
"""Of the time between two heartbeats, how long to wait after one that failed."""
_log = get_logger(__name__)


class LeaseKeeper:
    """One job's. `log_bytes` says how long its log is."""

    def __init__(
        self,
        ref: ClaimRef,
        lease: Lease,
        *,
        started_at: datetime,
        log_bytes: Callable[[], int],
        journal: Journal,
        post: Post,
        voice: Voice,
        clock: Clock,
    ) -> None:
        self._ref = ref
        self._lease = lease
        self._started_at = started_at
        self._log_bytes = log_bytes
        self._journal = journal
        self._post = post
        self._voice = voice
        self._clock = clock
        self._sandbox: Sandbox | None = None

    @property
    def lease(self) -> Lease:
        return self._lease

    def guard(self, sandbox: Sandbox) -> None:
        """Extend this sandbox's lease from now on."""
        self._sandbox = sandbox

    async def run(self) -> None:
        """Send heartbeats until cancelled, the first one at once."""
        while True:
            answer = await self._beat_once()
            pause_seconds = self._lease.heartbeat_seconds
            if not isinstance(answer, Sent):
                _log.warning("heartbeat_failed", attempt=self._ref.attempt, reason=answer.reason)
                pause_seconds *= RETRY_FRACTION
            await asyncio.sleep(pause_seconds)

    async def _beat_once(self) -> PublishResult:
        sent_at = self._clock.boottime()
        try:
            async with asyncio.timeout(self._lease.heartbeat_seconds):
                answer = await self._beat()
        except TimeoutError:
            return Later("no confirm in time")
        except WorldFault as error:
            return Later(str(error))
        if isinstance(answer, Sent):
            self._extend(sent_at)
        return answer

    async def _beat(self) -> PublishResult:
        now = self._clock.now()
        sequence = await self._journal.next_sequence(self._ref.claim, now)
        step = len(self._sandbox.steps) if self._sandbox else 0
        log_bytes = self._log_bytes()
        used = measure(self._started_at, now, None, log_bytes).used()
        body = self._voice.report(Heartbeat, self._ref, sequence, step=step, log_bytes=log_bytes, used=used)
        life = timedelta(seconds=self._lease.seconds)
        return await self._post.reply(self._ref.tenant, body, attempt=self._ref.attempt, expires_after=life)

    def _extend(self, sent_at: float) -> None:
        self._lease = self._lease.confirmed(sent_at)
        if self._sandbox is not None:
            self._sandbox.extend(self._lease.until)
