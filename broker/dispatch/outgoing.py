"""What leaves the controller: every message is a row of the outbox before it is anywhere else (DESIGN §7).

A destination is `provider/lane/key`; lanes do not wait for each other, so a full queue of one pool stops neither the
other pools nor a cancel. What RabbitMQ is told about a message (type, correlation, expiry) is a hint for operators;
only the envelope counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol, cast

from sqlalchemy.ext.asyncio import AsyncSession

from broker.store import outbox as outbox_store
from bus.topology import FANOUT_KEY, ProviderNames, control_key, jobs_key
from runtime.clock import Clock
from runtime.outbox import Later, OutboxMessage, PublishResult
from runtime.outbox_table import OutboxTable
from schemas import frame
from schemas.refusals import Refusal

_SHORTEST = timedelta(milliseconds=1)
Lane = Literal["jobs", "control", "receipts"]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a message goes: at a provider, a pool (`jobs`), a worker (`control`), or its ledger (`receipts`)."""

    provider: str
    lane: Lane
    key: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.lane}/{self.key}"

    @classmethod
    def parse(cls, text: str) -> "Destination":
        provider, lane, key = text.split("/")
        return cls(provider, cast(Lane, lane), key)

    def address(self, tenant: str) -> tuple[str, str]:
        """The exchange and the routing key."""
        names = ProviderNames(self.provider)
        match self.lane:
            case "jobs":
                return names.jobs_exchange(tenant), jobs_key(self.key)
            case "control":
                return names.control_exchange(tenant), control_key(self.key)
            case "receipts":
                return names.receipts_exchange(tenant), FANOUT_KEY


class Outgoing:
    """Puts signed messages into the outbox, as part of the caller's transaction."""

    def __init__(self, table: OutboxTable) -> None:
        self._table = table

    def job(
        self, session: AsyncSession, provider: str, pool: str, raw: bytes, attempt: str, expires_at: datetime
    ) -> None:
        self._put(session, Destination(provider, "jobs", pool), raw, attempt, expires_at)

    def order(
        self, session: AsyncSession, provider: str, worker: str, raw: bytes, attempt: str, expires_at: datetime
    ) -> None:
        self._put(session, Destination(provider, "control", worker), raw, attempt, expires_at)

    def receipt(self, session: AsyncSession, provider: str, raw: bytes, receipt_id: str) -> None:
        self._put(session, Destination(provider, "receipts", "all"), raw, receipt_id, None)

    async def withdraw(self, session: AsyncSession, attempt: str, why: str) -> None:
        """Take back what has not left yet about an attempt: nobody is to run it any more."""
        waiting = await outbox_store.waiting_about(session, attempt)
        await self._table.give_up_in(session, waiting, why)

    def _put(
        self, session: AsyncSession, to: Destination, raw: bytes, correlation_id: str, expires_at: datetime | None
    ) -> None:
        self._table.enqueue(
            session, destination=str(to), body=raw, correlation_id=correlation_id, expires_at=expires_at
        )


class PublishingSession(Protocol):
    """What the outbox needs of a session at a bus (`bus.session.BusSession`)."""

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        message_type: str,
        correlation_id: str,
        expires_after: timedelta | None = None,
    ) -> PublishResult: ...


class Publisher:
    """Hands outbox messages to the session of their provider."""

    def __init__(self, tenant: str, find: Callable[[str], PublishingSession | None], clock: Clock) -> None:
        self._tenant = tenant
        self._find = find
        self._clock = clock

    async def publish(self, message: OutboxMessage) -> PublishResult:
        """Publish one message; at least once, its answer is the bus's."""
        to = Destination.parse(message.destination)
        session = self._find(to.provider)
        if session is None:
            return Later(f"there is no session at {to.provider}")
        exchange, routing_key = to.address(self._tenant)
        left = None if message.expires_at is None else message.expires_at - self._clock.now()
        return await session.publish(
            exchange,
            routing_key,
            message.body,
            message_type=_type_of(message.body),
            correlation_id=message.correlation_id,
            expires_after=None if left is None else max(left, _SHORTEST),
        )


def _type_of(body: bytes) -> str:
    taken_apart = frame.split(body)
    return "" if isinstance(taken_apart, Refusal) else taken_apart.type
