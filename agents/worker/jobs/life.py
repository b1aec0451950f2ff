"""The story of one claim after the bus has it: the grant or the release, the work, and what is said of its end.

The rules that keep a job from running twice (DESIGN §7.2):

1. It starts only on a grant that arrived within `GrantWindow` of its claim's sending.
2. The start is in the journal before anything of the job happens; a claim that started once never starts again.
3. All that is not granted in time is released, and a released claim never starts.

Whatever happens in here, a claim that started ends with a `Finished` and its usage in the outbox: now, or, if this
process dies, after its restart (`recovery`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from agents.sandbox.causes import Cause
from agents.worker.counts import Counts
from agents.worker.jobs.ending import Ending
from agents.worker.jobs.farewell import Farewell, LogEnd
from agents.worker.jobs.keeper import LeaseKeeper
from agents.worker.jobs.lease import Lease
from agents.worker.jobs.metering import measure
from agents.worker.jobs.work import Done, Granted, Workplace, perform
from agents.worker.journal.claims import Journal, OrderMark
from agents.worker.orders.claims import Claimed, Claims
from agents.worker.orders.handle import Handles
from agents.worker.speech.log_stream import LogStream
from agents.worker.speech.logs import Logs
from agents.worker.speech.post import Post
from agents.worker.speech.voice import Voice
from runtime.clock import Clock
from runtime.errors import WorldFault, leaves
from runtime.logging import get_logger
from schemas import ids
from schemas.ends import EndReason
from schemas.orders import StandDown
from schemas.refusals import Reason

RETRY_SECONDS = 5.0
"""How often an end that the disk would not take is tried again."""
_log = get_logger(__name__)


class Lives:
    """Lives claims to their end, each in the slot that took it."""

    def __init__(
        self,
        *,
        claims: Claims,
        handles: Handles,
        journal: Journal,
        logs: Logs,
        post: Post,
        voice: Voice,
        farewell: Farewell,
        place: Workplace,
        counts: Counts,
        clock: Clock,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._claims = claims
        self._handles = handles
        self._journal = journal
        self._logs = logs
        self._post = post
        self._voice = voice
        self._farewell = farewell
        self._place = place
        self._counts = counts
        self._clock = clock
        self._retry_seconds = retry_seconds

    async def live(self, claimed: Claimed, slot: int) -> None:
        """Wait for the claim's answer and do what it says; returns when the slot is free.

        Cancel: everything of the job is dead when the cancel goes on, and the journal knows that it ran.
        """
        try:
            granted = await self._await_grant(claimed, slot)
            if isinstance(granted, Reason):
                await self._until_written(lambda: self._claims.release(claimed.handle.ref, granted))
            else:
                await self._run(granted)
        finally:
            self._handles.remove(claimed.handle)

    # -- the grant

    async def _await_grant(self, claimed: Claimed, slot: int) -> Granted | Reason:
        handle, window = claimed.handle, claimed.window
        try:
            async with asyncio.timeout(max(0.0, window.ends_at - self._clock.boottime())):
                await handle.answered_or_stopped()
        except TimeoutError:
            return Reason.GRANT_TOO_LATE
        if handle.stop_cause is not None:
            return Reason.CANCELLED if handle.stop_cause is Cause.CANCELLED else Reason.DRAINING
        answer = handle.answer
        if answer is None:
            return Reason.GRANT_TOO_LATE
        if isinstance(answer.order, StandDown):
            return answer.order.reason
        # The timer above stops while the machine sleeps; CLOCK_BOOTTIME does not, so it decides.
        if not (window.is_open(answer.arrived_at) and window.is_open(self._clock.boottime())):
            return Reason.GRANT_TOO_LATE
        mark = OrderMark.of(answer.order, answer.digest)
        return Granted(handle, claimed.job, answer.order, mark, claimed.grant_key, window.claim_sent_at, slot)

    # -- the work

    async def _run(self, granted: Granted) -> None:
        handle, started_at = granted.handle, self._clock.now()
        if not await self._start(granted, started_at):
            return
        _log.info("job_started", attempt=handle.ref.attempt, claim=handle.ref.claim, slot=granted.slot)
        with self._counts.running.track_inprogress():
            stream, done = await self._perform(granted, started_at)
            log = await self._close_log(stream)
            measured = measure(started_at, self._clock.now(), done.use, log.length)
            await self._until_written(lambda: self._farewell.say(handle.ref, granted.job, done, measured, log))

    async def _start(self, granted: Granted, started_at: datetime) -> bool:
        """Journal the start; a start that cannot be journalled does not happen."""
        ref = granted.handle.ref
        try:
            if await self._journal.grant(ref.claim, granted.mark, started_at):
                return True
        except WorldFault as error:
            _log.error("journal_failed", attempt=ref.attempt, claim=ref.claim, reason=str(error))
            await self._until_written(lambda: self._claims.release(ref, Reason.UNDELIVERED))
            return False
        _log.error("grant_of_started_claim", attempt=ref.attempt, claim=ref.claim)
        return False

    async def _perform(self, granted: Granted, started_at: datetime) -> tuple[LogStream | None, Done]:
        """Do the work under its lease. An error of ours ends this job, as ours; not the worker."""
        stream: LogStream | None = None
        done = Done(Ending(EndReason.SANDBOX_FAILED, "the worker failed; its owner's log says more"))
        try:
            stream = await self._logs.open(granted.handle.ref)
            done = await self._under_lease(granted, stream, started_at)
        except* OSError as errors:
            reasons = "; ".join(str(error) for error in leaves(errors))
            _log.error("disk_failed", attempt=granted.handle.ref.attempt, reason=reasons)
            done = Done(Ending(EndReason.SANDBOX_FAILED, "the worker's disk failed"))
        except* Exception:  # noqa: BLE001  # one job's surprise must not end the others' lives; it is told and counted
            _log.exception("job_crashed", attempt=granted.handle.ref.attempt, claim=granted.handle.ref.claim)
        return stream, done

    async def _under_lease(self, granted: Granted, stream: LogStream, started_at: datetime) -> Done:
        # From the sending of the claim, the last message of which the controller has shown that it heard it.
        lease = Lease(granted.grant.lease_seconds, granted.claim_sent_at)
        keeper = LeaseKeeper(
            granted.handle.ref,
            lease,
            started_at=started_at,
            log_bytes=lambda: stream.length,
            journal=self._journal,
            post=self._post,
            voice=self._voice,
            clock=self._clock,
        )
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(keeper.run())
            done = await perform(granted, self._place, keeper, stream)
            beating.cancel()
        return done

    async def _close_log(self, stream: LogStream | None) -> LogEnd:
        if stream is None:
            return LogEnd(0, ids.sha256_hex(b""))
        return LogEnd(stream.length, await stream.close())

    async def _until_written(self, write: Callable[[], Awaitable[None]]) -> None:
        """A full disk delays the end of a job; it does not lose it."""
        while True:
            try:
                await write()
            except WorldFault as error:
                _log.error("journal_failed", reason=str(error))
                await asyncio.sleep(self._retry_seconds)
            else:
                return
