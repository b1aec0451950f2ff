"""Making a store's data directory, and opening what is in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agents.store.settings import FILE, StoreSettings
from identity.keys import SigningKey, public_from_b64url
from runtime.database import Database
from runtime.errors import OurFault
from runtime.migrations import upgrade
from runtime.settings import TlsFiles, load

DATABASE = "store.sqlite"
MIGRATIONS = "agents.store.migrations"


@dataclass(frozen=True, slots=True)
class Opened:
    """A store's settings, its key and its database; paths are whole."""

    directory: Path
    settings: StoreSettings
    key: SigningKey
    database: Database

    @property
    def root_key(self) -> bytes:
        return public_from_b64url(self.settings.root_key)

    @property
    def blobs(self) -> Path:
        return self.directory / self.settings.blobs

    @property
    def desk_ca_file(self) -> Path | None:
        ca_file = self.settings.desk_ca_file
        return ca_file and self.directory / ca_file

    @property
    def tls(self) -> TlsFiles | None:
        tls = self.settings.tls
        return tls and TlsFiles(certificate=self.directory / tls.certificate, key=self.directory / tls.key)


def init(directory: Path, settings_text: str) -> bytes:
    """Make a store in `directory`; its public key, to be enrolled at the desk.

    Raises OurFault (also as SettingsError) when something is there already or the settings cannot be used.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (directory / FILE).exists():
        raise OurFault("there is a store here already", where=str(directory), remedy="Use another directory.")
    (directory / FILE).write_text(settings_text, encoding="utf-8")
    settings = load(directory / FILE, StoreSettings)
    key = SigningKey.generate()
    key.save(directory / settings.key_file)
    return key.public


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Opened]:
    """The store in `directory`, its database brought up to date."""
    settings = load(directory / FILE, StoreSettings)
    key = SigningKey.load(directory / settings.key_file)
    await upgrade(directory / DATABASE, MIGRATIONS)
    database = Database.open(directory / DATABASE)
    try:
        yield Opened(directory, settings, key, database)
    finally:
        await database.close()
