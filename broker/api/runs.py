"""Routes on snapshots, runs, logs and artifacts."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from broker.api.answers import Refused, found, granted
from broker.api.projects import controller_of
from broker.controller import Controller
from broker.logs.reading import LogReader
from broker.presenting import artifact_views, run_summaries, run_view
from broker.runs import PIPELINE_PATH, Submission
from broker.sources.resolving import snapshot_repository
from broker.store import attempts as attempt_store
from broker.views import ArtifactView, CancelledView, RunSummary, RunView, SnapshotView, SubmittedView
from schemas import limits
from schemas.ids import Label, Sha256
from schemas.refusals import Reason, Refusal
from schemas.wire import Text, WorkspacePath

router = APIRouter(tags=["runs"])
EVENT_STREAM = "text/event-stream"
LOG_TYPE = "text/plain; charset=utf-8"


class NewRun(BaseModel):
    """Either an uploaded `snapshot` with the name of its `revision`, or a `repository` and the `revision` to fetch."""

    model_config = ConfigDict(extra="forbid")

    project: Label
    revision: Text
    snapshot: Sha256 | None = None
    repository: Annotated[str, Field(max_length=1000)] | None = None
    pipeline: Annotated[str, Field(max_length=limits.PIPELINE_BYTES)] | None = None
    pipeline_path: WorkspacePath = PIPELINE_PATH

    @model_validator(mode="after")
    def _one_source(self) -> "NewRun":
        if (self.snapshot is None) == (self.repository is None):
            raise ValueError("name either a `snapshot` or a `repository`")
        return self


# -- Sources


@router.put("/snapshots/{sha256}", status_code=201)
async def upload_snapshot(request: Request, sha256: Annotated[Sha256, Path()]) -> SnapshotView:
    """Upload a snapshot, an uncompressed tar, as the request's body; it is kept if it has this SHA-256."""
    snapshots = controller_of(request).snapshots
    if not snapshots.has(sha256):
        granted(await snapshots.receive(sha256, request.stream()))
    return SnapshotView(sha256=sha256, size_bytes=snapshots.size_bytes(sha256))


@router.get("/snapshots/{sha256}")
async def find_snapshot(request: Request, sha256: Annotated[Sha256, Path()]) -> SnapshotView:
    """Whether a snapshot is here already, so that nobody uploads it twice."""
    snapshots = controller_of(request).snapshots
    found(sha256 if snapshots.has(sha256) else None, f"snapshot {sha256}")
    return SnapshotView(sha256=sha256, size_bytes=snapshots.size_bytes(sha256))


# -- Runs


@router.post("/runs", status_code=201)
async def submit(request: Request, new: NewRun) -> SubmittedView:
    """Start a run. A pipeline that is wrong is refused with every problem, its line and its column."""
    controller = controller_of(request)
    snapshot, revision = (new.snapshot, new.revision) if new.snapshot else await _fetch(controller, new)
    submission = Submission(
        project=new.project,
        snapshot=snapshot,
        revision=revision,
        pipeline=None if new.pipeline is None else new.pipeline.encode("utf-8"),
        pipeline_path=new.pipeline_path,
    )
    submitted = granted(await controller.runs.submit(submission))
    return SubmittedView(run=submitted.run, number=submitted.number, project=new.project)


async def _fetch(controller: Controller, new: NewRun) -> tuple[str, str]:
    """Resolve a repository and revision to a snapshot of ours, and to its commit."""
    into = controller.snapshots.fresh_path()
    home = controller.parts.directory
    snapshot = granted(await snapshot_repository(new.repository or "", new.revision, into, home=home))
    granted(await controller.snapshots.adopt(snapshot))
    return snapshot.digest, snapshot.revision


@router.get("/runs")
async def list_runs(
    request: Request,
    project: Label | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: AwareDatetime | None = None,
) -> list[RunSummary]:
    """The newest runs first; `before` pages on from the last one's `submitted_at`."""
    async with controller_of(request).database.read() as session:
        return await run_summaries(session, project=project, limit=limit, before=before)


@router.get("/runs/{run}")
async def show_run(request: Request, run: str) -> RunView:
    """A run with its jobs, their attempts, why they wait, and what it cost so far."""
    async with controller_of(request).database.read() as session:
        return found(await run_view(session, run), f"run {run}")


@router.get("/runs/{run}/live")
async def follow_run(request: Request, run: str) -> StreamingResponse:
    """Server-sent events: `changed` whenever the run is to be looked at again, `end` when it is over."""
    await show_run(request, run)
    return StreamingResponse(controller_of(request).run_follower.follow(run), media_type=EVENT_STREAM)


@router.post("/runs/{run}/cancel")
async def cancel(request: Request, run: str) -> CancelledView:
    """Cancel what is not over of a run."""
    return CancelledView(run=run, state=granted(await controller_of(request).runs.cancel(run)))


# -- Logs


@router.get("/runs/{run}/jobs/{job}/log")
async def read_log(
    request: Request,
    run: str,
    job: str,
    offset: Annotated[int, Query(ge=0)] = 0,
    attempt: Annotated[int, Query(ge=1)] | None = None,
) -> Response:
    """The bytes of a job's log from `offset` on, as far as they are here without a gap."""
    reader = _reader(request)
    place = granted(await reader.find(run, job, attempt))
    headers = {"fedci-log-end": str(place.end), "fedci-log-whole": str(place.is_whole).lower()}
    if place.claim is None:
        return Response(media_type=LOG_TYPE, headers=headers)
    return StreamingResponse(reader.stream(place.claim, offset, place.end), media_type=LOG_TYPE, headers=headers)


@router.get("/runs/{run}/jobs/{job}/log/live")
async def follow_log(
    request: Request,
    run: str,
    job: str,
    offset: Annotated[int, Query(ge=0)] = 0,
    attempt: Annotated[int, Query(ge=1)] | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Server-sent events: `log` with `{"offset", "text"}`, the id being the offset behind it; `end` when it is over."""
    reader = _reader(request)
    granted(await reader.find(run, job, attempt))
    start = int(last_event_id) if last_event_id and re.fullmatch(r"[0-9]{1,15}", last_event_id) else offset
    return StreamingResponse(reader.follow(run, job, attempt, start), media_type=EVENT_STREAM)


def _reader(request: Request) -> LogReader:
    controller = controller_of(request)
    return LogReader(database=controller.database, logs=controller.logs, bells=controller.bells)


# -- Artifacts


@router.get("/runs/{run}/artifacts")
async def list_artifacts(request: Request, run: str) -> list[ArtifactView]:
    async with controller_of(request).database.read() as session:
        found(await run_view(session, run), f"run {run}")
        return await artifact_views(session, run)


@router.get("/artifacts/{artifact}")
async def download(request: Request, artifact: int) -> Response:
    """An artifact's bytes from its store. Their SHA-256 is checked on the way: wrong bytes end the connection."""
    controller = controller_of(request)
    async with controller.database.read() as session:
        row = found(await attempt_store.artifact(session, artifact), f"artifact {artifact}")
    opened = AsyncExitStack()
    blob = await opened.enter_async_context(controller.stores.stream(row.provider, row.digest))
    if isinstance(blob, Refusal):
        await opened.aclose()
        raise Refused(Refusal(Reason.NOT_FOUND, f"the store {row.provider} answered {blob}"))

    async def content() -> AsyncIterator[bytes]:
        async with opened:
            async for chunk in blob:
                yield chunk

    headers = {
        "content-length": str(row.size_bytes),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(row.path.rsplit('/', 1)[-1])}",
        "etag": f'"{row.digest}"',
        "fedci-digest": row.digest,
    }
    return StreamingResponse(content(), media_type="application/octet-stream", headers=headers)
