"""`fedci demo`: the founding federation, live on this machine."""

import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedci.federation.places import Places
    from fedci.federation.report import Report
    from fedci.federation.screen import Screen

app = typer.Typer(help="Watch a whole federation at work on this machine.")
REPOSITORY = Path(__file__).resolve().parents[2]


@app.callback(invoke_without_command=True)
def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Keep everything in this directory; else artifacts and invoices in ./demo-data."
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running, and say where its pages are.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write what happened to this file, as JSON.")] = None,
    prepare: Annotated[
        Path | None,
        typer.Option(help="Only make everybody's directory here, with fixed ports, as compose.yaml expects."),
    ] = None,
) -> None:
    """Two issuers, two controllers, two hardware owners, an artifact store: real builds, refusals and invoices."""
    if prepare is not None:
        asyncio.run(_prepare(prepare))
        return
    from runtime.lifecycle import use_pidfd_child_watcher
    from runtime.logging import log_to

    use_pidfd_child_watcher()
    with contextlib.ExitStack() as stack:
        directory = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedci-demo-")))
        directory.mkdir(parents=True, exist_ok=True)
        stack.enter_context(log_to(directory / "demo.log", role="demo"))
        out = (data or Path("demo-data")).resolve()
        told = asyncio.run(_until_stopped(directory.resolve(), out, report, keep))
    if told is None:
        raise typer.Exit(130)
    raise typer.Exit(0 if told.is_good else 1)


async def _until_stopped(directory: Path, out: Path, report: Path | None, keep: bool) -> "Report | None":
    """Tell the story; None when Ctrl-C or SIGTERM ended it before."""
    telling = asyncio.ensure_future(_tell(directory, out, report, keep))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, telling.cancel)
    try:
        return await telling
    except asyncio.CancelledError:
        return None


async def _tell(directory: Path, out: Path, report: Path | None, keep: bool) -> "Report":
    from fedci.federation import expectations, standing, story
    from fedci.federation.invoicing import Invoicing
    from fedci.federation.report import Report
    from fedci.federation.screen import open_screen

    began = time.monotonic()
    sources = {"fedci": REPOSITORY, "almanac": REPOSITORY / "examples" / "almanac"}
    told = Report()
    with open_screen() as screen:
        async with standing.standing(directory, Path(sys.prefix), screen.step) as federation:
            async with story.opened(federation.places, screen, sources, out) as tale:
                screen.step("everybody is up; the customers pin the providers' root keys")
                await tale.introduce()
                told.runs = await tale.build()
                screen.step("both runs are over; fetching the artifacts back through the store")
                told.artifacts = await tale.fetch()
                screen.step("four trespasses at the real doors")
                told.refusals = await tale.trespass(told.artifacts)
                screen.step("the providers write their invoices, the customers compute them again")
                office = Invoicing(federation.places, tale.clients, tale.http, out)
                await office.until_usage_arrived(tale.attempts_that_ran())
                told.invoices = await office.write()
            told.expectations = expectations.judge(told)
            told.seconds = round(time.monotonic() - began, 1)
            screen.summary(told)
            if report is not None:
                told.write(report)
            if keep:
                await _stay(federation.places, screen)
    return told


async def _stay(places: "Places", screen: "Screen") -> None:
    from fedci.federation.guide import guide

    for line in guide(places):
        screen.step(line)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


async def _prepare(directory: Path) -> None:
    from fedci.federation.preparing import prepare

    await prepare(directory.resolve(), Path(sys.prefix))
    typer.echo(f"made {directory}; next: docker compose up")
