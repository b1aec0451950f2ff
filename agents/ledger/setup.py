"""Making a ledger's data directory, and opening its book for one command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agents.ledger.invoices import Customer, Invoicing, Written
from agents.ledger.settings import FILE, LedgerSettings
from bus.desk_client import DeskClient
from identity.keys import SigningKey, public_from_b64url
from identity.own_card import OwnCard
from runtime.clock import SystemClock
from runtime.database import Database
from runtime.errors import OurFault
from runtime.http_client import open_client
from runtime.migrations import upgrade
from runtime.settings import TlsFiles, load

DATABASE = "ledger.sqlite"
MIGRATIONS = "agents.ledger.migrations"


@dataclass(frozen=True, slots=True)
class Opened:
    """A ledger's settings, key and book; paths are whole."""

    directory: Path
    settings: LedgerSettings
    key: SigningKey
    database: Database

    @property
    def desk_ca_file(self) -> Path | None:
        ca_file = self.settings.desk_ca_file
        return ca_file and self.directory / ca_file

    @property
    def tls(self) -> TlsFiles | None:
        tls = self.settings.tls
        return tls and TlsFiles(certificate=self.directory / tls.certificate, key=self.directory / tls.key)


async def init(directory: Path, settings_text: str) -> bytes:
    """Make a ledger in `directory`; its public key, to be enrolled at the desk.

    Raises OurFault (also as SettingsError) when something is there already or the settings cannot be used.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (directory / FILE).exists():
        raise OurFault("there is a ledger here already", where=str(directory), remedy="Use another directory.")
    (directory / FILE).write_text(settings_text, encoding="utf-8")
    settings = load(directory / FILE, LedgerSettings)
    key = SigningKey.generate()
    key.save(directory / settings.key_file)
    return key.public


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Opened]:
    """The ledger in `directory`, its database brought up to date; safe beside a running `serve`."""
    settings = load(directory / FILE, LedgerSettings)
    target = settings.database or directory / DATABASE
    await upgrade(target, MIGRATIONS)
    database = Database.open(target)
    try:
        yield Opened(directory, settings, SigningKey.load(directory / settings.key_file), database)
    finally:
        await database.close()


@asynccontextmanager
async def invoicing(directory: Path) -> AsyncIterator[Invoicing]:
    """What writes invoices, for one command."""
    async with opened(directory) as ledger, open_client(ledger.desk_ca_file) as http:
        clock = SystemClock()
        desk = DeskClient(ledger.settings.desk_url, http)
        own_card = OwnCard(ledger.settings.provider, root_key(ledger.settings), desk, clock)
        yield Invoicing(ledger.settings.provider, ledger.settings.name, ledger.key, own_card, ledger.database, clock)


async def write_invoices(directory: Path, before: datetime, only: Customer | None = None) -> list[Written]:
    """Write the next invoice of every customer, or of one; customers who used nothing new get none."""
    async with invoicing(directory) as office:
        customers = [only] if only else await office.customers()
        written = [await office.write(customer, before) for customer in customers]
    return [invoice for invoice in written if invoice is not None]


def root_key(settings: LedgerSettings) -> bytes:
    return public_from_b64url(settings.root_key)
