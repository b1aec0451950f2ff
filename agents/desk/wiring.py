"""Puts a desk together: settings, keys, database, trust, RabbitMQ's management, the HTTP face, and its own bus session.

The directory holds `desk.toml`, `root.key`, `agent.key`, `users.secret`, `desk.sqlite` and what the settings name as
secrets. `serve` prepares the provider's own part of the bus before it answers anybody.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry

from agents.desk import setup, store
from agents.desk.app import DeskApp, build_app
from agents.desk.bus_users import BusUsers
from agents.desk.dead_letters import DeadLetters
from agents.desk.publications import Publications
from agents.desk.sessions import Sessions
from agents.desk.settings import FILE, DeskSettings
from agents.desk.sweeper import Sweeper
from bus.access import AdminAccess
from bus.provisioner import Provisioner
from bus.session import BusSession, Delivery, Fate
from bus.topology import FANOUT_KEY, ProviderNames
from identity.account import Account, read_api_token
from identity.keys import SigningKey
from identity.speech import Speaker
from identity.trust import Trust
from runtime.clock import Clock, SystemClock
from runtime.database import Database
from runtime.errors import WorldFault
from runtime.http_client import open_client
from runtime.http_guards import guarded
from runtime.http_probes import probe_routes
from runtime.http_server import serve_http
from runtime.lifecycle import Stop, announce_ready
from runtime.listening import bind
from runtime.logging import get_logger
from runtime.migrations import upgrade
from runtime.outbox import Later, PublishResult
from runtime.secrets import read_secret
from runtime.settings import TlsFiles, load
from schemas import limits
from schemas.refusals import Refusal
from schemas.reports import Refused
from schemas.sessions import BusAddress, SessionGranted

ROLE = "desk"
LONG_POLL_SECONDS = 60.0
Publish = Callable[..., Awaitable[PublishResult]]
_log = get_logger(__name__)


@dataclass(frozen=True)
class _Desk:
    """The parts that the tasks of a running desk share."""

    settings: DeskSettings
    sessions: Sessions
    sweeper: Sweeper
    trust: Trust
    app: DeskApp
    letters: DeadLetters
    provisioner: Provisioner
    clock: Clock


async def serve(directory: Path, stop: Stop) -> None:
    """Run the desk until `stop` drains and every request is answered.

    Raises OurFault (also as SettingsError or CannotListen) when a person must act first; a RabbitMQ that is away at the
    start is a WorldFault.
    """
    settings = load(directory / FILE, DeskSettings)
    bound = bind(settings.listen, _tls(directory, settings))
    async with AsyncExitStack() as stack:
        desk = await _build(stack, directory, settings)
        await desk.provisioner.ensure_vhost()
        await desk.provisioner.declare(ProviderNames(settings.provider).provider_declarations())
        bus = _own_session(desk)
        routes = probe_routes({"bus": lambda: _bus_check(bus)}, CollectorRegistry())
        app = guarded(
            build_app(desk.app, list(routes)),
            body_bytes=limits.MESSAGE_BYTES,
            deadline_seconds_by_prefix={"/session": LONG_POLL_SECONDS},
        )
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(work()) for work in (desk.trust.run, desk.sweeper.run, bus.run)]
            tasks.create_task(_answer_all_when_stopping(desk.sessions, stop))
            await serve_http(app, bound, stop, ready=lambda url: announce_ready(directory, ROLE, {"http": url}))
            for task in background:
                task.cancel()


async def _answer_all_when_stopping(sessions: Sessions, stop: Stop) -> None:
    await stop.draining()
    await sessions.answer_all()


async def _build(stack: AsyncExitStack, directory: Path, settings: DeskSettings) -> _Desk:
    clock = SystemClock()
    database = Database.open(directory / setup.DATABASE)
    stack.push_async_callback(database.close)
    await upgrade(directory / setup.DATABASE, setup.MIGRATIONS)
    http = await stack.enter_async_context(open_client())
    root, own = SigningKey.load(directory / setup.ROOT_KEY), SigningKey.load(directory / setup.AGENT_KEY)
    async with database.write() as session:
        # The owner may have added accounts since `init`; controllers believe the desk under those on its card.
        await store.enrol(session, setup.itself(settings, own), clock.now())
    trust = Trust(settings.issuers, client=http, clock=clock)
    provisioner = Provisioner(_access(directory, settings), settings.bus.vhost, http)
    users = BusUsers(
        settings.provider,
        provisioner,
        read_secret(directory / setup.USERS_SECRET),
        connections=settings.sessions.connections,
        channels=settings.sessions.channels,
    )
    sessions = Sessions(
        provider=settings.provider,
        address=_address(directory, settings),
        database=database,
        provisioner=provisioner,
        users=users,
        trust=trust,
        policies={issuer.url: issuer.policy for issuer in settings.issuers},
        session_seconds=settings.sessions.seconds,
        clock=clock,
    )
    store_ca = (directory / settings.store_ca_file).read_text("ascii") if settings.store_ca_file else None
    idle = timedelta(days=settings.sessions.idle_days)
    speaker = _speaker(directory, settings, own, http, clock)
    return _Desk(
        settings=settings,
        sessions=sessions,
        sweeper=Sweeper(sessions, database, trust, clock, idle=idle),
        trust=trust,
        app=DeskApp(sessions, Publications(settings, root, database, clock, store_ca), root),
        letters=DeadLetters(settings.provider, settings.name, speaker, database, clock),
        provisioner=provisioner,
        clock=clock,
    )


def _access(directory: Path, settings: DeskSettings) -> AdminAccess:
    bus = settings.bus
    password = read_secret(directory / bus.admin_password_file).decode("utf-8").strip()
    return AdminAccess(bus.api_url.rstrip("/"), bus.admin_user, password, bus.host, bus.port, bus.tls)


def _address(directory: Path, settings: DeskSettings) -> BusAddress:
    bus = settings.bus
    ca = (directory / bus.ca_file).read_text("ascii") if bus.ca_file else None
    return BusAddress(host=bus.host, port=bus.port, vhost=bus.vhost, is_tls=bus.tls, ca=ca)


def _tls(directory: Path, settings: DeskSettings) -> TlsFiles | None:
    tls = settings.tls
    return tls and TlsFiles(certificate=directory / tls.certificate, key=directory / tls.key)


def _speaker(
    directory: Path, settings: DeskSettings, key: SigningKey, http: httpx.AsyncClient, clock: Clock
) -> Speaker:
    accounts = [
        Account(
            issuer=account.url,
            sub=account.sub,
            api_token=read_api_token(directory / account.api_token_file),
            key=key,
            client=http,
            clock=clock,
        )
        for account in settings.accounts
    ]
    return Speaker(accounts, key=key, clock=clock)


def _own_session(desk: _Desk) -> BusSession:
    """The desk's own session at its bus, which reads the dead letters and answers each."""

    async def credentials(_revision: int | None) -> SessionGranted | Refusal:
        return await desk.sessions.for_desk(desk.settings.name)

    bus = BusSession(credentials, name=f"{desk.settings.provider} {desk.settings.name}", clock=desk.clock)
    bus.consume(ProviderNames(desk.settings.provider).dead_queue, answering(desk.letters, bus.publish))
    return bus


def answering(letters: DeadLetters, publish: Publish) -> Callable[[Delivery], Awaitable[Fate]]:
    """The handler of dead letters. No tenant's trouble, nor its issuer's, holds up the letters of the others."""

    async def answer(delivery: Delivery) -> Fate:
        try:
            made = await letters.answer(delivery.body, delivery.routing_key)
        except WorldFault as fault:
            _log.warning("dead_letter_waits", why=str(fault))
            return Fate.RETRY
        if isinstance(made, Refusal):
            _log.warning("dead_letter_unanswered", reason=made.reason, detail=made.detail)
            return Fate.SETTLED
        result = await publish(
            made.exchange,
            FANOUT_KEY,
            made.body,
            message_type=Refused.TYPE,
            correlation_id=made.attempt or "",
        )
        _log.info("dead_letter_answered", attempt=made.attempt, reason=made.reason, result=type(result).__name__)
        # A tenant that does not read its replies has none but itself to blame: its order runs out by its own clock.
        return Fate.RETRY if isinstance(result, Later) else Fate.SETTLED

    return answer


async def _bus_check(bus: BusSession) -> str | None:
    return None if bus.status.is_up else bus.status.reason
