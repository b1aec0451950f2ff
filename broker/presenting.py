"""Turns rows into views: one reading transaction for each answer, nothing is decided here."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from broker.decisions.settling import contiguous
from broker.ingest.receipts import usage_of
from broker.providers.book import KnownProvider
from broker.providers.costs import costs_of, read_rate_cards
from broker.store import attempts as attempt_store
from broker.store import claims as claim_store
from broker.store import outbox as outbox_store
from broker.store import providers as provider_store
from broker.store import runs as run_store
from broker.store import usage as usage_store
from broker.tables import Answer, AttemptRow, ClaimRow, ClaimState, JobRow, RunRow, UsageRow
from broker.views import (
    AlarmView,
    ArtifactView,
    AttemptView,
    JobView,
    LogView,
    OrphanView,
    PoolView,
    ProviderView,
    ReasonView,
    RefusalView,
    RunSummary,
    RunView,
    UsageOfProvider,
    UsageView,
)
from identity.keys import fingerprint

_RECENT = 50


# -- Runs


async def run_summaries(
    session: AsyncSession, *, project: str | None, limit: int, before: datetime | None
) -> list[RunSummary]:
    """The newest runs, each with how many of its jobs are in which state."""
    rows = await run_store.runs(session, project=project, limit=limit, before=before)
    jobs = await run_store.jobs_by_runs(session, [row.id for row in rows])
    return [_summary(row, [job for job in jobs if job.run_id == row.id]) for row in rows]


async def run_view(session: AsyncSession, run_id: str) -> RunView | None:
    """A run with its jobs and all their attempts, and what it cost so far."""
    row = await run_store.run(session, run_id)
    if row is None:
        return None
    jobs = await run_store.jobs(session, run_id)
    attempts = await attempt_store.attempts_of(session, [job.id for job in jobs])
    claims = await claim_store.claims_of(session, [attempt.id for attempt in attempts])
    troubles = await outbox_store.troubles(session, [attempt.id for attempt in attempts])
    facts = await usage_store.facts(session, run_id=run_id)
    cards = read_rate_cards(await provider_store.rate_cards(session))
    return RunView(
        **_summary(row, jobs).model_dump(),
        store=row.store,
        source_sha256=row.source_digest,
        source_bytes=row.source_bytes,
        graph=tuple(_job(job, [each for each in attempts if each.job_id == job.id], claims, troubles) for job in jobs),
        costs=costs_of(facts, cards),
    )


def _summary(row: RunRow, jobs: Sequence[JobRow]) -> RunSummary:
    return RunSummary(
        id=row.id,
        project=row.project,
        number=row.number,
        pipeline=row.pipeline_name,
        revision=row.revision,
        state=row.state,
        is_cancelled=row.cancelled_at is not None,
        submitted_at=row.submitted_at,
        ended_at=row.ended_at,
        jobs=dict(Counter(job.state for job in jobs)),
    )


def _job(row: JobRow, attempts: Sequence[AttemptRow], claims: Sequence[ClaimRow], troubles: dict[str, str]) -> JobView:
    views = tuple(_attempt(attempt, granted_claim(attempt, claims)) for attempt in attempts)
    last = views[-1] if views else None
    return JobView(
        name=row.name,
        needs=tuple(row.needs),
        state=row.state,
        reason=row.reason,
        detail=row.detail,
        waiting_for=_reasons(row, attempts, troubles),
        provider=last.provider if last else None,
        worker=last.worker if last else None,
        started_at=row.started_at,
        ended_at=row.ended_at,
        seconds=_seconds(row.started_at, row.ended_at),
        log=last.log if last else None,
        attempts=views,
    )


def _reasons(row: JobRow, attempts: Sequence[AttemptRow], troubles: dict[str, str]) -> tuple[ReasonView, ...]:
    """Why the job does not run: what placement found, or where its order is on its way."""
    if row.state == "waiting":
        if not row.waiting_for:
            return (ReasonView(provider="", obstacle="waiting", detail="it is being placed"),)
        return tuple(ReasonView(**reason) for reason in row.waiting_for)
    current = next((attempt for attempt in attempts if attempt.is_current), None)
    if row.state != "queued" or current is None:
        return ()
    trouble = troubles.get(current.id) or current.why
    where = f"its order waits for a free worker of the pool {current.pool}"
    return (ReasonView(provider=current.provider, obstacle="queued", detail=trouble or where),)


def granted_claim(attempt: AttemptRow, claims: Iterable[ClaimRow]) -> ClaimRow | None:
    return next((claim for claim in claims if claim.attempt_id == attempt.id and claim.answer is Answer.GRANT), None)


def _attempt(row: AttemptRow, claim: ClaimRow | None) -> AttemptView:
    return AttemptView(
        id=row.id,
        number=row.number,
        provider=row.provider,
        pool=row.pool,
        worker=claim.worker if claim else None,
        state=row.state,
        reason=row.end_reason,
        detail=row.why,
        made_at=row.made_at,
        granted_at=row.granted_at,
        ended_at=row.ended_at,
        seconds=_seconds(row.granted_at, row.ended_at),
        reserved=row.reserved,
        log=_log(claim) if claim else None,
    )


def _log(claim: ClaimRow) -> LogView:
    return LogView(
        bytes=contiguous(claim_store.ranges_of(claim)),
        reported_bytes=claim.log_bytes,
        sha256=claim.log_sha256,
        is_whole=claim.state is ClaimState.SETTLED and claim.log_bytes is not None,
        gap=claim.log_gap,
    )


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()


async def artifact_views(session: AsyncSession, run_id: str) -> list[ArtifactView]:
    return [
        ArtifactView(
            id=row.id,
            job=job.name,
            artifact=row.artifact,
            path=row.path,
            provider=row.provider,
            sha256=row.digest,
            size_bytes=row.size_bytes,
        )
        for job, row in await attempt_store.artifacts_of_run(session, run_id)
    ]


# -- Providers, usage, alarms


def provider_view(known: KnownProvider) -> ProviderView:
    card = known.card
    return ProviderView(
        name=known.name,
        url=known.url,
        root_fingerprint=fingerprint(known.root_key),
        card_serial=card.serial,
        card_expires_at=card.expires_at,
        issuers=card.issuers,
        pools=tuple(
            PoolView(
                name=pool.name,
                workers=pool.workers,
                slots=pool.slots,
                labels=pool.labels,
                toolchains=tuple(toolchain.name for toolchain in pool.toolchains),
                is_network_allowed=pool.is_network_allowed,
            )
            for pool in card.pools
        ),
        store_url=card.store.url if card.store else None,
        rate_card=card.rate_card,
        is_session_up=known.session_trouble is None,
        trouble=known.session_trouble or "",
        alarm=known.alarm,
    )


async def usage_of_provider(session: AsyncSession, provider: str) -> UsageOfProvider:
    rows = await usage_store.facts(session, provider=provider)
    cards = read_rate_cards(await provider_store.rate_cards(session))
    return UsageOfProvider(provider=provider, cost=costs_of(rows, cards), events=tuple(_usage(row) for row in rows))


def _usage(row: UsageRow) -> UsageView:
    usage = usage_of(row)
    return UsageView(
        provider=row.provider,
        agent=usage.agent,
        meter=usage.meter,
        subject=usage.subject,
        attempt=usage.attempt,
        quantity=usage.quantity,
        is_estimate=usage.is_estimate,
        reason=usage.reason,
        started_at=usage.started_at,
        ended_at=usage.ended_at,
        sha256=row.digest,
        verdict=row.verdict,
        verdict_reason=row.verdict_reason,
    )


async def alarm_views(session: AsyncSession) -> tuple[AlarmView, ...]:
    return tuple(
        AlarmView(provider=row.provider, kind=row.kind, about=row.about, detail=row.detail, raised_at=row.raised_at)
        for row in await provider_store.alarms(session, _RECENT)
    )


async def orphan_views(session: AsyncSession) -> tuple[OrphanView, ...]:
    return tuple(
        OrphanView(
            claim=row.claim_id,
            attempt=row.attempt_id,
            provider=row.provider,
            worker=row.worker,
            seen_at=row.seen_at,
        )
        for row in await claim_store.orphans(session, _RECENT)
    )


async def refusal_views(session: AsyncSession) -> tuple[RefusalView, ...]:
    return tuple(
        RefusalView(
            provider=row.provider,
            agent=row.agent,
            reason=row.reason,
            scope=row.scope,
            detail=row.detail,
            attempt=row.attempt_id,
            received_at=row.received_at,
        )
        for row in await attempt_store.recent_refusals(session, _RECENT)
    )
