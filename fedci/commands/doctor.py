"""`fedci doctor`: what of this machine and of some roles' directories is right, and how to mend the rest."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedci.doctor.findings import Finding

app = typer.Typer(add_completion=False)


@app.command(help="Say what of this machine and of these directories is right, and how to mend the rest.")
def doctor(
    directories: Annotated[
        list[Path] | None, typer.Argument(help="Data directories of roles; without any, this machine for all roles.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: name, level, seen, remedy of each.")] = False,
) -> None:
    """Exit status 0 when nothing is wrong (warnings are allowed), 1 otherwise."""
    from rich.console import Console

    from fedci.doctor import screen
    from fedci.doctor.findings import Level

    findings = asyncio.run(_examine(directories or []))
    if as_json:
        typer.echo(screen.as_json(findings))
    else:
        screen.show(findings, Console())
    raise typer.Exit(1 if any(finding.level is Level.WRONG for finding in findings) else 0)


async def _examine(directories: list[Path]) -> "list[Finding]":
    from fedci.doctor.examination import examine
    from runtime.clock import SystemClock
    from runtime.http_client import open_client

    async with open_client() as client:
        return await examine(directories, env=os.environ, client=client, clock=SystemClock())
