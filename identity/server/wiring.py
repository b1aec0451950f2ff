"""Puts an identity server together: its directory, its process, and its command line's way to the database.

The directory holds `identity.toml`, `identity.sqlite` and `keys/`. `initialise` makes it, `serve` runs on it, `opened`
gives the command line the same database beside a running server (SQLite in WAL mode; writers take turns).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from identity.server import administration
from identity.server import settings as names
from identity.server.administration import Operator
from identity.server.application import Measures, build_application
from identity.server.authorization import Issuer
from identity.server.failures import FailureBrake
from identity.server.housekeeping import keep_house
from identity.server.key_files import KeyFiles
from identity.server.settings import IdentitySettings, new_settings_text
from identity.server.signing_keys import create_first_keys, load_keys
from identity.server.store import read, write
from runtime.clock import Clock, SystemClock
from runtime.database import Database
from runtime.errors import OurFault
from runtime.http_server import serve_http
from runtime.lifecycle import Stop, announce_ready
from runtime.migrations import upgrade
from runtime.settings import TlsFiles, load

ROLE = "identity"
MIGRATIONS = "identity.server.migrations"


@dataclass(frozen=True)
class House:
    """An identity server's directory, opened."""

    settings: IdentitySettings
    database: Database
    files: KeyFiles


async def serve(directory: Path, stop: Stop) -> None:
    """Run the identity server until `stop` drains and every request is answered."""
    # Authlib logs the token that it hands out at level DEBUG.
    logging.getLogger("authlib").setLevel(logging.WARNING)
    async with opened(directory) as house, asyncio.TaskGroup() as group:
        await upgrade(directory / names.DATABASE_FILE, MIGRATIONS)
        # A directory restored without its keys is told at the start, not to the first caller.
        await read(house.database, lambda store: load_keys(store, house.files))
        issuer = _issuer(house, SystemClock())
        keeper = group.create_task(keep_house(issuer, house.database))
        await serve_http(
            build_application(issuer, house.database, Measures.new()),
            house.settings.listen,
            stop,
            tls=_tls(directory, house.settings),
            ready=lambda url: announce_ready(directory, ROLE, {"http": url, "issuer": house.settings.issuer}),
        )
        keeper.cancel()


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[House]:
    """Load the settings and open the database; raises `OurFault` where there is no identity server here."""
    settings = load(directory / names.SETTINGS_FILE, IdentitySettings)
    database = Database.open(directory / names.DATABASE_FILE)
    try:
        yield House(settings, database, KeyFiles(directory / names.KEYS_DIRECTORY))
    finally:
        await database.close()


async def initialise(directory: Path, *, issuer: str, listen: str, clock: Clock) -> None:
    """Make a directory: commented settings, database, first keys. Never touches one that is already made."""
    if _is_initialised(directory):
        raise OurFault(
            "there is an identity server here already", where=str(directory), remedy="Choose another directory."
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings_file = directory / names.SETTINGS_FILE
    settings_file.write_text(new_settings_text(issuer, listen), encoding="utf-8")
    try:
        await _fill(directory, clock)
    except BaseException:
        # The settings file is what makes a directory one of ours: without it `init` can be run again.
        settings_file.unlink()
        raise


async def rotate_keys(directory: Path, by: Operator, *, emergency: bool) -> str:
    """Rotate the signing key beside a running server; returns the old `kid`, whose private half is gone then."""
    async with opened(directory) as house:
        max_age = house.settings.jwks_max_age_seconds
        old = await write(
            house.database,
            lambda store: administration.rotate_keys(
                store, by, house.files, jwks_max_age_seconds=max_age, emergency=emergency
            ),
        )
        house.files.remove(old)
        return old


async def _fill(directory: Path, clock: Clock) -> None:
    async with opened(directory) as house:
        # After the opening, which makes the file one that only its owner may read.
        await upgrade(directory / names.DATABASE_FILE, MIGRATIONS)
        await write(house.database, lambda store: create_first_keys(store, house.files, clock.now()))


def _is_initialised(directory: Path) -> bool:
    return (directory / names.SETTINGS_FILE).exists()


def _issuer(house: House, clock: Clock) -> Issuer:
    settings = house.settings
    brake = FailureBrake(settings.failed_logins, settings.failed_login_pause_seconds)
    return Issuer(settings, house.files, brake, clock)


def _tls(directory: Path, settings: IdentitySettings) -> TlsFiles | None:
    """The TLS files, relative paths being relative to the directory."""
    tls = settings.tls
    return tls and TlsFiles(certificate=directory / tls.certificate, key=directory / tls.key)
