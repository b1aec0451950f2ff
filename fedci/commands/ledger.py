"""`fedci ledger`: a provider's book of what was used."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Count what was used, and write invoices.")
Directory = Annotated[Path, typer.Argument(help="The ledger's data directory.", file_okay=False)]
LogFile = Annotated[Path | None, typer.Option(help="Append log lines here instead of stderr.")]

SETTINGS = """\
# The ledger of {provider}. Restart it after a change.
provider = "{provider}"
name = "{name}"                     # as it is enrolled at the desk
desk_url = "{desk_url}"
# desk_ca_file = "desk-ca.pem"
root_key = "{root_key}"  # the provider's root public key: what its card is believed under
key_file = "agent.key"
listen = "{listen}"                 # health and metrics
# database = "postgresql+asyncpg://..."  # without it: SQLite in this directory

# Whose accounts may answer usage events with receipts.
# [[issuers]]
# url = "https://id.example"
"""


@app.command()
def init(
    directory: Directory,
    provider: Annotated[str, typer.Option(help="The provider's name.")],
    desk_url: Annotated[str, typer.Option(help="The URL of the provider's desk.")],
    root_key: Annotated[str, typer.Option(help="The provider's root public key (base64url), as the desk serves it.")],
    name: Annotated[str, typer.Option(help="The name that this ledger is enrolled under.")] = "ledger",
    listen: Annotated[str, typer.Option(help="HOST:PORT for health and metrics.")] = "127.0.0.1:8404",
) -> None:
    """Make a ledger: key, settings, database."""
    from agents.ledger import setup
    from identity.keys import b64url

    text = SETTINGS.format(provider=provider, name=name, desk_url=desk_url, root_key=root_key, listen=listen)
    key = asyncio.run(setup.init(directory, text))
    typer.echo(f"public key: {b64url(key)}")
    typer.echo(f"Next: fedci desk enrol DESK {name} --role ledger --key {b64url(key)}")


@app.command()
def serve(directory: Directory, log_file: LogFile = None) -> None:
    """Take usage facts and receipts in until stopped."""
    from agents.ledger import wiring
    from runtime.lifecycle import start_role

    raise typer.Exit(start_role("ledger", directory, wiring.serve, log_file=log_file))


@app.command()
def invoice(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="Where to write the signed invoices.", file_okay=False)] = Path(),
    customer: Annotated[str, typer.Option(help="SUBJECT@ISSUER; without it, every customer.")] = "",
) -> None:
    """Write the next invoice of each customer, as a signed file that `fedci invoice verify` checks."""
    from agents.ledger import setup
    from agents.ledger.invoices import Customer

    sub, _, iss = customer.partition("@")
    only = Customer(iss, sub) if customer else None
    written = asyncio.run(setup.write_invoices(directory, datetime.now(UTC), only))
    out.mkdir(parents=True, exist_ok=True)
    for made in written:
        path = out / f"invoice-{made.invoice.provider}-{made.invoice.number}.fedci"
        path.write_bytes(made.raw)
        total = f"{made.invoice.total} {made.invoice.currency}"
        typer.echo(f"{path}\t{made.invoice.sub} at {made.invoice.iss}\t{total}")
    if not written:
        typer.echo("nothing new was used")


@app.command()
def tail(
    directory: Directory,
    offset: Annotated[str, typer.Option(help="Where to begin: first, last, next, or a number.")] = "first",
    follow: Annotated[bool, typer.Option(help="Go on when the end is reached.")] = False,
) -> None:
    """Read the billing stream from any offset: one line an event."""
    from agents.ledger import wiring

    asyncio.run(wiring.tail(directory, offset, follow, typer.echo))


@app.command()
def alarms(directory: Directory) -> None:
    """List what was refused: equivocation, unknown agents, garbage."""
    from agents.ledger import wiring

    for alarm in asyncio.run(wiring.alarms(directory)):
        typer.echo(f"{alarm.at:%Y-%m-%d %H:%M:%S}\t{alarm.queue}\t{alarm.reason}\t{alarm.detail}")
