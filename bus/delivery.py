"""What RabbitMQ handed over, and the one fate that each delivery gets.

| fate | tells RabbitMQ | means |
|---|---|---|
| `SETTLED` | ack | the effect is durable; the message is gone |
| `RETRY` | nack, requeue | somebody else, or we later, shall have it |
| `DEAD` | reject | to the dead letters, where the queue has them; else it is dropped |

A delivery belongs to the channel it came on. When that is gone, RabbitMQ hands the message out again, and settling the
old delivery is no error but the value False: the effect may be done twice, so effects dedupe (DESIGN §5).
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from aiormq.abc import AbstractChannel as RawChannel
from aiormq.abc import DeliveredMessage

from bus.link import BusFault, within

SETTLE_SECONDS = 5.0


class Fate(Enum):
    """What becomes of a delivery."""

    SETTLED = "settled"
    RETRY = "retry"
    DEAD = "dead"


@dataclass(eq=False)
class Delivery:
    """A message that this process answers for until it is settled.

    `exchange` is where it was published: its origin, as far as RabbitMQ's rights go (DESIGN §6). `message_type` and
    `correlation_id` are what the sender wrote beside the envelope: good for logs, evidence of nothing. `stream_offset`
    is -1 where the queue is no stream.
    """

    queue: str
    body: bytes
    exchange: str
    routing_key: str
    redelivered: bool
    message_type: str
    correlation_id: str
    received_at: datetime
    tag: int
    stream_offset: int
    _channel: RawChannel = field(repr=False)
    fate: Fate | None = None

    @classmethod
    def of(cls, message: DeliveredMessage, queue: str, received_at: datetime) -> "Delivery":
        properties = message.header.properties
        return cls(
            queue=queue,
            body=message.body,
            exchange=message.exchange or "",
            routing_key=message.routing_key or "",
            redelivered=bool(message.redelivered),
            message_type=str(properties.message_type or "")[:100],
            correlation_id=str(properties.correlation_id or "")[:100],
            received_at=received_at,
            tag=message.delivery_tag or 0,
            stream_offset=_stream_offset(properties.headers),
            _channel=message.channel,
        )

    @property
    def is_open(self) -> bool:
        """Whether a fate can still be told to RabbitMQ."""
        return self.fate is None and not self._channel.is_closed

    async def settle(self, fate: Fate) -> bool:
        """Tell RabbitMQ the delivery's fate; False when it was told before, or the channel is gone.

        True says that it was written, not that it arrived: RabbitMQ does not answer. Should the connection break
        now, the message may come again.
        """
        if not self.is_open:
            return False
        self.fate = fate
        return await _tell(self._channel, self.tag, fate)

    async def ack(self) -> bool:
        return await self.settle(Fate.SETTLED)

    async def reject(self) -> bool:
        return await self.settle(Fate.DEAD)

    async def requeue(self) -> bool:
        return await self.settle(Fate.RETRY)


def _stream_offset(headers: object) -> int:
    offset = headers.get("x-stream-offset", -1) if isinstance(headers, dict) else -1
    return offset if isinstance(offset, int) else -1


async def settle_up_to(deliveries: list[Delivery]) -> bool:
    """Acknowledge all with one frame. They are everything unsettled on their channel up to the last one's tag."""
    last = deliveries[-1]
    if not last.is_open:
        return False
    for delivery in deliveries:
        delivery.fate = Fate.SETTLED
    return await _tell(last._channel, last.tag, Fate.SETTLED, multiple=True)  # noqa: SLF001 – the same module


async def _tell(channel: RawChannel, tag: int, fate: Fate, *, multiple: bool = False) -> bool:
    try:
        await within(SETTLE_SECONDS, _frame(channel, tag, fate, multiple), "settling a delivery")
    except BusFault:
        return False
    # The library only queues the frame; its writer gets a turn before we go on.
    await asyncio.sleep(0)
    return True


def _frame(channel: RawChannel, tag: int, fate: Fate, multiple: bool) -> Awaitable[None]:
    match fate:
        case Fate.SETTLED:
            return channel.basic_ack(tag, multiple=multiple, wait=False)
        case Fate.RETRY:
            return channel.basic_nack(tag, requeue=True, wait=False)
        case Fate.DEAD:
            return channel.basic_reject(tag, requeue=False, wait=False)
