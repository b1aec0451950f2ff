"""Puts a store together: settings, key, database, disk, trust, its bus session, and the HTTP face.

The directory holds `store.toml`, `agent.key`, `store.sqlite` and, unless the settings say otherwise, `blobs`. The store
answers before its bus is up: usage waits in the outbox, and tenants that it knows are served meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from starlette.types import ASGIApp

from agents.store import metrics, setup
from agents.store.app import StoreApp, build_app
from agents.store.billing import Billing, read_destination
from agents.store.disk import Disk
from agents.store.downloads import Downloads
from agents.store.metering import Meterer
from agents.store.naming import Naming
from agents.store.setup import Opened
from agents.store.sweeper import Sweeper
from agents.store.tables import OutboxRow
from agents.store.tabs import IsTenant, Tabs
from agents.store.transfers import Transfers
from agents.store.uploads import UploadLimits, Uploads
from bus.desk_client import DeskClient
from bus.session import BusSession
from identity.own_card import OwnCard
from identity.speech import Speaker
from identity.trust import Trust
from runtime.clock import Clock, SystemClock
from runtime.http_client import open_client
from runtime.http_guards import guarded
from runtime.http_probes import probe_routes
from runtime.http_server import serve_http
from runtime.lifecycle import Stop, announce_ready
from runtime.listening import bind
from runtime.outbox import Outbox, OutboxMessage, PublishResult
from runtime.outbox_table import OutboxTable
from schemas import limits
from schemas.refusals import Refusal
from schemas.sessions import SessionGranted
from schemas.statements import Usage
from schemas.tickets import StoreTicket

ROLE = "store"
WAIT_SECONDS = 25
NEWS_SECONDS = 3.0
"""How long a principal that the desk has not named yet is waited for: its session may be a moment old."""


@dataclass(frozen=True)
class Services:
    """What a store does, apart from how it is reached."""

    tabs: Tabs
    sweeper: Sweeper
    app: ASGIApp


async def serve(directory: Path, stop: Stop) -> None:
    """Run the store until `stop` drains and every request is answered; uploads that are cut off go on later.

    Raises OurFault (also as SettingsError or CannotListen) when a person must act first.
    """
    async with AsyncExitStack() as stack:
        store, clock = await stack.enter_async_context(setup.opened(directory)), SystemClock()
        bound = bind(store.settings.listen, store.tls)
        issuers = await stack.enter_async_context(open_client())
        desk_http = await stack.enter_async_context(open_client(store.desk_ca_file))
        desk = DeskClient(store.settings.desk_url, desk_http)
        trust = Trust(store.settings.issuers, client=issuers, clock=clock)
        own_card = OwnCard(store.settings.provider, store.root_key, desk, clock)
        bus, wake = _session(store, desk, clock), asyncio.Event()
        outbox_table = OutboxTable(store.database, OutboxRow, clock, wake)
        outbox = Outbox(outbox_table, clock)
        services = build(store, trust, own_card, _follows(bus), outbox_table, clock, checks_of=bus)
        async with asyncio.TaskGroup() as tasks:
            running = (
                trust.run(),
                bus.run(),
                outbox.run(_publishing(bus), wake),
                services.sweeper.run(),
                _retry_when_up(bus, outbox),
            )
            background = [tasks.create_task(work) for work in running]
            await serve_http(
                services.app, bound, stop, ready=lambda url: announce_ready(directory, ROLE, {"http": url})
            )
            await bus.close()
            for task in background:
                task.cancel()


def build(
    store: Opened,
    trust: Trust,
    own_card: OwnCard,
    is_tenant: IsTenant,
    outbox: OutboxTable,
    clock: Clock,
    *,
    checks_of: BusSession | None = None,
) -> Services:
    """Build everything but the bus; a test may bring its own clock, trust and card."""
    settings = store.settings
    disk = Disk(store.blobs, keep_free_bytes=settings.keep_free_bytes)
    disk.prepare()
    transfers = Transfers()
    billing = Billing(Meterer(settings.provider, settings.name), store.key, own_card, outbox)
    tabs = Tabs(
        provider=settings.provider,
        trust=trust,
        is_tenant=is_tenant,
        database=store.database,
        disk=disk,
        billing=billing,
        transfers=transfers,
        longest=timedelta(hours=settings.tab_hours),
        clock=clock,
    )
    upload_limits = UploadLimits(settings.blob_bytes, settings.quota_bytes, timedelta(days=settings.keep_days))
    uploads = Uploads(store.database, disk, upload_limits, clock)
    downloads, naming = Downloads(store.database, disk, clock), Naming(store.database, clock)
    sweeper = Sweeper(tabs=tabs, billing=billing, database=store.database, disk=disk, outbox=outbox, clock=clock)
    checks = {"bus": lambda: _bus_check(checks_of)} if checks_of else {}
    routes = probe_routes(checks, metrics.registry(transfers, sweeper, disk))
    app = guarded(
        build_app(StoreApp(tabs, uploads, downloads, naming, transfers), list(routes)),
        body_bytes=StoreTicket.MAX_BYTES,
        body_bytes_by_prefix={"/tabs/": max(settings.blob_bytes, limits.MESSAGE_BYTES)},
        # A transfer may take as long as its tab; what stalls is ended by the upload and the download themselves.
        deadline_seconds_by_prefix={"/tabs/": float(settings.tab_hours * 3600)},
    )
    return Services(tabs, sweeper, app)


def _session(store: Opened, desk: DeskClient, clock: Clock) -> BusSession:
    speaker = Speaker((), key=store.key, clock=clock)
    provider, name = store.settings.provider, store.settings.name

    async def credentials(revision: int | None) -> SessionGranted | Refusal:
        return await desk.session(speaker.agent_ticket(provider, agent=name), revision, WAIT_SECONDS)

    return BusSession(credentials, name=f"{provider} {name}", clock=clock, follows_changes=True)


def _follows(bus: BusSession) -> IsTenant:
    """Tenants as the desk names them to this store's session."""

    async def is_tenant(tenant: str) -> bool | None:
        try:
            async with asyncio.timeout(NEWS_SECONDS):
                while bus.granted is None or tenant not in bus.granted.tenants:
                    await bus.changed(bus.granted)
        except TimeoutError:
            return None if bus.granted is None else False
        return True

    return is_tenant


def _publishing(bus: BusSession) -> Callable[[OutboxMessage], Awaitable[PublishResult]]:
    async def publish(message: OutboxMessage) -> PublishResult:
        exchange, routing_key = read_destination(message.destination)
        return await bus.publish(
            exchange,
            routing_key,
            message.body,
            message_type=Usage.TYPE,
            correlation_id=message.correlation_id,
        )

    return publish


async def _retry_when_up(bus: BusSession, outbox: Outbox) -> None:
    """What waited for the bus goes out as soon as it is back."""
    status = bus.status
    while True:
        status = await bus.status_changed(status)
        if status.is_up:
            outbox.retry_now()


async def _bus_check(bus: BusSession) -> str | None:
    return None if bus.status.is_up else bus.status.reason
