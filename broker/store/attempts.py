"""Queries on attempts, on the refusals that jobs met, and on artifacts."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from broker.store import room
from broker.tables import ArtifactRow, AttemptRow, BlobRow, JobRow, RefusalRow, RunRow
from runtime.database import may_lock
from schemas.ends import EndReason
from schemas.life import AttemptState, can_attempt_become
from schemas.reports import ArtifactFile

UNFINISHED = (AttemptState.PUBLISHED, AttemptState.CLAIMED, AttemptState.GRANTED)


async def add_attempt(session: AsyncSession, row: AttemptRow) -> None:
    session.add(row)
    await session.flush()


async def attempt(session: AsyncSession, attempt_id: str) -> AttemptRow | None:
    return await session.get(AttemptRow, attempt_id, with_for_update=may_lock(session))


async def attempts_of(session: AsyncSession, job_ids: Collection[int]) -> list[AttemptRow]:
    query = select(AttemptRow).where(AttemptRow.job_id.in_(job_ids)).order_by(AttemptRow.job_id, AttemptRow.number)
    return list(await session.scalars(query))


async def current_attempt(session: AsyncSession, job_id: int) -> AttemptRow | None:
    return await session.scalar(select(AttemptRow).where(AttemptRow.job_id == job_id, AttemptRow.is_current))


async def attempts_in(session: AsyncSession, *states: AttemptState) -> list[AttemptRow]:
    """The current attempts in one of these states."""
    return list(await session.scalars(select(AttemptRow).where(AttemptRow.is_current, AttemptRow.state.in_(states))))


async def in_flight(session: AsyncSession) -> dict[tuple[str, str], int]:
    """How many unfinished attempts there are, by provider and pool."""
    query = (
        select(AttemptRow.provider, AttemptRow.pool, func.count())
        .where(AttemptRow.is_current, AttemptRow.state.in_(UNFINISHED))
        .group_by(AttemptRow.provider, AttemptRow.pool)
    )
    return {(provider, pool): count for provider, pool, count in await session.execute(query)}


async def cancelled_at(session: AsyncSession, attempt_ids: Collection[str]) -> dict[str, datetime]:
    """When the runs of these attempts were cancelled, for those that were."""
    query = (
        select(AttemptRow.id, RunRow.cancelled_at)
        .join(JobRow, JobRow.id == AttemptRow.job_id)
        .join(RunRow, RunRow.id == JobRow.run_id)
        .where(AttemptRow.id.in_(attempt_ids), RunRow.cancelled_at.is_not(None))
    )
    return {attempt_id: at for attempt_id, at in await session.execute(query) if at is not None}


async def end_attempt(
    session: AsyncSession,
    row: AttemptRow,
    state: AttemptState,
    now: datetime,
    *,
    reason: EndReason | None = None,
    why: str | None = None,
) -> bool:
    """Bring an attempt to a final state if the table allows it; it is no longer its job's current one."""
    if not can_attempt_become(row.state, state):
        return False
    row.state, row.is_current, row.ended_at, row.end_reason, row.why = state, False, now, reason, why
    await session.flush()
    return True


async def errors_of(session: AsyncSession, job_id: int) -> tuple[int, int]:
    """How many attempts a job had, and how many of them ran and ended in an error."""
    rows = await attempts_of(session, [job_id])
    errors = sum(row.end_reason is not None and row.state in (AttemptState.FINISHED, AttemptState.LOST) for row in rows)
    return len(rows), errors


async def add_refusal(session: AsyncSession, row: RefusalRow) -> RefusalRow | None:
    """Record a refusal; the earlier one where this agent has refused the same before.

    One that is about no order of ours is recorded only while there is room.
    """
    query = select(RefusalRow).where(
        RefusalRow.provider == row.provider, RefusalRow.agent == row.agent, RefusalRow.subject == row.subject
    )
    known = await session.scalar(query)
    if known is None and (row.job_id is not None or await _is_room_for_strangers(session, row.provider)):
        session.add(row)
        await session.flush()
    return known


async def _is_room_for_strangers(session: AsyncSession, provider: str) -> bool:
    return await room.is_room(session, RefusalRow, RefusalRow.provider == provider, RefusalRow.job_id.is_(None))


async def refusals_of(session: AsyncSession, job_ids: Collection[int]) -> list[RefusalRow]:
    query = select(RefusalRow).where(RefusalRow.job_id.in_(job_ids)).order_by(RefusalRow.id)
    return list(await session.scalars(query))


async def recent_refusals(session: AsyncSession, limit: int) -> list[RefusalRow]:
    return list(await session.scalars(select(RefusalRow).order_by(RefusalRow.id.desc()).limit(limit)))


async def add_artifacts(session: AsyncSession, row: AttemptRow, files: Collection[ArtifactFile]) -> None:
    """Make the files of an accepted result visible."""
    session.add_all(
        ArtifactRow(
            attempt_id=row.id,
            job_id=row.job_id,
            provider=row.store or "",
            artifact=file.artifact,
            path=file.path,
            digest=file.digest,
            size_bytes=file.size_bytes,
        )
        for file in files
    )
    await session.flush()


async def artifacts_of_run(session: AsyncSession, run_id: str) -> list[tuple[JobRow, ArtifactRow]]:
    query = (
        select(JobRow, ArtifactRow)
        .join(ArtifactRow, ArtifactRow.job_id == JobRow.id)
        .where(JobRow.run_id == run_id)
        .order_by(JobRow.position, ArtifactRow.artifact, ArtifactRow.path)
    )
    return [(job, artifact) for job, artifact in await session.execute(query)]


async def artifact(session: AsyncSession, artifact_id: int) -> ArtifactRow | None:
    return await session.get(ArtifactRow, artifact_id)


async def is_uploaded(session: AsyncSession, provider: str, digest: str) -> bool:
    return await session.get(BlobRow, (provider, digest)) is not None


async def note_uploaded(session: AsyncSession, provider: str, digest: str, now: datetime) -> None:
    await session.merge(BlobRow(provider=provider, digest=digest, uploaded_at=now))
    await session.flush()
