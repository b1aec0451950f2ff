"""Puts a worker together: settings, key, journal, sandbox, its bus session, and the tasks that make it live.

Start: the sandbox is tried with a real job, the claims of the life before are dealt with, and only then is anything
taken from the bus. Stop: drain (finish what runs), hand back (release or end it, and say so), kill (cancelled; the
wardens see to the trees). What could not be sent by then is sent after the next start.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import start_http_server

from agents.worker.equipment import HttpClients, make_jails, open_accounts, open_sandbox, open_stores
from agents.worker.jobs.metering import Meterer
from agents.worker.jobs.recovery import forget_the_old, remind_of_ends
from agents.worker.jobs.work import Workplace
from agents.worker.journal.claims import Journal
from agents.worker.labels import this_machine
from agents.worker.lending import Lending
from agents.worker.orders.slots import Slots
from agents.worker.services import Adapters, Services, assemble
from agents.worker.settings import FILE, WorkerSettings
from agents.worker.status import Doing, StatusFile
from agents.worker.tenancy import Tenancy
from bus.desk_client import DeskClient
from bus.session import BusSession
from bus.topology import ProviderNames
from identity.keys import SigningKey, public_from_b64url
from identity.own_card import OwnCard
from identity.speech import Speaker
from identity.trust import Trust
from runtime.clock import SystemClock
from runtime.errors import FedciError, OurFault
from runtime.lifecycle import Stop, StopLevel, announce_ready
from runtime.logging import get_logger
from runtime.settings import load
from schemas.refusals import Refusal
from schemas.sessions import SessionGranted

ROLE = "worker"
JOURNAL = "worker.sqlite"
WAIT_SECONDS = 25
FLUSH_SECONDS = 10.0
"""How long a worker that stops waits for the bus to take the rest."""
STATUS_SECONDS = 2.0
PRUNE_SECONDS = 3600.0
_log = get_logger(__name__)


async def serve(directory: Path, stop: Stop) -> None:
    """Run the worker until `stop` drains and its jobs are over.

    Raises OurFault (also as SettingsError) when a person must act first.
    """
    async with _opened(directory) as house:
        worker = _assemble(house, stop)
        await worker.services.recover()
        _serve_metrics(house, worker)
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(work) for work in _background(house, worker, stop)]
            announce_ready(directory, ROLE)
            await worker.slots.run()
            await _flush(worker.services)
            await house.session.close()
            for task in background:
                task.cancel()


@dataclass(frozen=True)
class _House:
    """What is opened from the settings and closed at the end."""

    directory: Path
    settings: WorkerSettings
    clock: SystemClock
    session: BusSession
    journal: Journal
    trust: Trust
    speaker: Speaker
    lending: Lending
    place: Workplace
    stack: AsyncExitStack


@dataclass(frozen=True)
class _Worker:
    services: Services
    slots: Slots
    tenancy: Tenancy


@asynccontextmanager
async def _opened(directory: Path) -> AsyncIterator[_House]:
    settings, clock = load(directory / FILE, WorkerSettings), SystemClock()
    key = SigningKey.load(directory / settings.key_file)
    executor, findings = await open_sandbox(directory, settings)
    jails = make_jails(settings, findings)
    async with AsyncExitStack() as stack:
        clients = HttpClients(directory, stack)
        http = await clients.trusting(None)
        desk = DeskClient(settings.desk_url, await clients.trusting(settings.desk_ca_file))
        own_card = OwnCard(settings.provider, public_from_b64url(settings.root_key), desk, clock)
        lending = Lending(settings, this_machine(), own_card)
        speaker = Speaker(open_accounts(directory, settings, key, http, clock), key=key, clock=clock)
        stores = await open_stores(settings, key, clock, clients)
        journal = await Journal.open(directory / JOURNAL)
        stack.push_async_callback(journal.close)
        yield _House(
            directory=directory,
            settings=settings,
            clock=clock,
            session=_session(settings, speaker, lending, desk, clock),
            journal=journal,
            trust=Trust(settings.issuers, client=http, clock=clock),
            speaker=speaker,
            lending=lending,
            place=Workplace(executor, stores, directory / "scratch", jails.spec_of, jails.header_of),
            stack=stack,
        )


def _session(
    settings: WorkerSettings, speaker: Speaker, lending: Lending, desk: DeskClient, clock: SystemClock
) -> BusSession:
    async def credentials(revision: int | None) -> SessionGranted | Refusal:
        ticket = speaker.agent_ticket(settings.provider, agent=settings.name, offer=lending.offer())
        return await desk.session(ticket, revision, WAIT_SECONDS)

    name = f"{settings.provider} {settings.name}"
    return BusSession(credentials, name=name, clock=clock, follows_changes=True)


def _assemble(house: _House, stop: Stop) -> _Worker:
    settings, taker = house.settings, house.session.taker()
    services = assemble(
        Adapters(
            meterer=Meterer(settings.provider, settings.name),
            journal=house.journal,
            spool=house.directory / "spool",
            publisher=house.session,
            trust=house.trust,
            speaker=house.speaker,
            place=house.place,
            lent=house.lending.lent,
            is_draining=lambda: stop.level > StopLevel.RUNNING,
            clock=house.clock,
        )
    )
    slots = Slots(
        settings.slots,
        take=taker.take,
        claims=services.claims,
        lives=services.lives,
        handles=services.handles,
        stop=stop,
        clock=house.clock,
    )
    names = ProviderNames(settings.provider)
    tenancy = Tenancy(house.session, taker, services.control, names, pool=settings.pool, worker=settings.name)
    return _Worker(services, slots, tenancy)


def _background(house: _House, worker: _Worker, stop: Stop) -> list[Coroutine[Any, Any, None]]:
    """All that runs beside the slots until they are done."""
    services, tenancy = worker.services, worker.tenancy
    status = StatusFile(house.directory, lambda: _doing(house, worker, stop))
    house.stack.callback(status.remove)
    return [
        house.session.run(),
        house.trust.run(),
        services.logs.run(),
        services.drain_outbox(),
        tenancy.follow(),
        tenancy.tell_when_up(services.outbox.retry_now),
        _every(STATUS_SECONDS, lambda: asyncio.to_thread(status.renew)),
        _every(PRUNE_SECONDS, lambda: _keep_journal(house, services)),
    ]


def _doing(house: _House, worker: _Worker, stop: Stop) -> Doing:
    bus = house.session.status
    tenants = len(worker.tenancy.tenants)
    return Doing(house.clock.now(), bus.is_up, bus.reason, tenants, worker.slots.states, stop.level.name.lower())


async def _every(seconds: float, do: Callable[[], Awaitable[None]]) -> None:
    """Housekeeping: what fails now is tried again next time."""
    while True:
        try:
            await do()
        except (OSError, FedciError) as error:
            _log.warning("housekeeping_failed", reason=str(error))
        await asyncio.sleep(seconds)


async def _keep_journal(house: _House, services: Services) -> None:
    now = house.clock.now()
    await forget_the_old(house.journal, services.logs, now)
    await remind_of_ends(house.journal, services.post, now)


async def _flush(services: Services) -> None:
    """Give the bus a moment to take what is still to be said; the journal keeps the rest."""
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            while await services.has_unsent():  # noqa: ASYNC110 - the end of a list in a database is no event
                await asyncio.sleep(0.1)
    except TimeoutError:
        _log.warning("stopped_with_unsent_messages")


def _serve_metrics(house: _House, worker: _Worker) -> None:
    listen = house.settings.metrics
    if listen is None:
        return
    try:
        server, _ = start_http_server(listen.port, listen.host, worker.services.counts.registry)
    except OSError as error:
        raise OurFault(
            f"cannot listen for metrics ({error.strerror})", where=str(listen), remedy="Choose another address."
        ) from error
    house.stack.callback(server.shutdown)
