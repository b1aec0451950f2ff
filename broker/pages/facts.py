"""What each page tells, gathered in one reading transaction: the API's views, and what only people ask for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from broker import presenting
from broker.ingest.outcomes import spec_of
from broker.ingest.receipts import usage_of
from broker.logs.reading import LogPlace, LogReader
from broker.pages.cost import Cost, cost_of
from broker.pages.graph_picture import Picture, draw
from broker.pages.log_text import Piece, read_log
from broker.providers.costs import read_rate_cards
from broker.store import claims as claim_store
from broker.store import projects as project_store
from broker.store import providers as provider_store
from broker.store import runs as run_store
from broker.store import usage as usage_store
from broker.tables import ClaimRow, JobRow
from broker.views import ArtifactView, AttemptView, JobView, RunSummary, RunView
from schemas import frame
from schemas.refusals import Refusal
from schemas.reports import Finished, StepResult

RUNS_ON_A_PAGE = 30
WINDOW_BYTES = 192 * 1024
"""How much of a log one page shows; below what `LogFiles.read` gives at once."""


# -- The list of runs


@dataclass(frozen=True, slots=True)
class RunLine:
    run: RunSummary
    cost: str


@dataclass(frozen=True, slots=True)
class RunsFacts:
    """The newest runs; `older_than` is where the next page begins, if there is one."""

    lines: tuple[RunLine, ...]
    projects: tuple[str, ...]
    older_than: datetime | None


async def runs_facts(session: AsyncSession, project: str | None, before: datetime | None) -> RunsFacts:
    runs = await presenting.run_summaries(session, project=project, limit=RUNS_ON_A_PAGE, before=before)
    lines = tuple([RunLine(run, (await _cost(session, run.id)).text) for run in runs])
    projects = tuple(row.name for row in await project_store.projects(session))
    return RunsFacts(lines, projects, runs[-1].submitted_at if len(runs) == RUNS_ON_A_PAGE else None)


async def _cost(session: AsyncSession, run_id: str) -> Cost:
    rows = await usage_store.facts(session, run_id=run_id)
    cards = read_rate_cards(await provider_store.rate_cards(session)) if rows else {}
    return cost_of((usage_of(row) for row in rows), cards)


# -- One run


@dataclass(frozen=True, slots=True)
class RunFacts:
    run: RunView
    picture: Picture
    artifacts: tuple[ArtifactView, ...]
    cost: Cost

    def job(self, name: str) -> JobView:
        return next(job for job in self.run.graph if job.name == name)


async def run_facts(session: AsyncSession, run_id: str) -> RunFacts | None:
    run = await presenting.run_view(session, run_id)
    if run is None:
        return None
    picture = draw({job.name: job.needs for job in run.graph})
    artifacts = tuple(await presenting.artifact_views(session, run_id))
    return RunFacts(run, picture, artifacts, await _cost(session, run_id))


# -- One job


@dataclass(frozen=True, slots=True)
class StepFacts:
    """A step of a job and what is known of it; `state` is a word for people."""

    title: str
    state: str
    seconds: float | None
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A job, and the attempt of it that is looked at."""

    run: RunView
    job: JobView
    attempt: AttemptView | None
    steps: tuple[StepFacts, ...]
    artifacts: tuple[ArtifactView, ...]


async def job_facts(session: AsyncSession, run_id: str, name: str, attempt_number: int | None) -> JobFacts | None:
    """A job with one attempt: the one of this number, or the newest. None when there is no such thing."""
    run = await presenting.run_view(session, run_id)
    row = await run_store.job(session, run_id, name)
    if run is None or row is None:
        return None
    job = next(job for job in run.graph if job.name == name)
    attempt = _chosen(job, attempt_number)
    if attempt is None and attempt_number is not None:
        return None
    claim = await claim_store.granted_claim(session, attempt.id) if attempt else None
    artifacts = await presenting.artifact_views(session, run_id)
    mine = tuple(artifact for artifact in artifacts if artifact.job == name)
    return JobFacts(run, job, attempt, steps_of(row, claim), mine)


def _chosen(job: JobView, number: int | None) -> AttemptView | None:
    """The attempt of this number; without one the newest that ran, for its log is what is looked for."""
    if number is not None:
        return next((attempt for attempt in job.attempts if attempt.number == number), None)
    ran = [attempt for attempt in job.attempts if attempt.log is not None]
    candidates = ran or list(job.attempts)
    return candidates[-1] if candidates else None


def steps_of(job: JobRow, claim: ClaimRow | None) -> tuple[StepFacts, ...]:
    titles = [step.title for step in spec_of(job).steps]
    results = _results(claim)
    current = claim.step if claim is not None and claim.ended_raw is None else None
    return tuple(_step(title, index, results, current) for index, title in enumerate(titles))


def _step(title: str, index: int, results: Sequence[StepResult], current: int | None) -> StepFacts:
    if index < len(results):
        result = results[index]
        state = "succeeded" if result.exit_code == 0 else "failed"
        return StepFacts(title, state, float(result.seconds), result.exit_code)
    if current is None:
        return StepFacts(title, "skipped" if results else "waiting", None, None)
    state = "running" if index == current else "succeeded" if index < current else "waiting"
    return StepFacts(title, state, None, None)


def _results(claim: ClaimRow | None) -> Sequence[StepResult]:
    if claim is None or claim.ended_raw is None:
        return ()
    opened = frame.split(claim.ended_raw)
    said = opened if isinstance(opened, Refusal) else Finished.from_payload(opened.payload)
    return () if isinstance(said, Refusal) else said.steps


# -- A log


@dataclass(frozen=True, slots=True)
class LogWindow:
    """A part of a log: the bytes from `start` to `stop` of the `end` that are here."""

    pieces: tuple[Piece, ...]
    start: int
    stop: int
    end: int
    is_live: bool

    @property
    def earlier(self) -> int | None:
        return max(0, self.start - WINDOW_BYTES) if self.start > 0 else None

    @property
    def later(self) -> int | None:
        return self.stop if self.stop < self.end and not self.is_live else None


async def log_window(reader: LogReader, place: LogPlace, start: int | None) -> LogWindow | None:
    """The window that begins at `start`, or the last one; None where there is no log."""
    if place.claim is None:
        return None
    begin = max(0, place.end - WINDOW_BYTES) if start is None else min(start, place.end)
    data = await reader.read(place.claim, begin, min(begin + WINDOW_BYTES, place.end))
    if start is None and begin > 0:
        begin, data = _at_line(begin, data)
    is_last = begin + len(data) >= place.end
    text = read_log(data, is_end=place.is_over or not is_last)
    return LogWindow(text.pieces, begin, begin + text.used_bytes, place.end, is_last and not place.is_over)


def _at_line(begin: int, data: bytes) -> tuple[int, bytes]:
    """Begin with a whole line, if there is one."""
    cut = data.find(b"\n") + 1
    return begin + cut, data[cut:]
