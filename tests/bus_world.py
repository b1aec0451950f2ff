"""A provider's bus for tests: names declared on a real RabbitMQ, and a desk that the test plays itself."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from typing import TypeVar

import aio_pika
from aio_pika.abc import AbstractConnection

from bus.access import AdminAccess
from bus.provisioner import Provisioner
from bus.session import BusSession, SessionLimits
from bus.topology import BusLimits, ProviderNames, Rights, agent_rights, controller_rights
from bus.waiting import first_of
from runtime.clock import SystemClock
from runtime.http_client import open_client
from runtime.outbox import PublishResult
from schemas.ids import tenant_id
from schemas.refusals import Refusal
from schemas.sessions import BusAddress, SessionGranted
from schemas.wire import from_milliseconds, to_milliseconds

PROVIDER = "alice.example"
DINAH = tenant_id("https://fatima.example", "dinah")
ELIZA = tenant_id("https://georgina.example", "eliza")
NAMES = ProviderNames(PROVIDER)
POOLS = ("fast", "boards")
WORKERS = ("w1", "w7")
DEADLINE_SECONDS = 20.0
QUICK = SessionLimits(first_retry_seconds=0.05, last_retry_seconds=0.5, publish_seconds=10, retire_seconds=0.5)
T = TypeVar("T")


async def soon(work: Awaitable[T]) -> T:
    """Wait for what must happen; a test that waits longer has failed."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await work


class PlayedDesk:
    """Grants sessions as real RabbitMQ users; the test says when it refuses and how long a session lasts."""

    def __init__(self, bus: Bus, rights: Rights) -> None:
        self._bus = bus
        self.rights = rights
        self.user = f"{PROVIDER}:{secrets.token_hex(4)}"
        self.password = secrets.token_urlsafe(24)
        self.refusal: Refusal | None = None
        self.session_seconds = 600.0
        self.revision = 1
        self.tenants: tuple[str, ...] = (DINAH, ELIZA)
        self.address = bus.address()
        self.asked = 0
        self.asked_again = asyncio.Event()
        self._made: set[str] = set()

    async def __call__(self, known_revision: int | None = None) -> SessionGranted | Refusal:
        self.asked += 1
        self.asked_again.set()
        if self.refusal is not None:
            return self.refusal
        if self.user not in self._made:
            await self._bus.provisioner.create_session_user(self.user, self.password, self.rights)
            self._made.add(self.user)
        ends_at = SystemClock().now() + timedelta(seconds=self.session_seconds)
        return SessionGranted(
            provider=PROVIDER,
            bus=self.address,
            user=self.user,
            password=self.password,
            ends_at=from_milliseconds(to_milliseconds(ends_at)),
            revision=self.revision,
            tenants=self.tenants,
            pools=POOLS,
            workers=WORKERS,
        )

    def name_another_user(self) -> None:
        self.user = f"{PROVIDER}:{secrets.token_hex(4)}"

    async def remove_user(self) -> None:
        """As the desk does at the end of a session: all its connections are closed."""
        self._made.discard(self.user)
        await self._bus.provisioner.remove_user(self.user)


class Bus:
    """One vhost with the names of one provider and two tenants."""

    def __init__(self, access: AdminAccess, vhost: str, provisioner: Provisioner, admin: AbstractConnection) -> None:
        self.access = access
        self.vhost = vhost
        self.provisioner = provisioner
        self.admin = admin

    def address(self, port: int | None = None) -> BusAddress:
        return BusAddress(
            host=self.access.amqp_host,
            port=port or self.access.amqp_port,
            vhost=self.vhost,
            is_tls=self.access.amqp_tls,
        )

    def controller(self, tenant: str = DINAH) -> PlayedDesk:
        return PlayedDesk(self, controller_rights(PROVIDER, tenant))

    def worker(self, name: str = "w7", tenants: tuple[str, ...] = (DINAH, ELIZA)) -> PlayedDesk:
        return PlayedDesk(self, agent_rights("worker", PROVIDER, tenants, worker=name, pools=["fast"]))

    def ledger(self) -> PlayedDesk:
        return PlayedDesk(self, agent_rights("ledger", PROVIDER, [DINAH, ELIZA]))

    def desk(self) -> PlayedDesk:
        return PlayedDesk(self, agent_rights("desk", PROVIDER, [DINAH, ELIZA]))

    async def put(self, exchange: str, key: str, *bodies: bytes) -> None:
        """Publish as the administrator, confirmed."""
        async with self.admin.channel() as channel:
            target = await channel.get_exchange(exchange, ensure=False)
            for body in bodies:
                await soon(target.publish(aio_pika.Message(body), key))

    async def count(self, queue: str) -> int:
        """Messages ready in a queue, exactly and now."""
        async with self.admin.channel() as channel:
            declared = await channel.declare_queue(queue, passive=True)
            return declared.declaration_result.message_count or 0

    async def take_all(self, queue: str) -> list[bytes]:
        """Take what is in a queue as the administrator."""
        bodies = []
        async with self.admin.channel() as channel:
            source = await channel.get_queue(queue, ensure=False)
            while message := await source.get(fail=False):
                bodies.append(message.body)
                await message.ack()
        return bodies

    async def declare_again(self, tenant: str = DINAH) -> None:
        await self.provisioner.declare(NAMES.declarations(tenant, POOLS, WORKERS, SMALL))


SMALL = BusLimits(job_messages=5, log_bytes=2000, stream_bytes=10_000_000, stream_segment_bytes=1_000_000)


@contextlib.asynccontextmanager
async def bus_for_tests(access: AdminAccess, vhost: str, *, keeps_users: bool = False) -> AsyncIterator[Bus]:
    async with open_client() as client:
        provisioner = Provisioner(access, vhost, client)
        await provisioner.ensure_vhost()
        for tenant in (DINAH, ELIZA):
            await provisioner.declare(NAMES.declarations(tenant, POOLS, WORKERS, SMALL))
        admin = await aio_pika.connect(access.amqp_url(vhost))
        try:
            yield Bus(access, vhost, provisioner, admin)
        finally:
            await admin.close()
            for user in [] if keeps_users else await provisioner.list_session_users(f"{PROVIDER}:"):
                await provisioner.remove_user(user)


@contextlib.asynccontextmanager
async def running(
    desk: PlayedDesk, *, bounds: SessionLimits = QUICK, follows_changes: bool = False
) -> AsyncIterator[BusSession]:
    """A session that runs for the length of the block and is closed in order; it need not be up yet."""
    session = BusSession(desk, name="a test", clock=SystemClock(), bounds=bounds, follows_changes=follows_changes)
    task = asyncio.create_task(session.run())
    try:
        yield session
        await soon(session.close())
        await soon(task)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def kick(bus: Bus, desk: PlayedDesk, session: BusSession) -> None:
    """Close the session's connections from the server's side, and return when the session has noticed.

    RabbitMQ finds only connections that it has registered already, a moment after it opened them.
    """
    up = session.status
    while session.status == up:
        await bus.provisioner.close_connections(desk.user, "a test")
        await first_of(session.status_changed(up), seconds=0.5)


async def say(session: BusSession, exchange: str, key: str = "", body: bytes = b"envelope") -> PublishResult:
    return await soon(session.publish(exchange, key, body, message_type="fedci.test/1", correlation_id="a1"))
