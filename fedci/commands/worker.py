"""`fedci worker`: lend a machine."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Lend a machine: run jobs in a sandbox.")
Directory = Annotated[Path, typer.Argument(help="The worker's data directory.", file_okay=False)]
LogFile = Annotated[Path | None, typer.Option(help="Append log lines here instead of stderr.")]

SETTINGS = """\
# A worker of {provider}. Restart it after a change (one SIGTERM: it finishes its jobs first).
provider = "{provider}"
name = "{name}"                     # as it is enrolled at the desk
pool = "{pool}"                     # workers of one pool have the same labels
labels = {labels}                   # beside os, arch, cores and memory-gib, which are found
slots = {slots}                     # jobs at the same time
desk_url = "{desk_url}"
# desk_ca_file = "desk-ca.pem"
root_key = "{root_key}"  # the provider's root public key
key_file = "agent.key"
# metrics = "127.0.0.1:9464"        # where Prometheus may ask

[slot]                              # the most that one job may reserve; without a value, a share of this machine
# cores = 2
# memory_bytes = 2147483648
# disk_bytes = 8589934592
# processes = 4096

[sandbox]
executor = "{executor}"             # "process" isolates nothing: for your own jobs only
network = false                     # whether a job that asks for the network gets it
# grace_seconds = 5.0               # between the polite signal and the kill

# Whose accounts may send jobs; each issuer needs an account of this worker's, to answer its customers.
# [[issuers]]
# url = "https://id.example"
# [[accounts]]
# url = "https://id.example"
# sub = "alice-w7"
# api_token_file = "id.example.token"   # mode 0600, the token as it was shown

# Artifact stores that jobs may name. A store that is not listed cannot be reached from here.
# [[stores]]
# name = "bettina.example"
# url = "https://store.bettina.example"

# Tools for jobs, read-only.
# [[toolchains]]
# name = "python"
# description = "CPython 3.11"
# path = "/srv/toolchains/python"       # jobs see it at /toolchains/python, or at `target`
# path_entries = ["bin"]
# mounts = []                           # what it needs beside it, at the same place
"""


@app.command()
def init(
    directory: Directory,
    provider: Annotated[str, typer.Option(help="The provider's name.")],
    name: Annotated[str, typer.Option(help="The name that this worker is enrolled under.")],
    pool: Annotated[str, typer.Option(help="The pool that it belongs to.")],
    desk_url: Annotated[str, typer.Option(help="The URL of the provider's desk.")],
    root_key: Annotated[str, typer.Option(help="The provider's root public key (base64url), as the desk serves it.")],
    label: Annotated[list[str] | None, typer.Option(help="A label of your own, as board=k1; repeatable.")] = None,
    slots: Annotated[int, typer.Option(help="How many jobs at the same time.", min=1)] = 1,
    executor: Annotated[str, typer.Option(help="bubblewrap, or process for your own jobs only.")] = "bubblewrap",
) -> None:
    """Make a worker: key and settings."""
    import json

    from agents.worker import setup
    from identity.keys import b64url

    text = SETTINGS.format(
        provider=provider,
        name=name,
        pool=pool,
        labels=json.dumps(label or []),
        slots=slots,
        desk_url=desk_url,
        root_key=root_key,
        executor=executor,
    )
    key = setup.init(directory, text)
    typer.echo(f"public key: {b64url(key)}")
    typer.echo(f"Next: list issuers, accounts and toolchains in {directory / 'worker.toml'}, then")
    typer.echo(f"  fedci desk enrol DESK {name} --role worker --key {b64url(key)} --account ISSUER=SUBJECT")
    typer.echo(f"  fedci worker run {directory}")


@app.command()
def run(directory: Directory, log_file: LogFile = None) -> None:
    """Take jobs until stopped: the first signal finishes them, the second hands them back, the third kills."""
    from agents.worker import wiring
    from runtime.lifecycle import start_role

    raise typer.Exit(start_role("worker", directory, wiring.serve, log_file=log_file))


@app.command()
def status(directory: Directory) -> None:
    """Show what the worker does, and what it remembers."""
    from agents.worker import status as status_files
    from agents.worker.settings import FILE
    from agents.worker.wiring import JOURNAL
    from runtime.errors import OurFault

    if not (directory / FILE).exists():
        raise OurFault("there is no worker here", where=str(directory), remedy="Make one: fedci worker init")
    doing = status_files.read_doing(directory)
    if doing is None:
        typer.echo("not running")
    else:
        typer.echo(f"bus {doing['bus']}, {doing['tenants']} tenants, {doing['stop']}")
        for slot in doing["slots"]:
            typer.echo(f"slot {slot['slot']}\t{slot['attempt'] or 'free'}\tsince {slot['since']}")
    remembered = status_files.read_journal(directory / JOURNAL)
    for claim in remembered.claims:
        typer.echo(f"{claim.attempt}\t{claim.state}\tclaimed {claim.claimed_at:%Y-%m-%d %H:%M:%S}")
    typer.echo(f"{remembered.unsent} messages to send, {remembered.given_up} given up")
