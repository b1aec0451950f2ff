"""Ends attempts and moves their jobs on: the one place where the decisions of `decisions.retry` meet the rows.

Every function works in the caller's transaction and returns the id of the run that changed, for the bells.
"""

import json
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from broker.decisions.retry import Again, Final, History, decide_after_end, decide_unstarted
from broker.store import attempts as attempt_store
from broker.store import runs as run_store
from broker.tables import AttemptRow, JobRow
from schemas.ends import EndReason, Outcome
from schemas.life import AttemptState, JobState
from schemas.pipeline import PipelineJob


def spec_of(job: JobRow) -> PipelineJob:
    """The job's part of its pipeline, as it was when the run was submitted."""
    return PipelineJob.model_validate(_with_tuples(json.loads(job.spec)))


def _with_tuples(value: Any) -> Any:
    """The strict models of the contract know arrays as tuples, JSON as lists."""
    if isinstance(value, list):
        return tuple(_with_tuples(item) for item in value)
    return {key: _with_tuples(item) for key, item in value.items()} if isinstance(value, dict) else value


async def end_ran(
    session: AsyncSession, attempt: AttemptRow, state: AttemptState, reason: EndReason, detail: str, now: datetime
) -> str | None:
    """End an attempt that had been granted; None when it had already ended."""
    if not await attempt_store.end_attempt(session, attempt, state, now, reason=reason, why=detail or None):
        return None
    job = await run_store.job_by_id(session, attempt.job_id)
    following = decide_after_end(reason, await _history(session, job))
    return await _move(session, job, following, str(reason), detail, now)


async def end_unstarted(
    session: AsyncSession, attempt: AttemptRow, state: AttemptState, why: str, now: datetime
) -> str | None:
    """End an attempt in which nothing ran; None when it had already ended."""
    if not await attempt_store.end_attempt(session, attempt, state, now, why=why):
        return None
    job = await run_store.job_by_id(session, attempt.job_id)
    following = decide_unstarted(await _history(session, job))
    return await _move(session, job, following, str(state), why, now)


async def _history(session: AsyncSession, job: JobRow) -> History:
    attempts, errors = await attempt_store.errors_of(session, job.id)
    run = await run_store.run(session, job.run_id)
    is_cancelled = run is not None and run.cancelled_at is not None
    return History(attempts, errors, spec_of(job).retries, is_cancelled)


async def _move(
    session: AsyncSession, job: JobRow, following: Again | Final, reason: str, detail: str, now: datetime
) -> str:
    match following:
        case Final(outcome):
            is_cancelled = outcome is Outcome.CANCELLED
            values = {"reason": str(EndReason.CANCELLED) if is_cancelled else reason, "detail": detail or None}
            await run_store.move_job(session, job, JobState(outcome.value), now, **values)
        case Again():
            last = {"provider": "", "obstacle": "retrying", "detail": f"the last attempt ended: {detail or reason}"}
            await run_store.move_job(session, job, JobState.WAITING, now, waiting_for=[last])
    return job.run_id
