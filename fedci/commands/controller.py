"""`fedci controller`: run a controller, and work with one: projects, providers, runs, logs, artifacts.

All but `init` and `serve` speak to a running controller's API, and so work from anywhere: WHERE is the controller's
data directory, or its https:// URL together with `--token-file`.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedci.commands import controller_runs
from fedci.commands.controller_place import CaFile, TokenFile, Where, ask
from fedci.commands.controller_text import columns, say
from fedci.commands.typed import read_value
from runtime.errors import OurFault

if TYPE_CHECKING:
    from fedci.controller_client import ControllerClient

app = typer.Typer(no_args_is_help=True, help="Run a controller: projects, runs, logs.")
project_app = typer.Typer(no_args_is_help=True, help="Projects: what runs belong to.")
provider_app = typer.Typer(no_args_is_help=True, help="Providers: whose hardware and stores are used.")
secret_app = typer.Typer(no_args_is_help=True, help="Secrets of projects; their values never come out again.")
app.add_typer(project_app, name="project")
app.add_typer(provider_app, name="provider")
app.add_typer(secret_app, name="secret")

Directory = Annotated[Path, typer.Argument(help="The controller's data directory.", file_okay=False)]
Project = Annotated[str, typer.Argument(help="The project: 1 to 40 of a-z, 0-9 and inner hyphens.")]


@app.command()
def init(
    directory: Directory,
    issuer: Annotated[str, typer.Option(help="URL of the identity server where its account is.")],
    account: Annotated[str, typer.Option(help="The account's name there.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT for the API and the pages.")] = "127.0.0.1:8405",
) -> None:
    """Make a controller: settings, keys, database. The account's API token is asked for, or read from a pipe."""
    from broker import setup

    token = read_value(f"API token of {account} at {issuer}").strip()
    if not token:
        raise typer.BadParameter("the API token is empty", param_hint="standard input")
    made = asyncio.run(setup.init(directory, issuer=issuer, account=account, issuer_token=token, listen=listen))
    typer.echo(f"made {directory}; the token for its API and pages is in {made.api_token_file}")
    typer.echo(f"next: fedci controller serve {directory}")


@app.command()
def serve(
    directory: Directory,
    log_file: Annotated[Path | None, typer.Option(help="Append log lines here instead of stderr.")] = None,
) -> None:
    """Serve until stopped."""
    from broker import wiring
    from runtime.lifecycle import start_role

    raise typer.Exit(start_role(wiring.ROLE, directory, wiring.serve, log_file=log_file))


@app.command()
def status(where: Where, token_file: TokenFile = None, ca_file: CaFile = None) -> None:
    """Say what a person should look at: alarms, orphans, and the latest refusals."""
    said = ask(where, token_file, ca_file, lambda client: client.status())
    say(f"account {said.account} at {said.issuer}, tenant {said.tenant}")
    if said.issuer_trouble:
        say(f"its issuer: {said.issuer_trouble}")
    for alarm in said.alarms:
        say(f"ALARM {alarm.raised_at:%Y-%m-%d %H:%M}  {alarm.provider}  {alarm.kind}: {alarm.detail}")
    for orphan in said.orphans:
        say(f"orphan {orphan.claim} of {orphan.worker} at {orphan.provider}: its attempt is not known here")
    for refusal in said.refusals:
        say(f"refused {refusal.received_at:%Y-%m-%d %H:%M}  {refusal.provider}  {refusal.reason}: {refusal.detail}")


# -- Projects


@project_app.command("add")
def add_project(
    where: Where,
    name: Project,
    provider: Annotated[list[str] | None, typer.Option(help="Use only these providers; once for each.")] = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Add a project."""
    added = ask(where, token_file, ca_file, lambda client: client.add_project(name, tuple(provider or ())))
    say(f"added {added.name}; next: fedci controller submit {where} {added.name}")


@project_app.command("list")
def list_projects(where: Where, token_file: TokenFile = None, ca_file: CaFile = None) -> None:
    """List the projects and the providers that each may use."""
    for project in ask(where, token_file, ca_file, lambda client: client.projects()):
        say(f"{project.name}\t{', '.join(project.providers) or 'any provider'}")


# -- Providers


@provider_app.command("add")
def add_provider(
    where: Where,
    url: Annotated[str, typer.Argument(help="The URL of the provider's desk.")],
    fingerprint: Annotated[str, typer.Option(help="Its root key's fingerprint, as the owner told you.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Trust what the desk shows, without asking.")] = False,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Meet a provider, and pin its root key once you have compared the fingerprint with what its owner says."""

    async def meet(client: "ControllerClient") -> str:
        desk = await client.introduce(url)
        say(f"{desk.name} at {desk.url}\nroot key fingerprint: {desk.root_fingerprint}")
        if fingerprint and _plain(fingerprint) != _plain(desk.root_fingerprint):
            remedy = "Ask the owner again: somebody may stand between you."
            raise OurFault("the fingerprint is another one; nothing was added", where=url, remedy=remedy)
        if not fingerprint and not yes:
            typer.confirm("Is this the fingerprint that its owner tells you?", abort=True)
        # What was compared is what gets pinned, whatever the desk shows by now.
        return (await client.add_provider(desk.url, desk.root_fingerprint)).name

    say(f"added {ask(where, token_file, ca_file, meet)}")


def _plain(fingerprint: str) -> str:
    return "".join(character for character in fingerprint.lower() if character.isalnum())


@provider_app.command("list")
def list_providers(where: Where, token_file: TokenFile = None, ca_file: CaFile = None) -> None:
    """List the providers, how our session at each stands, and their pools."""
    for provider in ask(where, token_file, ca_file, lambda client: client.providers()):
        state = provider.alarm or provider.trouble or "up"
        say(f"{provider.name}\t{provider.url}\t{state}")
        for pool in provider.pools:
            say(f"  pool {pool.name}: {len(pool.workers)} workers, {pool.slots} slots, {' '.join(pool.labels)}")


@app.command()
def usage(
    where: Where,
    provider: Annotated[str, typer.Argument(help="The provider's name.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the signed events here, for `fedci invoice verify`.", dir_okay=False)
    ] = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """List every usage event that a provider has stated, and what was answered; `--out` keeps them as they came."""
    if out is not None:
        out.write_bytes(ask(where, token_file, ca_file, lambda client: client.usage_envelopes(provider)))
        typer.echo(f"wrote {out}; next: fedci invoice verify INVOICE --events {out}")
        return
    stated = ask(where, token_file, ca_file, lambda client: client.usage(provider))
    rows = [
        (f"{event.ended_at:%Y-%m-%d %H:%M:%S}", event.meter, f"{event.quantity:f}", event.subject, event.verdict or "-")
        for event in stated.events
    ]
    say(columns(rows) if rows else f"{provider} has stated no usage")


# -- Secrets


@secret_app.command("set")
def set_secret(
    where: Where,
    project: Project,
    name: Annotated[str, typer.Argument(help="The environment variable that jobs will see.")],
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Set a secret; its value is asked for, or read from a pipe."""
    value = read_value(f"value of {name}")
    ask(where, token_file, ca_file, lambda client: client.set_secret(project, name, value))
    say(f"set {name} of {project}")


@secret_app.command("list")
def list_secrets(where: Where, project: Project, token_file: TokenFile = None, ca_file: CaFile = None) -> None:
    """List a project's secrets by name."""
    secrets = ask(where, token_file, ca_file, lambda client: client.secrets(project))
    say(columns([(secret.name, f"set {secret.set_at:%Y-%m-%d %H:%M} UTC") for secret in secrets]))


@secret_app.command("remove")
def remove_secret(
    where: Where, project: Project, name: str, token_file: TokenFile = None, ca_file: CaFile = None
) -> None:
    """Forget a secret."""
    ask(where, token_file, ca_file, lambda client: client.remove_secret(project, name))
    say(f"removed {name} of {project}")


controller_runs.install(app)
