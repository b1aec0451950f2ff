"""One consumer on one channel of one link: what arrived and was not yet handled, and when there was nothing more.

An intake lives as long as its channel and never heals; its owner opens the next. It ends when the link does, when the
channel closes, when RabbitMQ cancels the consumer (its queue was deleted), or when it is told to. What had arrived and
was not settled is then handed out again by RabbitMQ, to somebody.

**Read to the end.** `look_for_the_end` asks the queue twice for one more message (`basic.get`, which needs no right
but to read). Two empty answers say that everything that was in the queue at the time of the first question has been
handed to this channel: the second answer travels behind what the first overtook. Once all of that is settled, the
queue was read to its end as of that time, and the owner's `read_to_end` says so. A passive declare would tell the
same, but needs `configure` on some versions of RabbitMQ. What other readers of the same queue hold is not seen.
"""

import asyncio
import contextlib
from bisect import insort
from collections import deque
from collections.abc import AsyncIterator
from datetime import datetime
from operator import attrgetter

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel as RawChannel
from pamqp.commands import Basic
from pamqp.common import FieldTable

from bus.delivery import Delivery, Fate, settle_up_to
from bus.link import CALL_SECONDS, CLOSE_SECONDS, BusFault, Link, LinkLost, fault_of, within
from bus.waiting import Watched
from runtime.clock import Clock


class Tally:
    """Which delivery tags of a channel are settled; they count up from 1 without a gap (AMQP 0-9-1 §1.8.3.13)."""

    def __init__(self) -> None:
        self._settled_below = 1
        self._settled_beyond: set[int] = set()

    def mark(self, tag: int) -> None:
        self._settled_beyond.add(tag)
        while self._settled_below in self._settled_beyond:
            self._settled_beyond.remove(self._settled_below)
            self._settled_below += 1

    def is_settled_up_to(self, tag: int) -> bool:
        return tag < self._settled_below

    def covers_all_up_to_last(self, tags: list[int]) -> bool:
        """Whether acknowledging up to the last of these ascending tags would touch these and settled ones only."""
        return tags == list(range(self._settled_below, self._settled_below + len(tags)))


class Intake:
    """Deliveries of one queue, in the order of the channel. Made by `open_intake`."""

    def __init__(
        self, link: Link, channel: RawChannel, queue: str, clock: Clock, read_to_end: Watched[datetime | None]
    ) -> None:
        self.queue = queue
        self._link = link
        self._channel = channel
        self._clock = clock
        self._arrived: deque[Delivery] = deque()
        self._changed = asyncio.Event()
        self._tally = Tally()
        self._last_tag = 0
        self._fault: BusFault | None = None
        self._is_told_to_end = False
        self._tag = ""
        self._marks: deque[tuple[int, datetime]] = deque()
        self._read_to_end = read_to_end

    @property
    def has_ended(self) -> bool:
        return self._is_told_to_end or self._fault is not None or self._link.has_ended or self._channel.is_closed

    @property
    def fault(self) -> BusFault | None:
        """Why it ended by itself; None while it goes on, and when the link ended or its owner gave it up."""
        if self._fault is None and self._channel.is_closed and not self._is_told_to_end and not self._link.has_ended:
            closing = self._channel.closing
            error = closing.exception() if closing.done() and not closing.cancelled() else None
            self._fault = fault_of(error, f"the channel of {self.queue} was closed")
        return self._fault

    def end(self) -> None:
        """Take nothing more out; whoever waits wakes up."""
        if self.fault is None:
            self._is_told_to_end = True
        self._changed.set()

    def fail(self, fault: BusFault) -> None:
        """End it for a reason that its watcher found."""
        self._fault = self._fault or fault
        self._changed.set()

    async def some(self, most: int, *, linger_seconds: float = 0, idle_seconds: float | None = None) -> list[Delivery]:
        """Wait for deliveries and take up to `most`; none at the end, or when none came for `idle_seconds`.

        After the first one it lingers for more. Cancelling takes nothing.
        """
        await self._wait_for(1, idle_seconds)
        if self._arrived and linger_seconds:
            await self._wait_for(most, linger_seconds)
        if self.has_ended:
            return []
        return [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]

    async def ended_within(self, seconds: float) -> bool:
        """Wait for the end, but not longer than that; whether it has come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.has_ended:
                    await self._next_change()
        return self.has_ended

    async def settle(self, deliveries: list[Delivery], fate: Fate) -> None:
        """Give all of them this fate, with one frame where that touches no other."""
        tags = [delivery.tag for delivery in deliveries]
        if fate is Fate.SETTLED and self._tally.covers_all_up_to_last(tags):
            await settle_up_to(deliveries)
        else:
            for delivery in deliveries:
                await delivery.settle(fate)
        if fate is Fate.RETRY:
            self._marks.clear()  # it goes back into the queue: the end was not reached
        for tag in tags:
            self._tally.mark(tag)
        self._reach_marks()

    async def look_for_the_end(self, room: int) -> None:
        """Note the time if there is nothing more in the queue; else take one more delivery, where there is room.

        Raises BusFault when the channel does not answer or the consumer is not there any more.
        """
        if self._tag not in self._channel.consumers:
            raise LinkLost("the consumer is not registered any more")
        if len(self._arrived) >= room:
            return
        asked_at = self._clock.now()
        if await self._is_empty() and await self._is_empty():
            self._marks.append((self._last_tag, asked_at))
            self._reach_marks()

    async def consume(self, arguments: FieldTable | None = None) -> None:
        self._channel.on_consumer_cancel_callbacks.add(self._on_cancelled)
        self._channel.closing.add_done_callback(lambda _: self._changed.set())
        consuming = self._channel.basic_consume(self.queue, self._on_message, arguments=arguments)
        answer = await within(CALL_SECONDS, consuming, f"consuming {self.queue}")
        self._tag = answer.consumer_tag or ""

    async def close(self) -> None:
        """Cancel the consumer and close the channel; what was not settled goes back to the queue."""
        self.end()
        with contextlib.suppress(BusFault):
            if not self._channel.is_closed and self._tag in self._channel.consumers:
                await within(CLOSE_SECONDS, self._channel.basic_cancel(self._tag), "cancelling a consumer")
        with contextlib.suppress(BusFault):
            await within(CLOSE_SECONDS, self._channel.close(), "closing a channel")

    def wake(self) -> None:
        self._changed.set()

    async def _wait_for(self, deliveries: int, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self._arrived) < deliveries and not self.has_ended:
                    await self._next_change()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _is_empty(self) -> bool:
        message = await within(CALL_SECONDS, self._channel.basic_get(self.queue), f"reading {self.queue}")
        if isinstance(message.delivery, Basic.GetEmpty):
            return True
        await self._on_message(message)
        return False

    async def _on_message(self, message: DeliveredMessage) -> None:
        delivery = Delivery.of(message, self.queue, self._clock.now())
        self._last_tag = max(self._last_tag, delivery.tag)
        # In the channel's order also where a `basic.get` answered beside the consumer.
        insort(self._arrived, delivery, key=attrgetter("tag"))
        self._changed.set()

    def _on_cancelled(self, _: Basic.Cancel) -> None:
        self._fault = LinkLost(f"RabbitMQ cancelled the consumer of {self.queue}: the queue is gone or moving")
        self._changed.set()

    def _reach_marks(self) -> None:
        while self._marks and self._tally.is_settled_up_to(self._marks[0][0]):
            self._read_to_end.set(self._marks.popleft()[1])


@contextlib.asynccontextmanager
async def open_intake(
    link: Link,
    queue: str,
    clock: Clock,
    *,
    prefetch: int,
    arguments: FieldTable | None = None,
    read_to_end: Watched[datetime | None] | None = None,
) -> AsyncIterator[Intake]:
    """Consume `queue` for the length of the block.

    Raises NameRefused when the queue is not there or not ours to read, LinkLost otherwise.
    """
    channel = await link.consuming_channel(prefetch)
    intake = Intake(link, channel, queue, clock, read_to_end or Watched(None))
    try:
        with link.on_end(intake.wake):
            await intake.consume(arguments)
            yield intake
    finally:
        await intake.close()
