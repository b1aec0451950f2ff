"""Reads a RabbitMQ stream from any offset: what was published is read again, and stays for the next reader.

Resumes behind the last entry over every loss of the connection, so that no entry is missed or given twice. Retention
removes whole segments from the front: the first offset read may be higher than the one asked for. RabbitMQ starts at
the chunk that holds the offset; entries before it are left out here (guide "Streams").

A stream is only ever consumed: `basic.get` or a consumer without acknowledgement would close the whole connection.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pamqp.common import FieldTable

from bus.delivery import Fate
from bus.intake import Intake, open_intake
from bus.link import BusFault, Link, working_link
from bus.waiting import BackOff, Watched, first_of
from runtime.clock import Clock
from runtime.logging import get_logger

Offset = int | Literal["first", "last", "next"] | datetime
PREFETCH = 200
_log = get_logger(__name__)


@dataclass(frozen=True)
class StreamEntry:
    """One message of a stream; offsets rise without end, and name an entry for ever."""

    offset: int
    exchange: str
    routing_key: str
    message_type: str
    body: bytes = field(repr=False)


async def read_stream(
    links: Watched[Link | None],
    clock: Clock,
    queue: str,
    offset: Offset = "first",
    *,
    idle_seconds: float | None = None,
) -> AsyncGenerator[StreamEntry, None]:
    """Yield entries from `offset` on; for ever, or until none came for `idle_seconds` while connected.

    Close it with `contextlib.aclosing`. Waits and tries again while the bus is away or the stream is not there.
    """
    back_off, place = BackOff(), offset
    while True:
        link = await working_link(links)
        start: FieldTable = {"x-stream-offset": place}
        try:
            async with open_intake(link, queue, clock, prefetch=PREFETCH, arguments=start) as intake:
                while entries := await _some(intake, idle_seconds):
                    back_off.reset()
                    for entry in entries:
                        if not isinstance(place, int) or entry.offset >= place:
                            place = entry.offset + 1
                            yield entry
                if not intake.has_ended:
                    return
            if intake.fault is not None:
                raise intake.fault
        except BusFault as fault:
            _log.warning("bus_stream_lost", queue=queue, reason=str(fault))
            await first_of(link.ended(), seconds=back_off.next_seconds())


async def _some(intake: Intake, idle_seconds: float | None) -> list[StreamEntry]:
    """Take what is there and give the credit back at once; none at the end, or when nothing came in time."""
    deliveries = await intake.some(PREFETCH, idle_seconds=idle_seconds)
    if deliveries:
        await intake.settle(deliveries, Fate.SETTLED)
    return [
        StreamEntry(
            offset=delivery.stream_offset,
            exchange=delivery.exchange,
            routing_key=delivery.routing_key,
            message_type=delivery.message_type,
            body=delivery.body,
        )
        for delivery in deliveries
    ]
