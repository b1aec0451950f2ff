"""`fedci desk`: a provider's front door."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from fedci.commands.typed import read_value
from runtime.errors import OurFault

app = typer.Typer(no_args_is_help=True, help="Run a provider's desk: who may use its bus.")
Directory = Annotated[Path, typer.Argument(help="The desk's data directory.", file_okay=False)]
LogFile = Annotated[Path | None, typer.Option(help="Append log lines here instead of stderr.")]
Tenant = Annotated[str, typer.Argument(help="The tenant id, as `fedci desk tenants` lists it.")]

SETTINGS = """\
# The desk of {provider}. Commands that change agents or tenants need no restart; changes here do.
provider = "{provider}"
listen = "{listen}"
url = "{url}"                       # as controllers and agents reach it; https beyond this machine
# tls = {{ certificate = "desk.crt", key = "desk.key" }}
# store_url = "https://store.example"  # only where this provider has an artifact store
# currency = "EUR"
# decimals = 2                      # an invoice line is rounded once, half to even, to so many places

[bus]                               # the RabbitMQ behind this desk
host = "{amqp_host}"                # as tenants and agents reach it
port = {amqp_port}
tls = false                         # true beyond this machine
vhost = "{vhost}"
api_url = "{api_url}"               # its management API, for the desk alone
admin_user = "{admin_user}"
admin_password_file = "bus.password"

# [sessions]
# seconds = 3600                    # how long a session lasts before it is renewed
# connections = 8                   # per tenant or agent
# idle_days = 30                    # queues of a tenant that stayed away are removed

# Whose accounts may become tenants; `welcome` is "admit", "hold" (you approve each) or "deny".
# [[issuers]]
# url = "https://id.example"
# welcome = "hold"
# tenants = 100

# The desk's own accounts, under which it tells controllers what could not be delivered.
# [[accounts]]
# url = "https://id.example"
# sub = "alice"
# api_token_file = "id.example.token"

# What you charge; a meter that is not listed is free. Numbers are text, so that they stay exact.
# [[rates]]
# meter = "wall-seconds"
# unit = "s"
# price = "0.36"
# per = "3600"
# increment = "1"
"""


@app.command()
def init(
    directory: Directory,
    provider: Annotated[str, typer.Option(help="This provider's name, like a DNS name.")],
    amqp: Annotated[str, typer.Option(help="HOST:PORT of RabbitMQ for tenants and agents.")],
    api_url: Annotated[str, typer.Option(help="URL of RabbitMQ's management API.")],
    admin_user: Annotated[str, typer.Option(help="A RabbitMQ administrator; the password is asked for.")],
    vhost: Annotated[str, typer.Option(help="The virtual host that is this provider's bus.")] = "",
    listen: Annotated[str, typer.Option(help="HOST:PORT to serve on.")] = "127.0.0.1:8401",
    url: Annotated[str, typer.Option(help="The desk's URL for others; as `listen` if not given.")] = "",
) -> None:
    """Make a desk: root key, settings, database."""
    from agents.desk import setup
    from identity.keys import b64url

    password = read_value("RabbitMQ password of the administrator")
    host, _, port = amqp.rpartition(":")
    if not host or not port.isdigit():
        raise typer.BadParameter("expected HOST:PORT", param_hint="--amqp")
    text = SETTINGS.format(
        provider=provider,
        listen=listen,
        url=url or f"http://{listen}",
        amqp_host=host,
        amqp_port=port,
        vhost=vhost or provider,
        api_url=api_url,
        admin_user=admin_user,
    )
    made = asyncio.run(setup.init(directory, text, bus_password=password.encode("utf-8")))
    typer.echo(f"root key:         {b64url(made.root_key)}")
    typer.echo(f"its fingerprint:  {made.fingerprint}")
    typer.echo(f"Copy {directory / setup.ROOT_KEY} to a safe place: it is this provider's name to the world.")
    typer.echo(f"Next: list issuers and rates in {directory / 'desk.toml'}, then: fedci desk serve {directory}")


@app.command()
def serve(directory: Directory, log_file: LogFile = None) -> None:
    """Serve until stopped."""
    from agents.desk import wiring
    from runtime.lifecycle import start_role

    raise typer.Exit(start_role("desk", directory, wiring.serve, log_file=log_file))


@app.command()
def enrol(
    directory: Directory,
    name: Annotated[str, typer.Argument(help="The agent's name.")],
    role: Annotated[str, typer.Option(help="worker, store or ledger.")],
    key: Annotated[str, typer.Option(help="The agent's public key, as its `init` showed it.")],
    account: Annotated[list[str] | None, typer.Option(help="ISSUER=SUBJECT, once for each issuer.")] = None,
) -> None:
    """Let one of your own agents in, under its key."""
    from pydantic import ValidationError

    from agents.desk import setup

    try:
        made = setup.agent(name, role, key, account or [])  # type: ignore[arg-type] # validated by the model
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(f"{first['loc'][0]}: {first['msg']}") from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    asyncio.run(setup.enrol(directory, made))
    typer.echo(f"enrolled {name} as {role}")


@app.command()
def agents(directory: Directory) -> None:
    """List the enrolled agents."""
    from agents.desk import setup

    for agent in asyncio.run(setup.list_agents(directory)):
        accounts = ", ".join(f"{account.sub} at {account.iss}" for account in agent.accounts)
        typer.echo(f"{agent.name}\t{agent.role}\t{agent.key.hex()[:16]}\t{accounts}")


@app.command()
def dismiss(directory: Directory, name: Annotated[str, typer.Argument(help="The agent's name.")]) -> None:
    """Turn an agent out: its session ends within seconds, its key means nothing any more."""
    from agents.desk import setup

    if not asyncio.run(setup.remove_agent(directory, name)):
        raise OurFault(f"no agent {name} is enrolled", where=str(directory), remedy="See: fedci desk agents")
    typer.echo(f"dismissed {name}")


@app.command()
def tenants(directory: Directory) -> None:
    """List everyone who came here, and how they stand."""
    from agents.desk import setup

    for row in asyncio.run(setup.list_tenants(directory)):
        typer.echo(f"{row.tenant}\t{row.standing}\t{row.sub} at {row.iss}\tlast seen {row.last_seen_at:%Y-%m-%d %H:%M}")


@app.command()
def approve(directory: Directory, tenant: Tenant) -> None:
    """Admit a tenant that is held, denied or suspended."""
    _judge(directory, tenant, "admitted")


@app.command()
def deny(directory: Directory, tenant: Tenant) -> None:
    """Refuse a tenant from now on; its session ends within seconds."""
    _judge(directory, tenant, "denied")


@app.command()
def suspend(directory: Directory, tenant: Tenant) -> None:
    """Keep a tenant out for now; its session ends within seconds, its queues stay."""
    _judge(directory, tenant, "suspended")


def _judge(directory: Path, tenant: str, standing: str) -> None:
    from agents.desk import setup
    from agents.desk.policy import Standing

    if not asyncio.run(setup.judge(directory, tenant, Standing(standing))):
        raise OurFault(f"no tenant {tenant} ever came here", where=str(directory), remedy="See: fedci desk tenants")
    typer.echo(f"{tenant} is {standing}")
