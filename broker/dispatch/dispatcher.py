"""Sends out what is ready: graph, placement, signature, and one transaction for attempt and outbox row (DESIGN §7.1).

Woken by `bells.dispatch`; looks at all jobs that wait, the oldest run's first, because a place that one run leaves is
for whoever waits longest. Signing comes before the transaction (it may have to ask the issuer for a token), and each
attempt is signed once: a crash in between loses an unsent order, never sends two. One task runs this; a job that
somebody else moved meanwhile is left alone (`move_job` asks the table again).
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from broker.bells import Bells, wait_for
from broker.decisions import graph, placement, retry
from broker.decisions.placement import Choice, Obstacle, WhyNot
from broker.dispatch.order_building import JobFacts, build_job, gather_facts
from broker.dispatch.outgoing import Outgoing
from broker.dispatch.uploads import Uploads
from broker.providers.book import Book
from broker.sources.snapshots import Snapshots
from broker.store import attempts as attempt_store
from broker.store import runs as run_store
from broker.tables import AttemptRow, JobRow
from broker.voice import Signed, Voice
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import OurFault, PeerFault, WorldFault
from runtime.logging import get_logger
from schemas import ids
from schemas.life import AttemptState, JobState
from schemas.orders import Job

_log = get_logger(__name__)
_RETRY_SECONDS = 5.0
_LOOK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Ready:
    """An order that is signed and not yet stored."""

    facts: JobFacts
    choice: Choice
    attempt_id: str
    number: int
    signed: Signed


class Dispatcher:
    """Places the waiting jobs of this controller."""

    def __init__(
        self,
        *,
        database: Database,
        book: Book,
        voice: Voice,
        outgoing: Outgoing,
        snapshots: Snapshots,
        uploads: Uploads,
        bells: Bells,
        clock: Clock,
    ) -> None:
        self._database = database
        self._book = book
        self._voice = voice
        self._outgoing = outgoing
        self._snapshots = snapshots
        self._uploads = uploads
        self._bells = bells
        self._clock = clock

    async def run(self) -> None:
        """Dispatch until cancelled. A cancel loses nothing: what is not committed is found again at the next start."""
        rest: float | None = None
        while True:
            await wait_for(self._bells.dispatch, rest)
            self._bells.dispatch.clear()
            began_at = self._clock.boottime()
            try:
                rest = self._rest_seconds(await self.dispatch())
            except WorldFault as error:
                _log.error("dispatch_failed", reason=str(error))
                self._bells.dispatch.set()
                await asyncio.sleep(_RETRY_SECONDS)
            # A look costs as much as there are jobs that wait: so it takes half of the time at most.
            await asyncio.sleep(self._clock.boottime() - began_at)

    def _rest_seconds(self, due_at: datetime | None) -> float:
        if due_at is None:
            return _LOOK_SECONDS
        return min(_LOOK_SECONDS, max(1.0, (due_at - self._clock.now()).total_seconds()))

    async def dispatch(self) -> datetime | None:
        """Send out what can be sent; return when to look again though nobody rings."""
        async with self._database.read() as session:
            wanted = await run_store.runs_with_waiting_jobs(session)
            load = Counter(await attempt_store.in_flight(session))
        due: list[datetime] = []
        for run_id in wanted:
            due.extend(await self._dispatch_run(run_id, load))
        return min(due, default=None)

    async def _dispatch_run(self, run_id: str, load: Counter[tuple[str, str]]) -> list[datetime]:
        async with self._database.read() as session:
            jobs = await run_store.jobs(session, run_id)
            progress = graph.advance(graph.Node(job.name, tuple(job.needs), job.state) for job in jobs)
            facts = await gather_facts(session, run_id, [job for job in jobs if job.name in progress.ready])
        ready: list[Ready] = []
        waiting: dict[str, list[WhyNot]] = {
            name: [WhyNot("", Obstacle.WAITING, f"it needs {', '.join(needs)}")]
            for name, needs in progress.blocked.items()
        }
        due: list[datetime] = []
        for job in facts:
            found, until = await self._prepare(job, load)
            if isinstance(found, Ready):
                ready.append(found)
                load[(found.choice.provider, found.choice.pool)] += 1
            else:
                waiting[job.name] = found
                due.extend([until] if until is not None else [])
        await self._store(run_id, jobs, progress.skipped, ready, waiting)
        return due

    async def _prepare(
        self, job: JobFacts, load: Counter[tuple[str, str]]
    ) -> tuple[Ready | list[WhyNot], datetime | None]:
        """Place and sign one job; or why it has to wait, and until when at most."""
        now = self._clock.now()
        bars = retry.bars_of(job.refusals, now)
        in_the_way = job.obstacles() + await self._source_obstacles(job)
        if in_the_way:
            return in_the_way, None
        placed = placement.place(job.wanted(self._voice.issuer), self._book.offers(load), bars, job.burned, now)
        why_not = list(placed.why_not)
        until = bars.until
        for choice in placed.choices:
            signed = await self._sign(job, choice)
            if isinstance(signed, Ready):
                return signed, None
            why_not.append(signed)
            until = now + timedelta(seconds=_RETRY_SECONDS)
        return why_not, until

    async def _source_obstacles(self, job: JobFacts) -> list[WhyNot]:
        """Why the sources cannot travel yet: too large to go inline, and not yet in the store."""
        if job.store is None and job.source_is_inline:
            return []
        if job.store is None:
            text = "its sources are too large to travel with the job; name a store in the pipeline (`store:`)"
            return [WhyNot("", Obstacle.STORE_NOT_REACHABLE, text)]
        if self._book.store_of(job.store) is None:
            text = f"no provider `{job.store}` with a store is known here; add it with `fedci controller provider add`"
            return [WhyNot(job.store, Obstacle.STORE_NOT_REACHABLE, text)]
        if job.source_is_inline:
            return []
        trouble = await self._uploads.trouble(job.store, job.source_digest)
        return [] if trouble is None else [WhyNot(job.store, Obstacle.STORE_NOT_REACHABLE, trouble)]

    async def _sign(self, job: JobFacts, choice: Choice) -> Ready | WhyNot:
        attempt_id, number = ids.new_attempt_id(), job.attempts + 1
        try:
            inline = await self._snapshots.read(job.source_digest) if job.source_is_inline else None
            fields = build_job(job, choice, attempt_id, number, inline)
            signed = await self._voice.order(choice.provider, Job, **fields)
        except (WorldFault, PeerFault, OurFault) as error:
            return WhyNot(choice.provider, Obstacle.NOT_SIGNED, f"the order could not be signed: {error}")
        return Ready(job, choice, attempt_id, number, signed)

    async def _store(
        self,
        run_id: str,
        jobs: list[JobRow],
        skipped: object,
        ready: list[Ready],
        waiting: dict[str, list[WhyNot]],
    ) -> None:
        """Write what was found, all of the run in one transaction; nothing when nothing is new."""
        told = {name: [_as_json(reason) for reason in reasons] for name, reasons in waiting.items()}
        is_news = any(told[job.name] != job.waiting_for for job in jobs if job.name in told)
        if not (skipped or ready or is_news):
            return
        try:
            async with self._database.write() as session:
                await self._write(session, run_id, {order.facts.name: order for order in ready}, told)
        except IntegrityError:
            # Another process of this controller was first; what it wrote is what counts.
            _log.info("dispatch_lost_race", run=run_id)
        for order in ready:
            _log.info(
                "job_dispatched",
                run=run_id,
                job=order.facts.name,
                attempt=order.attempt_id,
                provider=order.choice.provider,
                pool=order.choice.pool,
            )
        self._bells.watch.set()
        if skipped:
            self._bells.run_changed(run_id)

    async def _write(
        self, session: AsyncSession, run_id: str, ready: dict[str, Ready], told: dict[str, list[dict[str, str]]]
    ) -> None:
        now = self._clock.now()
        rows = {job.name: job for job in await run_store.jobs(session, run_id)}
        progress = graph.advance(graph.Node(job.name, tuple(job.needs), job.state) for job in rows.values())
        for name, need in progress.skipped.items():
            detail = f"`{need}` did not succeed"
            await run_store.move_job(session, rows[name], JobState.SKIPPED, now, reason="needs", detail=detail)
        for name, order in ready.items():
            if name in progress.ready:
                await self._write_attempt(session, rows[name], order, now)
        for name, reasons in told.items():
            if rows[name].state is JobState.WAITING:
                rows[name].waiting_for = reasons

    async def _write_attempt(self, session: AsyncSession, job: JobRow, order: Ready, now: datetime) -> None:
        await run_store.move_job(session, job, JobState.QUEUED, now, waiting_for=[], reason=None, detail=None)
        row = AttemptRow(
            id=order.attempt_id,
            job_id=job.id,
            number=order.number,
            provider=order.choice.provider,
            pool=order.choice.pool,
            store=order.facts.store,
            rate_card=order.choice.rate_card,
            state=AttemptState.PUBLISHED,
            is_current=True,
            order_digest=order.signed.digest,
            made_at=now,
            expires_at=order.signed.expires_at,
        )
        await attempt_store.add_attempt(session, row)
        self._outgoing.job(session, row.provider, row.pool, order.signed.raw, row.id, order.signed.expires_at)


def _as_json(reason: WhyNot) -> dict[str, str]:
    return {"provider": reason.provider, "obstacle": str(reason.obstacle), "detail": reason.detail}
