"""Puts a ledger together: settings, key, book, its bus session, and what the command line reads.

`serve` consumes the billing queue and the receipts in batches, each batch one transaction; `tail` reads the billing
stream beside it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette

from agents.ledger import setup, store
from agents.ledger.book import Book
from agents.ledger.setup import Opened
from agents.ledger.tables import AlarmRow
from bus.desk_client import DeskClient
from bus.session import BusSession, Delivery, Fate
from bus.topology import ProviderNames
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
from schemas import frame
from schemas.refusals import Refusal
from schemas.sessions import SessionGranted
from schemas.statements import Usage

ROLE = "ledger"
WAIT_SECONDS = 25
END_OF_STREAM_SECONDS = 1.0


async def serve(directory: Path, stop: Stop) -> None:
    """Run the ledger until `stop` drains; what was not settled by then comes again at the next start.

    Raises OurFault (also as SettingsError or CannotListen) when a person must act first.
    """
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(setup.opened(directory))
        settings, clock = ledger.settings, SystemClock()
        bound = bind(settings.listen, ledger.tls)
        http = await stack.enter_async_context(open_client(ledger.desk_ca_file))
        desk = DeskClient(settings.desk_url, http)
        own_card = OwnCard(settings.provider, setup.root_key(settings), desk, clock)
        trust = Trust(settings.issuers, client=http, clock=clock)
        book = Book(settings.provider, own_card, trust, ledger.database, clock)
        bus = _session(ledger, desk, clock)
        _consume(bus, ProviderNames(settings.provider), book)
        app = guarded(Starlette(routes=probe_routes({"bus": lambda: _bus_check(bus)}, _metrics(book))))
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(work()) for work in (trust.run, bus.run)]
            await serve_http(app, bound, stop, ready=lambda url: announce_ready(directory, ROLE, {"http": url}))
            await bus.close()
            for task in background:
                task.cancel()


async def tail(directory: Path, offset: str, follow: bool, tell: Callable[[str], None]) -> None:
    """Tell each event of the billing stream from `offset` (first, last, next, or a number) as one line of JSON.

    Ends at the stream's end unless it is to `follow`.
    """
    start: str | int = int(offset) if offset.isdigit() else offset
    async with _connected(directory) as (bus, names):
        entries = bus.read_stream(
            names.billing_stream,
            start,  # type: ignore[arg-type] # anything else is refused by RabbitMQ with its own words
            idle_seconds=None if follow else END_OF_STREAM_SECONDS,
        )
        async with aclosing(entries):
            async for entry in entries:
                tell(_line(entry.offset, entry.body))


async def alarms(directory: Path) -> list[AlarmRow]:
    async with setup.opened(directory) as ledger, ledger.database.read() as session:
        return await store.alarms(session)


def _session(ledger: Opened, desk: DeskClient, clock: Clock) -> BusSession:
    speaker = Speaker((), key=ledger.key, clock=clock)
    settings = ledger.settings

    async def credentials(revision: int | None) -> SessionGranted | Refusal:
        return await desk.session(speaker.agent_ticket(settings.provider, agent=settings.name), revision, WAIT_SECONDS)

    return BusSession(credentials, name=f"{settings.provider} {settings.name}", clock=clock)


def _consume(bus: BusSession, names: ProviderNames, book: Book) -> None:
    bus.consume_batches(names.billing_ledger_queue, _entering(book.enter_usage))
    bus.consume_batches(names.receipts_queue, _entering(book.enter_receipts))


def _entering(
    enter: Callable[[Sequence[bytes]], Awaitable[None]],
) -> Callable[[list[Delivery]], Awaitable[Fate]]:
    async def handle(deliveries: list[Delivery]) -> Fate:
        await enter([delivery.body for delivery in deliveries])
        return Fate.SETTLED

    return handle


@asynccontextmanager
async def _connected(directory: Path) -> AsyncIterator[tuple[BusSession, ProviderNames]]:
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(setup.opened(directory))
        http = await stack.enter_async_context(open_client(ledger.desk_ca_file))
        bus = _session(ledger, DeskClient(ledger.settings.desk_url, http), SystemClock())
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(bus.run())
            await bus.up()
            yield bus, ProviderNames(ledger.settings.provider)
            running.cancel()


def _line(offset: int, body: bytes) -> str:
    envelope = frame.split(body)
    usage = envelope if isinstance(envelope, Refusal) else Usage.from_payload(envelope.payload)
    if isinstance(usage, Refusal):
        return json.dumps({"offset": offset, "unreadable": str(usage)})
    return json.dumps({"offset": offset, **usage.model_dump(mode="json")}, ensure_ascii=False)


async def _bus_check(bus: BusSession) -> str | None:
    return None if bus.status.is_up else bus.status.reason


class _BookMetrics(Collector):
    """The book's tally as Prometheus counters."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def collect(self) -> list[CounterMetricFamily]:
        tally = self._book.tally
        alarms_ = CounterMetricFamily("fedci_ledger_alarms", "Messages refused, by reason.", labels=["reason"])
        for reason, count in sorted(tally.alarms.items()):
            alarms_.add_metric([reason], count)
        return [
            CounterMetricFamily("fedci_ledger_facts", "Usage facts entered.", value=tally.facts),
            CounterMetricFamily("fedci_ledger_repeats", "Usage facts that came again.", value=tally.repeats),
            CounterMetricFamily("fedci_ledger_receipts", "Receipts entered.", value=tally.receipts),
            alarms_,
        ]


def _metrics(book: Book) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_BookMetrics(book))
    return registry
