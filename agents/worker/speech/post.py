"""Where the worker's messages go: which exchange, which key, with which properties.

Names come from `bus.topology` alone. Heartbeats and log chunks are published at once and never stored here; all else
goes through the outbox, whose destinations are the texts that this module writes and reads.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from agents.worker.journal.claims import Outgoing
from agents.worker.ports import Publisher
from bus.topology import FANOUT_KEY, ProviderNames, usage_key
from runtime.clock import Clock
from runtime.errors import WorldFault
from runtime.outbox import Later, OutboxMessage, PublishResult, Rejected, Sent
from schemas import frame, limits
from schemas.frame import UnverifiedFrame


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a message that must go out before anything else happens is tried."""

    publish_seconds: float = limits.GRANT_SECONDS
    retry_seconds: float = 0.5
    pause_seconds: float = 1.0
    """After something was given back: the bus would bring it again at once."""


KEEP_DAYS = 14
"""A customer that has not been there for so long will not come for its results any more."""


class Post:
    def __init__(self, publisher: Publisher, names: ProviderNames) -> None:
        self._publisher = publisher
        self._names = names

    # -- at once

    async def reply(
        self, tenant: str, body: bytes, *, attempt: str, expires_after: timedelta | None = None
    ) -> PublishResult:
        """Publish a report to the tenant now."""
        return await self._publish(self._names.replies(tenant), FANOUT_KEY, body, attempt, expires_after)

    async def log(self, tenant: str, body: bytes, *, attempt: str) -> PublishResult:
        return await self._publish(self._names.logs(tenant), FANOUT_KEY, body, attempt)

    # -- through the outbox

    def to_tenant(self, tenant: str, body: bytes, *, attempt: str, now: datetime) -> Outgoing:
        """A report, or the copy of a usage event, for the outbox."""
        return _outgoing(self._names.replies(tenant), FANOUT_KEY, body, attempt, now)

    def to_billing(self, tenant: str, meter: str, body: bytes, *, attempt: str, now: datetime) -> Outgoing:
        return _outgoing(self._names.billing_exchange, usage_key(tenant, meter), body, attempt, now)

    async def publish_stored(self, message: OutboxMessage) -> PublishResult:
        """Publish what the outbox holds: the `publish` of `runtime.outbox`."""
        exchange, _, routing_key = message.destination.partition(" ")
        return await self._publish(exchange, routing_key, message.body, message.correlation_id)

    async def _publish(
        self, exchange: str, routing_key: str, body: bytes, attempt: str, expires_after: timedelta | None = None
    ) -> PublishResult:
        parts = frame.split(body)
        if not isinstance(parts, UnverifiedFrame):
            return Rejected(f"our own envelope cannot be read: {parts}")
        return await self._publisher.publish(
            exchange,
            routing_key,
            body,
            message_type=parts.type,
            correlation_id=attempt,
            expires_after=expires_after,
        )


def _outgoing(exchange: str, routing_key: str, body: bytes, attempt: str, now: datetime) -> Outgoing:
    # A space stands in no exchange's name, so the text has one reading.
    return Outgoing(f"{exchange} {routing_key}", body, attempt, now + timedelta(days=KEEP_DAYS))


async def publish_until(
    publish: Callable[[], Awaitable[PublishResult]], until: float, clock: Clock, patience: Patience
) -> bool:
    """Publish again and again until the bus has it; False when it had not by `until` (CLOCK_BOOTTIME).

    At least once: what was not confirmed may have arrived.
    """
    while (seconds_left := until - clock.boottime()) > 0:
        if isinstance(await _publish_within(publish, seconds_left), Sent):
            return True
        await asyncio.sleep(min(patience.retry_seconds, seconds_left))
    return False


async def _publish_within(publish: Callable[[], Awaitable[PublishResult]], seconds: float) -> PublishResult:
    try:
        async with asyncio.timeout(seconds):
            return await publish()
    except TimeoutError:
        return Later("no confirm in time")
    except WorldFault as error:
        return Later(str(error))
