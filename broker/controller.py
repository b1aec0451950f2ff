"""All services of one controller, put together: what wiring and tests build alike, and the tasks that keep it going."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypedDict

import httpx

from broker.bells import Bells
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.outgoing import Outgoing, Publisher
from broker.dispatch.undelivered import JobPublisher
from broker.dispatch.uploads import Uploads
from broker.ingest.follow_ups import FollowUps
from broker.ingest.granting import Granting
from broker.ingest.intake import Intake
from broker.ingest.lease_watch import Leases, LeaseWatch
from broker.ingest.reading import Reader
from broker.ingest.receipts import Receipts
from broker.ingest.settlement import Settlement
from broker.logs.files import LogFiles
from broker.logs.intake import LogIntake
from broker.projects import Projects
from broker.providers.book import Book, KnownProvider
from broker.providers.pinning import Providers
from broker.providers.sessions import ProviderParts, ProviderSession, Sessions
from broker.providers.stores import Stores
from broker.run_following import RunFollower
from broker.runs import Runs
from broker.sources.snapshots import Snapshots
from broker.tables import OutboxRow
from broker.vault import Vault
from broker.voice import Voice
from bus.desk_client import DeskClient
from identity.keys import SigningKey
from identity.trust import Trust
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import WorldFault
from runtime.logging import get_logger
from runtime.outbox import Outbox
from runtime.outbox_table import OutboxTable
from schemas import limits
from schemas.statements import StoreOffer

_log = get_logger(__name__)
_OUTBOX_KEPT = timedelta(days=30)
_HOUSE_SECONDS = 24 * 3600.0
LOGS = "logs"
SNAPSHOTS = "snapshots"
OpenClient = Callable[[StoreOffer], httpx.AsyncClient]


@dataclass(frozen=True)
class Parts:
    """What a controller is made of; whoever gives a part also closes it."""

    directory: Path
    """Holds the directories of logs and snapshots."""
    database: Database
    voice: Voice
    key: SigningKey
    trust: Trust
    vault: Vault
    client: httpx.AsyncClient
    """For desks."""
    open_store_client: OpenClient
    clock: Clock
    lease_seconds: int = limits.LEASE_SECONDS


class _Common(TypedDict):
    """What nearly every service is given."""

    database: Database
    bells: Bells
    clock: Clock


class Controller:
    """The services; `run` keeps them going."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.voice, self.database, self.clock, self.vault = parts.voice, parts.database, parts.clock, parts.vault
        self.book, self.bells = Book(), Bells()
        self.logs = LogFiles(parts.directory / LOGS)
        self.snapshots = Snapshots(parts.directory / SNAPSHOTS)
        self.leases = Leases(parts.clock)
        self._outbox_wake = asyncio.Event()
        self.outbox = OutboxTable(parts.database, OutboxRow, parts.clock, self._outbox_wake)
        self.outgoing = Outgoing(self.outbox)
        common = _Common(database=parts.database, bells=self.bells, clock=parts.clock)
        self.follow_ups = FollowUps(voice=parts.voice, outgoing=self.outgoing, database=parts.database)
        self.stores = Stores(
            book=self.book, voice=parts.voice, key=parts.key, open_client=parts.open_store_client, clock=parts.clock
        )
        self.uploads = Uploads(snapshots=self.snapshots, stores=self.stores, **common)
        self.providers = Providers(book=self.book, client=parts.client, **common)
        self.dispatcher = Dispatcher(
            book=self.book,
            voice=parts.voice,
            outgoing=self.outgoing,
            snapshots=self.snapshots,
            uploads=self.uploads,
            **common,
        )
        self.settlement = Settlement(logs=self.logs, follow_ups=self.follow_ups, **common)
        self.lease_watch = LeaseWatch(
            book=self.book, leases_heard=self.leases, lease_seconds=parts.lease_seconds, **common
        )
        self.receipts = Receipts(book=self.book, voice=parts.voice, outgoing=self.outgoing, **common)
        self.runs = Runs(snapshots=self.snapshots, outgoing=self.outgoing, follow_ups=self.follow_ups, **common)
        self.projects = Projects(vault=parts.vault, **common)
        self.sessions = Sessions(self.book, self._session)
        self.providers.on_added = self.sessions.start
        self.run_follower = RunFollower(database=parts.database, bells=self.bells)
        self._granting = Granting(
            voice=parts.voice, vault=parts.vault, lease_seconds=parts.lease_seconds, clock=parts.clock
        )
        self._outbox_loop = Outbox(self.outbox, parts.clock)

    def intake(self, provider: str) -> Intake:
        """Who takes in the replies of a provider."""
        reader = Reader(
            provider,
            book=self.book,
            trust=self.parts.trust,
            voice=self.voice,
            database=self.database,
            refresh_card=self.providers.refresh,
        )
        return Intake(
            provider,
            reader=reader,
            granting=self._granting,
            outgoing=self.outgoing,
            follow_ups=self.follow_ups,
            database=self.database,
            leases=self.leases,
            settlement=self.settlement,
            bells=self.bells,
            clock=self.clock,
        )

    def log_intake(self, provider: str) -> LogIntake:
        """Who takes in the logs of a provider."""
        return LogIntake(
            provider,
            voice=self.voice,
            database=self.database,
            logs=self.logs,
            settlement=self.settlement,
            bells=self.bells,
            clock=self.clock,
        )

    def _session(self, known: KnownProvider) -> ProviderSession:
        desk = DeskClient(known.url, self.parts.client)
        return ProviderSession(
            known,
            ProviderParts(desk, self.intake(known.name), self.log_intake(known.name)),
            voice=self.voice,
            book=self.book,
            bells=self.bells,
            on_up=self._outbox_loop.retry_now,
            clock=self.clock,
        )

    async def prepare(self) -> None:
        """Make the directories and read the providers: what must be done before the first request."""
        for name in (LOGS, SNAPSHOTS):
            (self.parts.directory / name).mkdir(mode=0o700, exist_ok=True)
        self.snapshots.clear()
        await self.providers.load()

    async def run(self) -> None:
        """Keep everything going until cancelled. Nothing is lost then: all that counts is in the database."""
        publisher = JobPublisher(
            Publisher(self.voice.tenant, self.sessions.find, self.clock),
            outbox=self.outbox,
            database=self.database,
            bells=self.bells,
            clock=self.clock,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._outbox_loop.run(publisher.publish, self._outbox_wake))
            group.create_task(self.parts.trust.run())
            group.create_task(self.sessions.run())
            group.create_task(self.providers.run())
            group.create_task(self.dispatcher.run())
            group.create_task(self.uploads.run())
            group.create_task(self.settlement.run())
            group.create_task(self.lease_watch.run())
            group.create_task(self.receipts.run())
            group.create_task(self._keep_house())

    async def _keep_house(self) -> None:
        """Forget, once a day, what left the outbox long ago."""
        while True:
            try:
                await self.outbox.purge(self.clock.now() - _OUTBOX_KEPT)
            except WorldFault as error:
                _log.warning("outbox_not_purged", reason=str(error))
            await asyncio.sleep(_HOUSE_SECONDS)
