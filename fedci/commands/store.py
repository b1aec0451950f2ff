"""`fedci store`: a provider's artifact store."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Run an artifact store.")
Directory = Annotated[Path, typer.Argument(help="The store's data directory.", file_okay=False)]
LogFile = Annotated[Path | None, typer.Option(help="Append log lines here instead of stderr.")]

SETTINGS = """\
# The artifact store of {provider}. Restart it after a change.
provider = "{provider}"
name = "{name}"                      # as it is enrolled at the desk
desk_url = "{desk_url}"
# desk_ca_file = "desk-ca.pem"
root_key = "{root_key}"  # the provider's root public key: what its card is believed under
key_file = "agent.key"
listen = "{listen}"         # https beyond this machine: give `tls`; the desk's `store_url` is how others reach it
# tls = {{ certificate = "store.crt", key = "store.key" }}

# blobs = "blobs"                    # where blobs lie
# quota_bytes = 53687091200          # of each tenant: 50 GiB
# blob_bytes = 5368709120            # of one blob: 5 GiB
# keep_free_bytes = 536870912        # of the disk, for everything else
# keep_days = 90                     # after the last upload of a blob
# tab_hours = 25                     # no job uses the store for longer

# Whose accounts may use the store, once they are tenants at the desk.
# [[issuers]]
# url = "https://id.example"
"""


@app.command()
def init(
    directory: Directory,
    provider: Annotated[str, typer.Option(help="The provider's name.")],
    desk_url: Annotated[str, typer.Option(help="The URL of the provider's desk.")],
    root_key: Annotated[str, typer.Option(help="The provider's root public key (base64url), as the desk serves it.")],
    name: Annotated[str, typer.Option(help="The name that this store is enrolled under.")] = "store",
    listen: Annotated[str, typer.Option(help="HOST:PORT to serve on.")] = "127.0.0.1:8403",
) -> None:
    """Make a store: key and settings."""
    from agents.store import setup
    from identity.keys import b64url

    text = SETTINGS.format(provider=provider, name=name, desk_url=desk_url, root_key=root_key, listen=listen)
    key = setup.init(directory, text)
    typer.echo(f"public key: {b64url(key)}")
    typer.echo(f"Next: fedci desk enrol DESK {name} --role store --key {b64url(key)}")
    typer.echo(f"Then list issuers in {directory / 'store.toml'}, name its URL as `store_url` in the desk's settings.")


@app.command()
def serve(directory: Directory, log_file: LogFile = None) -> None:
    """Keep and hand out artifacts until stopped."""
    from agents.store import wiring
    from runtime.lifecycle import start_role

    raise typer.Exit(start_role("store", directory, wiring.serve, log_file=log_file))
