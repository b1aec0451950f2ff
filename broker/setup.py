"""Making a controller's data directory: settings, keys, tokens, database. Nothing that is there is overwritten."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from broker import vault
from broker.settings import FILE, TEMPLATE, ControllerSettings
from identity.keys import SigningKey
from runtime.errors import OurFault
from runtime.migrations import upgrade
from runtime.secrets import read_secret, write_secret
from runtime.settings import load

DATABASE = "controller.sqlite"
MIGRATIONS = "broker.migrations"
KEY = "controller.key"
VAULT_KEY = "vault.key"
API_TOKEN = "api.token"  # noqa: S105 - a file's name
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class NewController:
    """What `init` has to tell."""

    settings: ControllerSettings
    public_key: bytes
    api_token_file: Path


async def init(
    directory: Path, *, issuer: str, account: str, issuer_token: str, listen: str = "127.0.0.1:8405"
) -> NewController:
    """Make a controller in `directory` for the account `account` at `issuer`, whose API token is `issuer_token`.

    Raises OurFault (also as SettingsError) when something is there already or a setting cannot be used.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / FILE
    if path.exists():
        raise OurFault("there is a controller here already", where=str(directory), remedy="Use another directory.")
    path.write_text(TEMPLATE.format(listen=listen, issuer=issuer, account=account), encoding="utf-8")
    try:
        settings = load(path, ControllerSettings)
    except OurFault:
        path.unlink()
        raise
    key = SigningKey.generate()
    key.save(directory / KEY)
    vault.make_key(directory / VAULT_KEY)
    write_secret(directory / API_TOKEN, secrets.token_urlsafe(_TOKEN_BYTES).encode("ascii"))
    write_secret(directory / settings.account.api_token_file, issuer_token.strip().encode("utf-8"))
    await upgrade(database_of(directory, settings), MIGRATIONS)
    return NewController(settings, key.public, directory / API_TOKEN)


def database_of(directory: Path, settings: ControllerSettings) -> Path | str:
    """Where the database is: a file in the directory, or what the settings name."""
    return settings.database_url or directory / DATABASE


def read_api_token(directory: Path) -> str:
    """The token that people and pages show to this controller's API."""
    return read_secret(directory / API_TOKEN).decode("utf-8").strip()
