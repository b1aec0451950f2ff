"""What the demo looks like: live tables on a terminal, plain lines elsewhere; the facts are the same.

Names, reasons and details come from strangers by way of the wire: all of them are printed as plain text, never as
markup.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedci.federation.report import Report, RunReport

STATE_STYLES = {
    "waiting": "dim",
    "queued": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "errored": "magenta",
    "cancelled": "dim",
    "skipped": "dim",
}


class Screen(Protocol):
    """Where the story is told."""

    def step(self, text: str) -> None:
        """Something begins."""

    def runs(self, runs: Sequence[RunReport]) -> None:
        """How the runs stand; called whenever that may have changed."""

    def summary(self, report: Report) -> None:
        """The end of the story."""


class PlainScreen:
    """One line for everything that happens."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._states: dict[tuple[str, str], str] = {}

    def step(self, text: str) -> None:
        self._say(text)

    def runs(self, runs: Sequence[RunReport]) -> None:
        for run in runs:
            for job in run.jobs:
                if self._states.get((run.controller, job.name)) != job.state:
                    self._states[run.controller, job.name] = job.state
                    where = f" at {job.provider}, worker {job.worker}" if job.worker else ""
                    why = f" ({job.why})" if job.why and job.state in ("failed", "errored") else ""
                    self._say(f"{run.controller}: {job.name} {job.state}{where}{why}")

    def summary(self, report: Report) -> None:
        console = Console(file=sys.stdout, width=110, no_color=True, highlight=False)
        _print_summary(console, report)

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f}s  {text}", flush=True)


class LiveScreen:
    """Tables that change in place."""

    def __init__(self, live: Live, console: Console) -> None:
        self._live = live
        self._console = console
        self._began = time.monotonic()

    def step(self, text: str) -> None:
        seconds = Text(f"{time.monotonic() - self._began:6.1f}s  ", style="dim")
        self._live.console.print(seconds + Text(text))

    def runs(self, runs: Sequence[RunReport]) -> None:
        self._live.update(Group(*(_run_table(run) for run in runs)))

    def summary(self, report: Report) -> None:
        self._live.stop()
        _print_summary(self._console, report)


@contextmanager
def open_screen() -> Iterator[Screen]:
    """The screen that fits where standard output goes."""
    console = Console(highlight=False)
    if not console.is_terminal:
        yield PlainScreen()
        return
    with Live(console=console, refresh_per_second=8, transient=False) as live:
        yield LiveScreen(live, console)


def _run_table(run: RunReport) -> Table:
    table = Table(title=Text(f"{run.controller.capitalize()}: {run.state}"), title_justify="left", expand=False)
    for heading in ("job", "state", "provider", "worker"):
        table.add_column(heading)
    for heading in ("seconds", "log bytes"):
        table.add_column(heading, justify="right")
    for job in run.jobs:
        seconds = f"{job.seconds:.1f}" if job.seconds is not None else ""
        state = Text(job.state, style=STATE_STYLES.get(job.state, ""))
        cells = (job.name, state, job.provider or "", job.worker or "", seconds, f"{job.log_bytes:,}")
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
    return table


def _print_summary(console: Console, report: Report) -> None:
    for run in report.runs:
        console.print(_run_table(run))
    console.print(_artifacts_table(report))
    console.print(_refusals_table(report))
    for table in _invoice_tables(report):
        console.print(table)
    _print_expectations(console, report)


def _artifacts_table(report: Report) -> Table:
    table = Table(title="Artifacts, fetched back through the store", title_justify="left")
    for heading in ("of", "file", "bytes", "SHA-256"):
        table.add_column(heading, justify="right" if heading == "bytes" else "left", overflow="fold")
    for artifact in report.artifacts:
        table.add_row(
            Text(artifact.controller), Text(artifact.file), Text(f"{artifact.bytes:,}"), Text(artifact.sha256[:16])
        )
    return table


def _refusals_table(report: Report) -> Table:
    table = Table(title="Trespasses, tried at the real doors", title_justify="left")
    for heading in ("who", "at whom", "what", "refused with"):
        table.add_column(heading, overflow="fold")
    for refusal in report.refusals:
        reason = Text(refusal.reason or "NOT REFUSED", style="green" if refusal.reason == refusal.expected else "red")
        table.add_row(Text(refusal.who), Text(refusal.at), Text(refusal.attempt), reason)
    return table


def _invoice_tables(report: Report) -> Iterator[Table]:
    for invoice in report.invoices:
        checked = "checked by the customer" if invoice.is_right else "NOT what the customer computes"
        title = Text(f"{invoice.provider} to {invoice.customer} (account at {invoice.issuer}), {checked}")
        table = Table(title=title, title_justify="left", show_footer=True)
        table.add_column("meter", footer="total")
        table.add_column("quantity", justify="right")
        table.add_column("unit")
        table.add_column("price")
        table.add_column("amount", justify="right", footer=f"{invoice.total} {invoice.currency}")
        for line in invoice.lines:
            table.add_row(Text(line.meter), Text(line.quantity), Text(line.unit), Text(line.price), Text(line.amount))
        yield table


def _print_expectations(console: Console, report: Report) -> None:
    for expectation in report.expectations:
        mark = Text("  held  ", style="green") if expectation.held else Text("  FAILED", style="bold red")
        console.print(mark + Text(f"  {expectation.sentence}"))
    held = sum(expectation.held for expectation in report.expectations)
    console.print(Text(f"{held} of {len(report.expectations)} expectations held, in {report.seconds:.0f} s"))
