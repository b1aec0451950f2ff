"""`fedci identity`: run an issuer, and look after its accounts, API tokens and keys.

All but `init` and `serve` work on the directory's database beside a running server, which needs no restart.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from identity.server.administration import Operator
    from identity.server.store import Store

app = typer.Typer(no_args_is_help=True, help="Run an identity server: accounts, tokens, keys.")
account_app = typer.Typer(no_args_is_help=True, help="The accounts of this issuer.")
token_app = typer.Typer(no_args_is_help=True, help="API tokens: what an account trades for ID tokens.")
key_app = typer.Typer(no_args_is_help=True, help="The keys that sign ID tokens.")
app.add_typer(account_app, name="account")
app.add_typer(token_app, name="token")
app.add_typer(key_app, name="key")

Directory = Annotated[Path, typer.Argument(help="The identity server's data directory.", file_okay=False)]
Name = Annotated[str, typer.Argument(help="The account: 1 to 40 of a-z, 0-9 and inner hyphens.")]
T = TypeVar("T")


@app.command()
def init(
    directory: Directory,
    issuer: Annotated[str, typer.Option(help="Public URL without path, as it will stand in every token.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT to listen on.")] = "127.0.0.1:8100",
) -> None:
    """Make a data directory: commented settings, a database, the first keys."""
    from identity.server.wiring import initialise
    from runtime.clock import SystemClock

    asyncio.run(initialise(directory, issuer=issuer, listen=listen, clock=SystemClock()))
    typer.echo(f"made {directory}; next: fedci identity account add {directory} NAME")


@app.command()
def serve(
    directory: Directory,
    log_file: Annotated[Path | None, typer.Option(help="Append log lines here instead of stderr.")] = None,
) -> None:
    """Run the identity server until it is told to stop."""
    from identity.server.wiring import ROLE
    from identity.server.wiring import serve as serve_identity
    from runtime.lifecycle import start_role

    raise typer.Exit(start_role(ROLE, directory, serve_identity, log_file=log_file))


@app.command()
def audit(directory: Directory, last: Annotated[int, typer.Option(min=1, help="How many entries.")] = 50) -> None:
    """Show the latest entries of the audit log."""
    entries = _change(directory, lambda store, _: store.audit_entries(last))
    for entry in entries:
        typer.echo(
            f"{entry.at:%Y-%m-%d %H:%M:%S}  {entry.event}  {entry.account or '-'}  {entry.actor}  {entry.detail}"
        )


@account_app.command("add")
def add_account(directory: Directory, name: Name) -> None:
    """Add an account; its name is its `sub` and `client_id` for ever."""
    from identity.server import administration

    _change(directory, lambda store, by: administration.add_account(store, by, name))
    typer.echo(f"added {name}; next: fedci identity token issue {directory} {name} --out FILE")


@account_app.command("list")
def list_accounts(directory: Directory) -> None:
    """List the accounts, with the thumbprint of the key that each one is bound to."""
    from identity.server import administration

    for each in _change(directory, lambda store, _: administration.list_accounts(store)):
        state = "disabled" if each.is_disabled else "enabled "
        typer.echo(f"{each.name}  {state}  {each.api_tokens} API token(s)  key {each.key or '(none proven yet)'}")


@account_app.command("disable")
def disable_account(directory: Directory, name: Name) -> None:
    """Refuse an account's logins, and take back every ID token that it holds."""
    from identity.server import administration

    _change(directory, lambda store, by: administration.disable_account(store, by, name))
    typer.echo(f"disabled {name}; verifiers learn of it within minutes")


@account_app.command("enable")
def enable_account(directory: Directory, name: Name) -> None:
    """Let a disabled account log in again."""
    from identity.server import administration

    _change(directory, lambda store, by: administration.enable_account(store, by, name))
    typer.echo(f"enabled {name}")


@account_app.command("rekey")
def rekey_account(directory: Directory, name: Name) -> None:
    """Forget an account's key, so that it may prove another one; tokens bound to the old key are taken back."""
    from identity.server import administration

    _change(directory, lambda store, by: administration.rekey_account(store, by, name))
    typer.echo(f"the next key that {name} proves will be remembered")


@token_app.command("issue")
def issue_token(
    directory: Directory,
    name: Name,
    out: Annotated[Path | None, typer.Option(help="Write it to this new file (mode 0600), not to stdout.")] = None,
) -> None:
    """Issue an API token. It is shown this once; only its digest is kept."""
    from identity.server import administration
    from runtime.secrets import write_secret

    def issue(store: "Store", by: "Operator") -> administration.NewApiToken:
        issued = administration.issue_api_token(store, by, name)
        if out is not None:
            # Before the commit: where the file cannot be written, there is no token either.
            write_secret(out, f"{issued.token}\n".encode("ascii"))
        return issued

    issued = _change(directory, issue)
    typer.echo(issued.token if out is None else f"wrote API token {issued.number} of {name} to {out}")


@token_app.command("list")
def list_tokens(directory: Directory, name: Name) -> None:
    """List the numbers of an account's API tokens."""
    from identity.server import administration

    for token in _change(directory, lambda store, _: administration.list_api_tokens(store, name)):
        typer.echo(f"{token.id}  issued {token.created_at:%Y-%m-%d %H:%M:%S} UTC")


@token_app.command("revoke")
def revoke_token(
    directory: Directory, number: Annotated[int, typer.Argument(help="As `token list` shows it.")]
) -> None:
    """End an API token, and take back the ID tokens that were got with it."""
    from identity.server import administration

    taken_back = _change(directory, lambda store, by: administration.revoke_api_token(store, by, number))
    typer.echo(f"revoked API token {number} and {taken_back} ID token(s)")


@key_app.command("rotate")
def rotate_key(
    directory: Directory,
    emergency: Annotated[
        bool,
        typer.Option(
            "--emergency",
            help="The active key was stolen: drop it, and all that it signed, at once. "
            "Twice, where the next key lay beside it.",
        ),
    ] = False,
) -> None:
    """Let the next key sign. The old one verifies until its last token has ended."""
    from identity.server.wiring import rotate_keys

    old = asyncio.run(rotate_keys(directory, _operator(), emergency=emergency))
    typer.echo(f"{'dropped' if emergency else 'retired'} the key {old}")


def _change(directory: Path, act: "Callable[[Store, Operator], T]") -> T:
    """Run one act of the operator in one transaction."""
    from identity.server.store import write
    from identity.server.wiring import opened

    async def change() -> T:
        async with opened(directory) as house:
            return await write(house.database, lambda store: act(store, _operator()))

    return asyncio.run(change())


def _operator() -> "Operator":
    from identity.server.administration import Operator
    from runtime.clock import SystemClock

    return Operator(f"cli uid {os.getuid()}", SystemClock().now())
