"""Builds a job order from what the database knows: pipeline, sources, inputs, secrets' names (DESIGN §7.1, §8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from broker.decisions.placement import Choice, Obstacle, Wanted, WhyNot
from broker.decisions.retry import PastRefusal
from broker.ingest.outcomes import spec_of
from broker.store import attempts as attempt_store
from broker.store import projects as project_store
from broker.store import runs as run_store
from broker.tables import ArtifactRow, AttemptRow, JobRow, RefusalRow, RunRow
from schemas import limits
from schemas.ends import ENDS, Outcome
from schemas.orders import InputFile, OutputArtifact, Resources, Source, Step
from schemas.pipeline import PipelineJob
from schemas.refusals import Reason


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A ready job and all that its order is made of."""

    id: int
    name: str
    run: str
    project: str
    spec: PipelineJob
    project_providers: tuple[str, ...]
    run_store: str | None
    revision: str
    source_digest: str
    source_bytes: int
    attempts: int
    burned: frozenset[str]
    refusals: tuple[PastRefusal, ...]
    inputs: tuple[InputFile, ...]
    missing_secrets: tuple[str, ...]

    @property
    def source_is_inline(self) -> bool:
        return self.source_bytes <= limits.INLINE_SOURCE_BYTES

    @property
    def store(self) -> str | None:
        """The store that the job uses, if it moves files that do not travel inside it."""
        needs_store = bool(self.spec.artifacts or self.spec.inputs) or not self.source_is_inline
        return self.run_store if needs_store else None

    def wanted(self, issuer: str) -> Wanted:
        return Wanted(
            issuer=issuer,
            labels=self.spec.labels,
            toolchains=self.spec.toolchain,
            resources=_resources(self.spec),
            network=self.spec.network,
            store=self.store,
            providers=self.spec.providers,
            project_providers=self.project_providers,
        )

    def obstacles(self) -> list[WhyNot]:
        """What keeps the job from being offered to anybody."""
        if not self.missing_secrets:
            return []
        names = ", ".join(f"`{name}`" for name in self.missing_secrets)
        return [WhyNot("", Obstacle.SECRET_MISSING, f"the project has no secret {names}; set it and the job goes on")]


async def gather_facts(session: AsyncSession, run_id: str, jobs: Sequence[JobRow]) -> list[JobFacts]:
    """The facts of these ready jobs of one run."""
    run = await run_store.run(session, run_id)
    if run is None or not jobs:
        return []
    project = await project_store.project(session, run.project)
    providers = tuple(project.providers) if project else ()
    job_ids = [job.id for job in jobs]
    attempts = await attempt_store.attempts_of(session, job_ids)
    refusals = await attempt_store.refusals_of(session, job_ids)
    artifacts = await attempt_store.artifacts_of_run(session, run_id)
    known = {row.name for row in await project_store.secrets(session, run.project)}
    return [_facts(run, providers, job, attempts, refusals, artifacts, known) for job in jobs]


def _facts(
    run: RunRow,
    providers: tuple[str, ...],
    job: JobRow,
    attempts: list[AttemptRow],
    refusals: list[RefusalRow],
    artifacts: list[tuple[JobRow, ArtifactRow]],
    known_secrets: set[str],
) -> JobFacts:
    spec = spec_of(job)
    own = [attempt for attempt in attempts if attempt.job_id == job.id]
    return JobFacts(
        id=job.id,
        name=job.name,
        run=run.id,
        project=run.project,
        spec=spec,
        project_providers=providers,
        run_store=run.store,
        revision=run.revision,
        source_digest=run.source_digest,
        source_bytes=run.source_bytes,
        attempts=len(own),
        burned=frozenset(attempt.provider for attempt in own if _ended_in_error(attempt)),
        refusals=tuple(_past(row) for row in refusals if row.job_id == job.id),
        inputs=_inputs(spec, artifacts),
        missing_secrets=tuple(name for name in spec.secrets if name not in known_secrets),
    )


def _ended_in_error(attempt: AttemptRow) -> bool:
    return attempt.end_reason is not None and ENDS[attempt.end_reason].outcome is Outcome.ERRORED


def _past(row: RefusalRow) -> PastRefusal:
    scope: Literal["final", "here"] = "final" if row.scope == "final" else "here"
    return PastRefusal(row.provider, row.agent, Reason(row.reason), scope, row.received_at)


def _inputs(spec: PipelineJob, artifacts: list[tuple[JobRow, ArtifactRow]]) -> tuple[InputFile, ...]:
    wanted = {tuple(reference.split(".", 1)) for reference in spec.inputs}
    return tuple(
        InputFile(path=artifact.path, digest=artifact.digest, size_bytes=artifact.size_bytes)
        for job, artifact in artifacts
        if (job.name, artifact.artifact) in wanted
    )


def _resources(spec: PipelineJob) -> Resources:
    size = spec.resources
    return Resources(cores=size.cores, memory_bytes=size.memory, disk_bytes=size.disk, processes=size.processes)


def build_job(facts: JobFacts, choice: Choice, attempt: str, number: int, inline: bytes | None) -> dict[str, Any]:
    """The fields of the `Job` order; who speaks, to whom and until when is the voice's."""
    spec = facts.spec
    return {
        "attempt": attempt,
        "number": number,
        "project": facts.project,
        "run": facts.run,
        "name": facts.name,
        "pool": choice.pool,
        "labels": spec.labels,
        "toolchains": spec.toolchain,
        "network": spec.network,
        "resources": _resources(spec),
        "timeout_seconds": spec.timeout,
        "env": spec.env,
        "secrets": spec.secrets,
        "steps": tuple(Step(name=step.title, run=step.run) for step in spec.steps),
        "source": Source(
            digest=facts.source_digest, size_bytes=facts.source_bytes, revision=facts.revision, inline=inline
        ),
        "inputs": facts.inputs,
        "artifacts": tuple(OutputArtifact(name=name, paths=paths) for name, paths in spec.artifacts.items()),
        "store": facts.store,
        "rate_card": choice.rate_card,
    }
