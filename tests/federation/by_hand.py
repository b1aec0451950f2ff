"""A customer who speaks for herself, past her controller: with her own account, key and session at a provider's bus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aio_pika
import msgpack
from aio_pika.abc import AbstractQueue

from bus.access import AdminAccess
from bus.desk_client import DeskClient
from bus.session import BusSession
from bus.topology import ProviderNames, control_key, jobs_key
from fedci.federation.cast import Customer, Provider
from fedci.federation.trespass import Member
from identity.speech import Speaker
from runtime.clock import SystemClock
from runtime.outbox import PublishResult, Sent
from schemas.ids import new_attempt_id, new_run_id, provider_audience, sha256_hex
from schemas.orders import Job, Order, Source, Step
from schemas.refusals import Refusal
from schemas.sessions import SessionGranted
from schemas.tickets import SessionTicket
from tests.federation.ground import Ground
from tests.federation.projects import snapshot

TAR = snapshot({"README": b"by hand\n"})


@dataclass(frozen=True)
class ByHand:
    """One customer at one provider's bus, publishing on her own exchanges."""

    member: Member
    provider: Provider
    speaker: Speaker
    bus: BusSession
    rate_card: str

    @property
    def names(self) -> ProviderNames:
        return ProviderNames(self.provider.name)

    async def offer(self, body: bytes, *, expires_after: timedelta | None = None) -> None:
        """Put something where jobs are expected; the bus takes it."""
        exchange, key = self.names.jobs_exchange(self.member.tenant), jobs_key(self.provider.pool)
        await self._publish(exchange, key, body, expires_after)

    async def tell_worker(self, body: bytes) -> None:
        """Put something where orders about claims are expected; the bus takes it."""
        await self._publish(self.names.control_exchange(self.member.tenant), control_key(self.provider.agent), body)

    async def _publish(self, exchange: str, key: str, body: bytes, expires_after: timedelta | None = None) -> None:
        sent: PublishResult = await self.bus.publish(
            exchange, key, body, message_type=Job.TYPE, correlation_id="by hand", expires_after=expires_after
        )
        assert isinstance(sent, Sent), sent

    async def order(self, model: type[Order], **fields: Any) -> bytes:
        return await self.speaker.order(self.provider.name, model, **fields)

    async def job(self, **changes: Any) -> bytes:
        """A job that this provider would take, but for the changes."""
        fields: dict[str, Any] = {
            "attempt": new_attempt_id(),
            "number": 1,
            "project": "by-hand",
            "run": new_run_id(),
            "name": "job",
            "pool": self.provider.pool,
            "steps": (Step(name="true", run="true"),),
            "source": Source(digest=sha256_hex(TAR), size_bytes=len(TAR), revision="none", inline=TAR),
            "rate_card": self.rate_card,
        }
        return await self.order(Job, **(fields | changes))


@asynccontextmanager
async def by_hand(ground: Ground, customer: Customer, provider: Provider) -> AsyncIterator[ByHand]:
    """The customer at this provider's bus, for the length of a block."""
    member, clock = ground.story.member(customer), SystemClock()
    speaker = Speaker([member.account], key=member.key, clock=clock)
    desk = DeskClient(ground.places.url("desks", provider.person), ground.http)

    async def credentials(_revision: int | None) -> SessionGranted | Refusal:
        return await desk.session(await speaker.ticket(provider_audience(provider.name), SessionTicket))

    bus = BusSession(credentials, name=f"{customer.person} by hand", clock=clock)
    known = await ground.projects[customer.person].client.providers()
    rate_card = next(each.rate_card for each in known if each.name == provider.name)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(bus.run())
        async with asyncio.timeout(20):
            await bus.up()
        yield ByHand(member, provider, speaker, bus, rate_card)
        await bus.close()
        running.cancel()


@asynccontextmanager
async def copies(access: AdminAccess, provider: Provider, exchange: str, key: str = "") -> AsyncIterator[AbstractQueue]:
    """A queue that gets a copy of what passes an exchange: only RabbitMQ's administrator can make one."""
    connection = await aio_pika.connect(access.amqp_url(provider.name))
    async with connection, connection.channel() as channel:
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, key)
        yield queue


async def next_of(queue: AbstractQueue) -> bytes:
    async with asyncio.timeout(20), queue.iterator(no_ack=True) as messages:
        async for message in messages:
            return message.body
    raise AssertionError("the queue is gone")


def envelope(message_type: str, payload: bytes = b"\x80") -> bytes:
    """An envelope in shape; nobody signed it."""
    packed: bytes = msgpack.packb([1, message_type, payload, bytes(64), None], use_bin_type=True)
    return packed
