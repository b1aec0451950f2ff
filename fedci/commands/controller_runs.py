"""The commands of `fedci controller` on runs: submit, runs, show, logs, cancel, artifacts."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedci.commands.controller_place import CaFile, TokenFile, Where, ask
from fedci.commands.controller_text import columns, harmless, say
from runtime.errors import OurFault

if TYPE_CHECKING:
    from broker.sources.resolving import Snapshot
    from broker.views import ArtifactView, JobView, RunView, SubmittedView
    from fedci.controller_client import ControllerClient

EXIT_NOT_SUCCEEDED = 1
_TAIL_LINES = 20
artifacts_app = typer.Typer(no_args_is_help=True, help="What runs made and keep in stores.")
Run = Annotated[str, typer.Argument(help="The run's id, as `runs` lists it.")]


def install(app: typer.Typer) -> None:
    """Add these commands to `fedci controller`."""
    for command in (submit, runs, show, logs, cancel):
        app.command()(command)
    app.add_typer(artifacts_app, name="artifacts")


def submit(
    where: Where,
    project: Annotated[str, typer.Argument(help="The project that the run belongs to.")],
    source: Annotated[Path | None, typer.Option(help="A directory; the current one if not given.")] = None,
    git: Annotated[str, typer.Option(help="URL of a repository, instead of a directory.")] = "",
    revision: Annotated[str, typer.Option(help="A branch, tag or commit; needed with --git.")] = "",
    pipeline: Annotated[Path | None, typer.Option(help="A pipeline file, instead of the sources' .fedci.yml.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for the end; exit 1 unless it succeeded.")] = False,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Take a snapshot of sources on this machine and start a run of it."""
    if git and (source is not None or not revision):
        raise typer.BadParameter("--git goes with --revision, and without --source")
    text = None if pipeline is None else _read_pipeline(pipeline)

    async def start(client: "ControllerClient") -> str:
        with tempfile.TemporaryDirectory(prefix="fedci-submit-") as scratch:
            snapshot = await _snapshot(source or Path(), git, revision, Path(scratch))
            for name in snapshot.left_out:
                say(f"left out of the snapshot: {name}", err=True)
            started = await _start(client, project, snapshot, text)
        say(f"run {started.run}  ({started.project} #{started.number}, revision {snapshot.revision})")
        if follow:
            await _follow(client, started.run)
        return started.run

    run = ask(where, token_file, ca_file, start)
    if not follow:
        say(f"follow it: fedci controller show {where} {run}")


async def _start(
    client: "ControllerClient", project: str, snapshot: "Snapshot", pipeline: bytes | None
) -> "SubmittedView":
    """Submit; what is wrong with a pipeline inside the sources is told line by line, as compilers do."""
    from fedci.controller_client import RequestRefused, located
    from schemas.refusals import Reason

    try:
        return await client.submit(project, snapshot.path, snapshot.revision, pipeline=pipeline)
    except RequestRefused as error:
        if error.refusal.reason is not Reason.INVALID_REQUEST:
            raise
        say(located(error.refusal.detail), err=True)
        raise typer.Exit(EXIT_NOT_SUCCEEDED) from None


async def _snapshot(source: Path, git: str, revision: str, scratch: Path) -> "Snapshot":
    from broker.sources.resolving import snapshot_directory, snapshot_repository
    from schemas.refusals import Refusal

    into = scratch / "snapshot.tar"
    if git:
        snapshot = await snapshot_repository(git, revision, into, home=Path.home())
    else:
        snapshot = await snapshot_directory(source.resolve(), revision or None, into, home=Path.home())
    if isinstance(snapshot, Refusal):
        raise OurFault(snapshot.detail, where=git or str(source), remedy="Correct the source or the revision.")
    return snapshot


def _read_pipeline(path: Path) -> bytes:
    """The pipeline file; what is wrong with it is told before anything is sent."""
    from schemas.pipeline import Pipeline, parse_pipeline

    try:
        text = path.read_bytes()
    except OSError as error:
        raise OurFault(f"cannot read the pipeline ({error.strerror})", where=str(path)) from error
    parsed = parse_pipeline(text)
    if isinstance(parsed, Pipeline):
        return text
    for problem in parsed:
        what = f"{problem.path}: {problem.message}" if problem.path else problem.message
        say(f"{path}:{problem.mark.line}:{problem.mark.column}: {what}", err=True)
    raise typer.Exit(EXIT_NOT_SUCCEEDED)


async def _follow(client: "ControllerClient", run_id: str) -> None:
    """Tell every change of a job until the run is over, and the end of the log of each that failed."""
    told: dict[str, str] = {}

    def tell(run: "RunView") -> None:
        for job in run.graph:
            line = _job_line(job)
            if told.get(job.name) != line:
                told[job.name] = line
                say(f"{job.name}: {line}")

    run = await client.wait(run_id, tell)
    for job in run.graph:
        if job.state in ("failed", "errored") and job.log is not None:
            say(f"\n-- the end of the log of {job.name}")
            say(_tail(await client.log(run_id, job.name)))
    say(f"run {run_id} {run.state}{_costs(run)}")
    if run.state != "succeeded":
        raise typer.Exit(EXIT_NOT_SUCCEEDED)


def _job_line(job: "JobView") -> str:
    """A job's state, where it runs, and why it does not."""
    place = f" at {job.provider}{f' on {job.worker}' if job.worker else ''}" if job.provider else ""
    seconds = f" after {job.seconds:.1f} s" if job.seconds is not None else ""
    said = job.detail or job.reason or "; ".join(_reason(reason.provider, reason.detail) for reason in job.waiting_for)
    why = f": {said}" if said and job.state != "succeeded" else ""
    return f"{job.state}{place if job.state != 'waiting' else ''}{seconds}{why}"


def _reason(provider: str, detail: str) -> str:
    return f"{provider}: {detail}" if provider else detail


def _tail(log: bytes) -> str:
    return "\n".join(harmless(log).splitlines()[-_TAIL_LINES:])


def _costs(run: "RunView") -> str:
    return "".join(f", {cost.total} {cost.currency}" for cost in run.costs if cost.currency)


def runs(
    where: Where,
    project: Annotated[str | None, typer.Argument(help="Only this project's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """List the newest runs."""
    found = ask(where, token_file, ca_file, lambda client: client.runs(project, limit))
    rows = [
        (run.id, f"{run.project} #{run.number}", str(run.state), f"{run.submitted_at:%Y-%m-%d %H:%M:%S}", run.revision)
        for run in found
    ]
    say(columns(rows) if rows else "there are no runs yet")


def show(where: Where, run: Run, token_file: TokenFile = None, ca_file: CaFile = None) -> None:
    """Show a run, its jobs, and why those that wait do so."""
    found = ask(where, token_file, ca_file, lambda client: client.run(run))
    say(f"{found.project} #{found.number}  {found.pipeline}  revision {found.revision}")
    say(
        f"{found.state}{' (being cancelled)' if found.is_cancelled and found.state == 'running' else ''}{_costs(found)}"
    )
    say(columns([(job.name, _job_line(job), _log_size(job)) for job in found.graph]))


def _log_size(job: "JobView") -> str:
    if job.log is None:
        return ""
    return f"log {job.log.bytes} bytes{f' ({job.log.gap})' if job.log.gap else ''}"


def logs(
    where: Where,
    run: Run,
    job: Annotated[str, typer.Argument(help="The job's name.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on as it grows, until its end.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt, not the newest that ran.")] = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Print a job's log: to a terminal without what it would obey, to anything else byte by byte."""

    async def print_log(client: "ControllerClient") -> None:
        if not follow:
            _write(await client.log(run, job, attempt=attempt))
            return
        async for text in client.follow_log(run, job, attempt=attempt):
            _write(text.encode("utf-8"))

    ask(where, token_file, ca_file, print_log)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(harmless(data).encode("utf-8") if sys.stdout.isatty() else data)
    sys.stdout.flush()


def cancel(where: Where, run: Run, token_file: TokenFile = None, ca_file: CaFile = None) -> None:
    """Cancel what is not over of a run."""
    cancelled = ask(where, token_file, ca_file, lambda client: client.cancel(run))
    told = "its running jobs are told to stop" if cancelled.state == "running" else str(cancelled.state)
    say(f"run {run}: {told}")


@artifacts_app.command("list")
def list_artifacts(where: Where, run: Run, token_file: TokenFile = None, ca_file: CaFile = None) -> None:
    """List the files that a run made and kept."""
    found = ask(where, token_file, ca_file, lambda client: client.artifacts(run))
    rows = [(f"{file.job}.{file.artifact}", file.path, str(file.size_bytes), file.sha256) for file in found]
    say(columns(rows) if rows else "this run has no artifacts")


@artifacts_app.command("get")
def get_artifacts(
    where: Where,
    run: Run,
    name: Annotated[str | None, typer.Argument(help="Only this one, as JOB.ARTIFACT or JOB.")] = None,
    out: Annotated[Path, typer.Option(help="The directory to put them in.")] = Path(),
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Fetch a run's artifacts from their stores, checked; files of several jobs come in a directory for each."""

    async def fetch(client: "ControllerClient") -> None:
        wanted = [
            file for file in await client.artifacts(run) if name in (None, file.job, f"{file.job}.{file.artifact}")
        ]
        if not wanted:
            raise OurFault(
                "there is no such artifact", where=run, remedy=f"See: fedci controller artifacts list {where} {run}"
            )
        for file in wanted:
            path = place_for(out, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            await client.download(file, path)
            say(f"{path}  {file.size_bytes} bytes  sha256 {file.sha256}")

    ask(where, token_file, ca_file, fetch)


def place_for(out: Path, file: "ArtifactView") -> Path:
    """Where an artifact's file goes: `out/job/path`. Its path was chosen by a stranger, so it is checked again here."""
    from pydantic import TypeAdapter, ValidationError

    from schemas.wire import WorkspacePath

    try:
        return out / file.job / TypeAdapter(WorkspacePath).validate_python(file.path)
    except ValidationError as error:
        raise OurFault("this artifact's path is none", where=file.path, remedy="Tell its provider.") from error
