"""Watches the clocks of attempts: leases, unclaimed orders, unanswered claims, cancels that nobody hears (DESIGN §7.5).

| timer | of an attempt that is | runs from | ends it as |
|---|---|---|---|
| queue | published | the end of its order | lost; asked elsewhere |
| grant | claimed, not answered | its claim | lost; asked elsewhere |
| lease | granted | the last word of its worker | lost, `worker-lost`; retried elsewhere |
| job | granted | the grant, its timeout and the grace of its tab | lost, `worker-lost`; retried elsewhere |
| cancel | granted, cancelled | the cancel | lost; the job is cancelled, though its provider was never heard |

The lease counts only while the provider is heard (`decisions.leases`). The others exist so that every job ends, also
where a provider never comes back. The cancel's gives up listening after several leases, which is safe, for nothing is
started in the job's place.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from broker.bells import Bells, wait_for
from broker.decisions import leases
from broker.decisions.leases import Listening
from broker.ingest.outcomes import end_ran, end_unstarted, spec_of
from broker.providers.book import Book
from broker.store import attempts as attempt_store
from broker.store import claims as claim_store
from broker.store import runs as run_store
from broker.tables import AttemptRow, ClaimState
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import WorldFault
from runtime.logging import get_logger
from schemas.ends import EndReason
from schemas.life import AttemptState

_log = get_logger(__name__)
_LOOK_SECONDS = 30.0
_RETRY_SECONDS = 5.0
_SHORTEST_SECONDS = 2.0
CANCEL_LEASES = 3


class Leases:
    """When each running claim was last heard of, by CLOCK_BOOTTIME; nothing of it outlives the process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard: dict[str, float] = {}

    def heard(self, claim_id: str) -> None:
        self._heard[claim_id] = self._clock.boottime()

    def heard_at(self, claim_id: str) -> float:
        """When it was last heard of. One that is asked about before it was counts from now: it was granted just now, or
        before this process was there to hear it.
        """
        return self._heard.setdefault(claim_id, self._clock.boottime())

    def keep_only(self, claim_ids: set[str]) -> None:
        self._heard = {claim: at for claim, at in self._heard.items() if claim in claim_ids}


@dataclass(frozen=True, slots=True)
class Watched:
    """An attempt, the instant (boot time) at which it is over if nothing is heard, and whether it is by now."""

    attempt_id: str
    state: AttemptState
    due_at: float | None
    is_over: bool
    why: str


class LeaseWatch:
    """Ends attempts whose time has run out."""

    def __init__(
        self,
        *,
        database: Database,
        book: Book,
        leases_heard: Leases,
        lease_seconds: int,
        bells: Bells,
        clock: Clock,
    ) -> None:
        self._database = database
        self._book = book
        self._leases = leases_heard
        self._lease_seconds = lease_seconds
        self._bells = bells
        self._clock = clock
        self._timeouts: dict[str, int] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        rest: float = 0
        while True:
            await wait_for(self._bells.watch, rest)
            self._bells.watch.clear()
            try:
                rest = await self.look()
            except WorldFault as error:
                _log.error("lease_watch_failed", reason=str(error))
                rest = _RETRY_SECONDS
            await asyncio.sleep(0)

    async def look(self) -> float:
        """End what is overdue; return the seconds until the next look, if no bell rings before."""
        now = self._clock.boottime()
        watched = await self._watched()
        for each in watched:
            if each.is_over:
                await self._end(each)
        coming = [each.due_at - now for each in watched if each.due_at is not None and not each.is_over]
        return max(_SHORTEST_SECONDS, min([_LOOK_SECONDS, *coming]))

    async def _watched(self) -> list[Watched]:
        async with self._database.read() as session:
            pending = await attempt_store.attempts_in(session, AttemptState.PUBLISHED, AttemptState.CLAIMED)
            running = await claim_store.running_claims(session)
            claimed = {row.attempt_id: row.claimed_at for row in await claim_store.claims_of(session, _ids(pending))}
            cancelled = await attempt_store.cancelled_at(session, [attempt.id for attempt, _ in running])
            await self._learn_timeouts(session, [attempt for attempt, _ in running])
        self._leases.keep_only({claim.id for _, claim in running})
        watched = [self._pending(attempt, claimed.get(attempt.id)) for attempt in pending]
        for attempt, claim in running:
            watched += [self._leased(attempt, claim.id), self._timed(attempt)]
            watched.extend(self._cancelled(attempt, cancelled.get(attempt.id)))
        return watched

    async def _learn_timeouts(self, session: AsyncSession, running: list[AttemptRow]) -> None:
        """Read the timeouts of jobs that run since the last look; they never change."""
        known = {attempt.id: self._timeouts.get(attempt.id) for attempt in running}
        jobs = await run_store.jobs_by_ids(session, {each.job_id for each in running if known[each.id] is None})
        self._timeouts = {attempt.id: known[attempt.id] or spec_of(jobs[attempt.job_id]).timeout for attempt in running}

    def _pending(self, attempt: AttemptRow, claimed_at: datetime | None) -> Watched:
        if attempt.state is AttemptState.PUBLISHED or claimed_at is None:
            due_at = leases.unclaimed_ends_at(self._boottime_of(attempt.expires_at))
            return self._by_clock(attempt, due_at, "nobody claimed it while its order was good")
        due_at = leases.unanswered_ends_at(self._boottime_of(claimed_at))
        return self._by_clock(attempt, due_at, attempt.why or "its claim could not be answered in time")

    def _leased(self, attempt: AttemptRow, claim_id: str) -> Watched:
        listening = Listening(self._lease_seconds, self._leases.heard_at(claim_id))
        hearing = self._book.hearing(attempt.provider)
        due_at = leases.lease_ends_at(listening, hearing)
        why = f"nothing was heard of it for {self._lease_seconds} s"
        return Watched(attempt.id, attempt.state, due_at, leases.is_over(due_at, hearing), why)

    def _timed(self, attempt: AttemptRow) -> Watched:
        timeout = self._timeouts[attempt.id]
        due_at = leases.job_ends_at(self._boottime_of(attempt.granted_at or attempt.made_at), timeout)
        return self._by_clock(attempt, due_at, f"its end was not reported, though its time of {timeout} s is long over")

    def _cancelled(self, attempt: AttemptRow, cancelled_at: datetime | None) -> Iterator[Watched]:
        if cancelled_at is not None:
            until = cancelled_at + timedelta(seconds=CANCEL_LEASES * self._lease_seconds)
            why = "cancelled, and its provider could not be heard since"
            yield self._by_clock(attempt, self._boottime_of(until), why)

    def _by_clock(self, attempt: AttemptRow, due_at: float, why: str) -> Watched:
        return Watched(attempt.id, attempt.state, due_at, due_at <= self._clock.boottime(), why)

    def _boottime_of(self, at: datetime) -> float:
        """A wall instant on the clock that does not jump, as the two stand now."""
        return self._clock.boottime() + (at - self._clock.now()).total_seconds()

    async def _end(self, watched: Watched) -> None:
        async with self._database.write() as session:
            attempt = await attempt_store.attempt(session, watched.attempt_id)
            if attempt is None or attempt.state is not watched.state:
                return
            now = self._clock.now()
            if attempt.state is AttemptState.GRANTED:
                reason = EndReason.WORKER_LOST
                run_id = await end_ran(session, attempt, AttemptState.LOST, reason, watched.why, now)
                claim = await claim_store.granted_claim(session, attempt.id)
                if claim is not None and claim.state is ClaimState.OPEN:
                    claim.state, claim.log_gap = ClaimState.INCOMPLETE, "the worker was lost"
            else:
                run_id = await end_unstarted(session, attempt, AttemptState.LOST, watched.why, now)
        _log.warning("attempt_lost", attempt=watched.attempt_id, was=watched.state, why=watched.why)
        if run_id is not None:
            self._bells.run_changed(run_id)
        self._bells.receipts.set()


def _ids(attempts: list[AttemptRow]) -> list[str]:
    return [attempt.id for attempt in attempts]
