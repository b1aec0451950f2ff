"""`fedci`: one command, a sub-command for each role.

A sub-command's module is imported when it is called, not before: `fedci worker` on a small board must neither need nor
load what a controller needs. The table below is all that `fedci --help` reads.
"""

import importlib
import logging
import os
import sys
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from runtime.errors import FedciError, OurFault, leaves


@dataclass(frozen=True, slots=True)
class SubCommand:
    module: str
    help: str
    extra: str
    """The extra of the package that brings this role's libraries."""


SUB_COMMANDS = {
    "demo": SubCommand("fedci.commands.demo", "Watch a whole federation at work on this machine.", "all"),
    "doctor": SubCommand("fedci.commands.doctor", "Say what is right here, and how to mend the rest.", "worker"),
    "identity": SubCommand("fedci.commands.identity", "Run an identity server: accounts, tokens, keys.", "identity"),
    "desk": SubCommand("fedci.commands.desk", "Run a provider's desk: who may use its bus.", "desk"),
    "worker": SubCommand("fedci.commands.worker", "Lend a machine: run jobs in a sandbox.", "worker"),
    "store": SubCommand("fedci.commands.store", "Run an artifact store.", "store"),
    "ledger": SubCommand("fedci.commands.ledger", "Count what was used, and write invoices.", "ledger"),
    "controller": SubCommand("fedci.commands.controller", "Run a controller: projects, runs, logs.", "controller"),
    "invoice": SubCommand("fedci.commands.invoice", "Check a provider's invoice with public keys only.", "worker"),
}


class LazyGroup(TyperGroup):
    """Finds sub-commands in the table and imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base's signature
        return list(SUB_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the base's signature
        """What help shows of a sub-command: its one line, without importing it."""
        known = SUB_COMMANDS.get(cmd_name)
        return TyperCommand(cmd_name, help=known.help) if known else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The sub-command that is called: imported now."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, _import(name, SUB_COMMANDS[name]) if name and listed else listed, rest


def _import(name: str, known: SubCommand) -> Any:
    command = typer.main.get_command(importlib.import_module(known.module).app)
    command.name = name
    return command


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Federated continuous integration: every part belongs to whoever runs it.",
)


@app.callback()
def _root() -> None:
    """Nothing to do before a sub-command; the callback makes this app a group."""


def main() -> None:
    """Run the command line; an error that a person can mend is one message and exit status 1, not a traceback."""
    # Only roles write a log; elsewhere a library's or our own warning would stand between a command's lines.
    logging.getLogger().addHandler(logging.NullHandler())
    # httpx offers a command line of its own, which loads rich and pygments: 7 MB in every role.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    try:
        app()
    except (FedciError, ModuleNotFoundError, BrokenPipeError, BaseExceptionGroup) as error:
        told = [_explained(leaf) for leaf in leaves(error)]
        if all(isinstance(leaf, BrokenPipeError) for leaf in told):
            # Whoever reads us has seen enough; the interpreter's own flush must not complain either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        if not all(isinstance(leaf, FedciError) for leaf in told):
            raise
        for leaf in told:
            typer.echo(f"fedci: {leaf}", err=True)
        sys.exit(1)


def _explained(error: BaseException) -> BaseException:
    """A missing library as what to install; any other error as it is."""
    ours = ("fedci", "schemas", "runtime", "bus", "identity", "broker", "agents")
    if not isinstance(error, ModuleNotFoundError) or (error.name or "").partition(".")[0] in ours:
        return error
    command = next((word for word in sys.argv[1:] if word in SUB_COMMANDS), "demo")
    remedy = f"pip install 'fedci[{SUB_COMMANDS[command].extra}]'"
    return OurFault(f"`fedci {command}` needs {error.name}, which is not installed", remedy=remedy)


if __name__ == "__main__":
    main()
