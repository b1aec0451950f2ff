"""Queries on runs and their jobs."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from broker.decisions.graph import RunState, run_state
from broker.tables import JobRow, RunRow
from runtime.database import may_lock
from schemas.life import FINAL_JOB_STATES, JobState, can_job_become


async def next_number(session: AsyncSession, project: str) -> int:
    """The next number of a run in its project; the unique constraint settles a race."""
    return (await session.scalar(select(func.max(RunRow.number)).where(RunRow.project == project)) or 0) + 1


async def add_run(session: AsyncSession, run: RunRow, jobs: Sequence[JobRow]) -> None:
    session.add(run)
    await session.flush()
    session.add_all(jobs)
    await session.flush()


async def run(session: AsyncSession, run_id: str) -> RunRow | None:
    return await session.get(RunRow, run_id)


async def runs(session: AsyncSession, *, project: str | None, limit: int, before: datetime | None) -> list[RunRow]:
    """The newest runs first."""
    query = select(RunRow).order_by(RunRow.submitted_at.desc(), RunRow.number.desc()).limit(limit)
    if project is not None:
        query = query.where(RunRow.project == project)
    if before is not None:
        query = query.where(RunRow.submitted_at < before)
    return list(await session.scalars(query))


async def running_runs(session: AsyncSession) -> list[str]:
    return list(await session.scalars(select(RunRow.id).where(RunRow.state == RunState.RUNNING)))


async def runs_with_waiting_jobs(session: AsyncSession) -> list[str]:
    query = (
        select(RunRow.id)
        .join(JobRow, JobRow.run_id == RunRow.id)
        .where(JobRow.state == JobState.WAITING)
        .group_by(RunRow.id, RunRow.submitted_at)
        .order_by(RunRow.submitted_at)
    )
    return list(await session.scalars(query))


async def jobs(session: AsyncSession, run_id: str) -> list[JobRow]:
    return list(await session.scalars(select(JobRow).where(JobRow.run_id == run_id).order_by(JobRow.position)))


async def job(session: AsyncSession, run_id: str, name: str) -> JobRow | None:
    return await session.scalar(select(JobRow).where(JobRow.run_id == run_id, JobRow.name == name))


async def job_by_id(session: AsyncSession, job_id: int) -> JobRow:
    return await session.get_one(JobRow, job_id, with_for_update=may_lock(session))


async def jobs_by_ids(session: AsyncSession, job_ids: Collection[int]) -> dict[int, JobRow]:
    return {row.id: row for row in await session.scalars(select(JobRow).where(JobRow.id.in_(job_ids)))}


async def jobs_by_runs(session: AsyncSession, run_ids: Collection[str]) -> list[JobRow]:
    return list(await session.scalars(select(JobRow).where(JobRow.run_id.in_(run_ids)).order_by(JobRow.position)))


async def move_job(session: AsyncSession, row: JobRow, state: JobState, now: datetime, **values: Any) -> bool:
    """Bring a job to another state if the table allows it, and close its run when it was the last."""
    if not can_job_become(row.state, state):
        return False
    row.state = state
    for name, value in values.items():
        setattr(row, name, value)
    if state in FINAL_JOB_STATES:
        row.ended_at, row.waiting_for = now, []
    await session.flush()
    if state in FINAL_JOB_STATES:
        await _close_run(session, row.run_id, now)
    return True


async def _close_run(session: AsyncSession, run_id: str, now: datetime) -> None:
    states = list(await session.scalars(select(JobRow.state).where(JobRow.run_id == run_id)))
    state = run_state(states)
    if state is not RunState.RUNNING:
        await session.execute(
            update(RunRow)
            .where(RunRow.id == run_id, RunRow.state == RunState.RUNNING)
            .values(state=state, ended_at=now)
            .execution_options(synchronize_session="fetch")
        )


async def count_jobs_by_state(session: AsyncSession) -> dict[JobState, int]:
    rows = await session.execute(select(JobRow.state, func.count()).group_by(JobRow.state))
    return {state: count for state, count in rows}  # noqa: C416  # rows are not pairs to dict()
