"""Runs: submitted in one transaction, cancelled to the last job (DESIGN §7, §11).

Submitting checks the pipeline, the project and the snapshot before anything is written. Cancelling ends at once what
does not run, tells the workers of what does, and every job gets to a final state: a worker that cannot be told is
given up by `lease_watch`.
"""

from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from broker.bells import Bells
from broker.decisions.graph import RunState
from broker.dispatch.outgoing import Outgoing
from broker.ingest.follow_ups import FollowUp, FollowUps
from broker.ingest.outcomes import end_unstarted
from broker.sources.snapshots import Snapshots
from broker.store import attempts as attempt_store
from broker.store import claims as claim_store
from broker.store import projects as project_store
from broker.store import runs as run_store
from broker.tables import JobRow, RunRow
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import WorldFault
from runtime.logging import get_logger
from schemas import ids
from schemas.life import FINAL_JOB_STATES, AttemptState, JobState
from schemas.orders import Cancel
from schemas.pipeline import Pipeline, parse_pipeline
from schemas.refusals import Reason, Refusal

_log = get_logger(__name__)
PIPELINE_PATH = ".fedci.yml"
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Submission:
    """What to run. Without `pipeline` it is read from the snapshot, at `pipeline_path`."""

    project: str
    snapshot: str
    revision: str
    pipeline: bytes | None = None
    pipeline_path: str = PIPELINE_PATH


@dataclass(frozen=True, slots=True)
class Submitted:
    run: str
    number: int


class Runs:
    """Submits and cancels runs."""

    def __init__(
        self,
        *,
        database: Database,
        snapshots: Snapshots,
        outgoing: Outgoing,
        follow_ups: FollowUps,
        bells: Bells,
        clock: Clock,
    ) -> None:
        self._database = database
        self._snapshots = snapshots
        self._outgoing = outgoing
        self._follow_ups = follow_ups
        self._bells = bells
        self._clock = clock

    async def submit(self, submission: Submission) -> Submitted | Refusal:
        """Start a run, or say everything that is wrong with it."""
        if not self._snapshots.has(submission.snapshot):
            return Refusal(Reason.NOT_FOUND, f"no snapshot {submission.snapshot} is here; upload it first")
        text = await self._pipeline_text(submission)
        if isinstance(text, Refusal):
            return text
        pipeline = parse_pipeline(text)
        if not isinstance(pipeline, Pipeline):
            lines = (f"{submission.pipeline_path}: {problem}" for problem in pipeline)
            return Refusal(Reason.INVALID_REQUEST, "\n".join(lines))
        for _ in range(_TRIES):
            try:
                return await self._write(submission, text, pipeline)
            except IntegrityError:
                # Two runs of one project took the same number at once.
                continue
        raise WorldFault("the run's number was taken again and again; try once more")

    async def _pipeline_text(self, submission: Submission) -> bytes | Refusal:
        if submission.pipeline is not None:
            return submission.pipeline
        text = await self._snapshots.member(submission.snapshot, submission.pipeline_path)
        if text is None:
            return Refusal(
                Reason.INVALID_REQUEST,
                f"the sources have no file {submission.pipeline_path}; commit one, or name another",
            )
        return text

    async def _write(self, submission: Submission, text: bytes, pipeline: Pipeline) -> Submitted | Refusal:
        async with self._database.write() as session:
            if await project_store.project(session, submission.project) is None:
                return Refusal(Reason.NOT_FOUND, f"there is no project {submission.project}; add it first")
            number = await run_store.next_number(session, submission.project)
            run = self._run_row(submission, text, pipeline, number)
            await run_store.add_run(session, run, _job_rows(run.id, pipeline))
        _log.info("run_submitted", run=run.id, project=run.project, number=number, jobs=len(pipeline.jobs))
        self._bells.run_changed(run.id)
        return Submitted(run.id, number)

    def _run_row(self, submission: Submission, text: bytes, pipeline: Pipeline, number: int) -> RunRow:
        return RunRow(
            id=ids.new_run_id(),
            project=submission.project,
            number=number,
            pipeline_name=pipeline.name,
            pipeline=text,
            store=pipeline.store,
            revision=submission.revision,
            source_digest=submission.snapshot,
            source_bytes=self._snapshots.size_bytes(submission.snapshot),
            state=RunState.RUNNING,
            submitted_at=self._clock.now(),
        )

    async def cancel(self, run_id: str) -> RunState | Refusal:
        """Cancel what is not over of a run; cancelling twice, or what is over, changes nothing."""
        async with self._database.write() as session:
            run = await run_store.run(session, run_id)
            if run is None:
                return Refusal(Reason.NOT_FOUND, f"there is no run {run_id}")
            if run.state is not RunState.RUNNING:
                return run.state
            run.cancelled_at = run.cancelled_at or self._clock.now()
            await session.flush()
            told: list[FollowUp] = []
            for job in await run_store.jobs(session, run_id):
                if job.state not in FINAL_JOB_STATES:
                    told.extend(await self._cancel_job(session, job))
            await session.refresh(run)
            state = run.state
        _log.info("run_cancelled", run=run_id, running=len(told))
        self._bells.run_changed(run_id)
        self._bells.watch.set()
        await self._follow_ups.send(told)
        return state

    async def _cancel_job(self, session: AsyncSession, job: JobRow) -> list[FollowUp]:
        """End a job that does not run; for one that does, return what its worker is to be told."""
        now = self._clock.now()
        attempt = await attempt_store.current_attempt(session, job.id)
        if attempt is None:
            await run_store.move_job(session, job, JobState.CANCELLED, now, reason="cancelled")
            return []
        if attempt.state is not AttemptState.GRANTED:
            await self._outgoing.withdraw(session, attempt.id, "cancelled")
            await end_unstarted(session, attempt, AttemptState.LOST, "cancelled before it ran", now)
            return []
        claim = await claim_store.granted_claim(session, attempt.id)
        if claim is None:
            return []
        return [FollowUp(claim.provider, claim.worker, Cancel, attempt.id, claim.id, (("cause", "user"),))]


def _job_rows(run_id: str, pipeline: Pipeline) -> list[JobRow]:
    return [
        JobRow(
            run_id=run_id,
            name=name,
            position=position,
            needs=list(job.needs),
            spec=job.model_copy(update={"env": pipeline.env_of(name)}).model_dump_json(),
            state=JobState.WAITING,
            waiting_for=[],
        )
        for position, (name, job) in enumerate(pipeline.jobs.items())
    ]
