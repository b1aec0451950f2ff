"""`fedci`: one command, a sub-command for each role.

A sub-command's module is imported when it is called, not before: `fedci worker` on a small board must neither need nor
load what a controller needs. The table below is all that `fedci --help` reads.
"""

import importlib
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
    try:
        module = importlib.import_module(known.module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("fedci", "schemas", "runtime"):
            raise
        remedy = f"pip install 'fedci[{known.extra}]'"
        raise OurFault(f"`fedci {name}` needs {error.name}, which is not installed", remedy=remedy) from error
    command = typer.main.get_command(module.app)
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
    try:
        app()
    except (FedciError, BaseExceptionGroup) as error:
        told = list(leaves(error))
        if not all(isinstance(leaf, FedciError) for leaf in told):
            raise
        for leaf in told:
            typer.echo(f"fedci: {leaf}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
