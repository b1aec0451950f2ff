"""Publishes to one bus over one link: confirmed, mandatory, and answered with a value.

Each exchange has a channel of its own: RabbitMQ closes a channel on which a name was refused, and everything in flight
on it would fail although it may have arrived. Channels are kept while they are used; the one idle longest is closed
when there are many.

Rules: persistent; a fresh message id for every send, because RabbitMQ's returns are matched to sends by it; the
attempt travels as correlation id; AMQP expiration only where it is asked for (DESIGN §6). Never repeated here: a send
without an answer is `Later` and may have arrived, so receivers dedupe.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

from aio_pika import DeliveryMode, Message
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel as RawChannel
from aiormq.exceptions import DeliveryError

from bus.link import CALL_SECONDS, BusFault, Link, LinkLost, NameRefused, fault_of, within
from runtime.outbox import Later, PublishResult, Rejected, Sent, Unroutable
from schemas import ids

CONTENT_TYPE = "application/msgpack"
MAX_CHANNELS = 64
FULL = "a queue it goes to is full"


@dataclass(frozen=True)
class Outgoing:
    """One message on its way: where to, the envelope, and what is written beside it for logs and people."""

    exchange: str
    routing_key: str
    body: bytes = field(repr=False)
    message_type: str
    correlation_id: str
    expires_after: timedelta | None = None

    def to_amqp(self) -> Message:
        return Message(
            self.body,
            content_type=CONTENT_TYPE,
            delivery_mode=DeliveryMode.PERSISTENT,
            message_id=ids.new_message_id(),
            correlation_id=self.correlation_id,
            type=self.message_type,
            expiration=self.expires_after,
        )


class _Lane:
    """The channel of one exchange."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: RawChannel | None = None
        self._is_proven = False
        self._trying = asyncio.Lock()
        self.in_flight = 0

    async def send(self, message: Outgoing, seconds: float) -> PublishResult:
        """Send many at a time, but the first on each channel alone: a refused name shows there.

        What is written to a channel after RabbitMQ closed it costs the whole connection, and the library has a gap in
        which it lets that happen.
        """
        if (channel := self._proven_channel()) is not None:
            return await _send(channel, message, seconds)
        async with self._trying:
            if (channel := self._proven_channel()) is None:
                answer = await _send(await self._fresh_channel(), message, seconds)
                self._is_proven = True
                return answer
        return await _send(channel, message, seconds)

    async def _fresh_channel(self) -> RawChannel:
        self._is_proven = False
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._link.publishing_channel()
        return self._channel

    def _proven_channel(self) -> RawChannel | None:
        channel = self._channel
        return channel if channel is not None and self._is_proven and not channel.is_closed else None

    async def close(self) -> None:
        if self._channel is not None:
            with contextlib.suppress(BusFault):
                await within(CALL_SECONDS, self._channel.close(), "closing a channel")


class Publisher:
    """Sends on one link; ends with it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()

    async def publish(self, message: Outgoing, seconds: float) -> PublishResult:
        """Send once and wait at most `seconds` for the answer; cancelling leaves it sent or not sent."""
        try:
            async with asyncio.timeout(seconds), self._lane(message.exchange) as lane:
                await self._link.unblocked(seconds / 2)
                return await lane.send(message, seconds)
        except TimeoutError:
            return Later(f"no confirm within {seconds:g} s")
        except NameRefused as refusal:
            return Unroutable(str(refusal)) if refusal.is_missing else Rejected(str(refusal))
        except BusFault as fault:
            return Later(str(fault))

    @contextlib.asynccontextmanager
    async def _lane(self, exchange: str) -> AsyncIterator[_Lane]:
        lane = self._lanes.setdefault(exchange, _Lane(self._link))
        self._lanes.move_to_end(exchange)
        lane.in_flight += 1
        try:
            await self._close_surplus()
            yield lane
        finally:
            lane.in_flight -= 1

    async def _close_surplus(self) -> None:
        idle = [exchange for exchange, lane in self._lanes.items() if not lane.in_flight]
        for exchange in idle[: max(0, len(self._lanes) - MAX_CHANNELS)]:
            await self._lanes.pop(exchange).close()


async def _send(channel: RawChannel, message: Outgoing, seconds: float) -> PublishResult:
    what = f"publishing to {message.exchange or 'the default exchange'}"
    try:
        return await within(seconds, _publish(channel, message), what)
    except LinkLost:
        # One that came just after RabbitMQ closed the channel hears only that; why, the channel knows.
        if channel.is_closed and channel.closing.done() and not channel.closing.cancelled():
            raise fault_of(channel.closing.exception(), what) from None
        raise


async def _publish(channel: RawChannel, message: Outgoing) -> PublishResult:
    amqp = message.to_amqp()
    try:
        answer: object = await channel.basic_publish(
            amqp.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            properties=amqp.properties,
            mandatory=True,
        )
    except DeliveryError:
        return Rejected(FULL)
    return Unroutable() if isinstance(answer, DeliveredMessage) else Sent()
