"""Takes one delivery for each free slot from many queues in turn: how a worker takes jobs (DESIGN §7.2).

No prefetch decides how many jobs a worker has: it takes when a slot is free and never otherwise. While slots wait:

1. Ask the queues in turn (`basic.get`), beginning behind the one that was served last, so that a tenant with a
   thousand jobs waits as long for its second as any other for its first.
2. If all are empty, arm a consumer with prefetch 1 on each: RabbitMQ wakes us, and nothing is polled.
3. What arrives goes to a slot; its consumer is cancelled first, so that acknowledging cannot pull in another.
4. With no slot waiting, all consumers are cancelled; what arrived meanwhile goes back to its queue (`requeue`).

Each queue has a channel of its own: RabbitMQ closes the channel on which a queue is missing. Such a queue is asked
again later, after growing pauses, and never disturbs the others. The queues may change at any time; deliveries that a
slot still holds keep their channel.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel as RawChannel
from pamqp.commands import Basic

from bus.delivery import Delivery
from bus.link import CALL_SECONDS, CLOSE_SECONDS, BusFault, Link, within, working_link
from bus.waiting import BackOff, Watched
from runtime.clock import Clock
from runtime.logging import get_logger

_log = get_logger(__name__)


class _Lane:
    """One queue on one link: its channel, its armed consumer, and what was given out from it."""

    def __init__(self, link: Link, queue: str, taker: "Taker") -> None:
        self.queue = queue
        self._link = link
        self._taker = taker
        self._channel: RawChannel | None = None
        self._consumer = ""
        self._given: list[Delivery] = []
        self._back_off = BackOff(first_seconds=0.5, last_seconds=30.0)
        self._rests_until = 0.0
        self.problem = ""

    @property
    def is_armed(self) -> bool:
        return bool(self._consumer) and self._channel is not None and self._consumer in self._channel.consumers

    @property
    def is_held(self) -> bool:
        """Whether a slot still has to settle something that came through here."""
        self._given = [delivery for delivery in self._given if delivery.is_open]
        return bool(self._given)

    @property
    def rests_until(self) -> float:
        """When to try again, by the loop's clock; 0 while it works."""
        return self._rests_until

    async def get(self) -> Delivery | None:
        """One delivery, if there is one now; a queue that fails rests for a while and gives none."""
        if self._rests_until > asyncio.get_running_loop().time():
            return None
        try:
            channel = await self._open()
            message = await within(CALL_SECONDS, channel.basic_get(self.queue), f"reading {self.queue}")
        except BusFault as fault:
            self._rest(fault)
            return None
        self._recover()
        return None if isinstance(message.delivery, Basic.GetEmpty) else self._delivery(message)

    async def arm(self) -> None:
        if self.is_armed or self._rests_until:
            return
        try:
            channel = await self._open()
            consuming = channel.basic_consume(self.queue, self._on_message)
            answer = await within(CALL_SECONDS, consuming, f"consuming {self.queue}")
            self._consumer = answer.consumer_tag or ""
        except BusFault as fault:
            self._rest(fault)

    async def disarm(self) -> None:
        if self.is_armed and self._channel is not None:
            with contextlib.suppress(BusFault):
                cancelling = self._channel.basic_cancel(self._consumer)
                await within(CALL_SECONDS, cancelling, f"cancelling the consumer of {self.queue}")
        self._consumer = ""

    async def close(self) -> None:
        """Close the channel; RabbitMQ hands out again what is unsettled."""
        await self.disarm()
        if self._channel is not None:
            with contextlib.suppress(BusFault):
                await within(CLOSE_SECONDS, self._channel.close(), "closing a channel")

    def keep(self, delivery: Delivery) -> None:
        self._given.append(delivery)

    async def _open(self) -> RawChannel:
        if self._channel is None or self._channel.is_closed:
            self._consumer = ""
            channel = await self._link.consuming_channel(prefetch=1)
            channel.on_consumer_cancel_callbacks.add(self._on_cancelled)
            channel.closing.add_done_callback(lambda _: self._taker.wake())
            self._channel = channel
        return self._channel

    async def _on_message(self, message: DeliveredMessage) -> None:
        self._taker.arrived(self, self._delivery(message))

    def _on_cancelled(self, _: Basic.Cancel) -> None:
        self._taker.wake()

    def _delivery(self, message: DeliveredMessage) -> Delivery:
        return Delivery.of(message, self.queue, self._taker.clock.now())

    def _rest(self, fault: BusFault) -> None:
        if not self.problem:
            _log.warning("bus_queue_rests", queue=self.queue, reason=str(fault))
        self.problem = str(fault)
        self._rests_until = asyncio.get_running_loop().time() + self._back_off.next_seconds()

    def _recover(self) -> None:
        self.problem = ""
        self._rests_until = 0.0
        self._back_off.reset()


class Taker:
    """Made by `BusSession.taker`. Any number of slots may call `take` at the same time."""

    def __init__(self, queues: Sequence[str], links: Watched[Link | None], clock: Clock) -> None:
        self.clock = clock
        self._queues = tuple(dict.fromkeys(queues))
        self._links = links
        self._lanes: dict[str, _Lane] = {}
        self._slots: deque[asyncio.Future[Delivery]] = deque()
        self._arrived: deque[tuple[_Lane | None, Delivery]] = deque()
        self._turn = 0
        self._wake = asyncio.Event()
        self._is_idle = Watched(False)
        self._is_stopping = False
        self._is_running = False
        self._stopped = asyncio.Event()

    def serve(self, queues: Sequence[str]) -> None:
        """Take from these queues from now on, in this order of turns."""
        self._queues = tuple(dict.fromkeys(queues))
        self.wake()

    @property
    def problems(self) -> dict[str, str]:
        """Queues that cannot be read now, and why."""
        return {lane.queue: lane.problem for lane in self._lanes.values() if lane.problem}

    async def idle(self) -> None:
        """Wait until slots wait, all queues that can be read are empty, and RabbitMQ will wake us."""
        await self._is_idle.until(bool)

    async def take(self) -> Delivery:
        """Wait for one delivery; the caller answers for it from then on.

        Waits through every loss of the connection. Cancelling takes nothing: a delivery that was on its way to the
        cancelled caller goes to another slot or back to its queue.
        """
        slot: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        self._slots.append(slot)
        self._is_idle.set(False)
        self.wake()
        try:
            return await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                self._arrived.append((None, slot.result()))
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._slots.remove(slot)
            self.wake()

    async def stop(self) -> None:
        """Take nothing more; returns when no consumer is armed. Slots that wait go on waiting until cancelled."""
        self._is_stopping = True
        self.wake()
        if self._is_running:
            await self._stopped.wait()

    async def run(self) -> None:
        """Serve the slots on each link in turn; the session's task."""
        self._is_running = True
        try:
            while not self._is_stopping:
                link = self._links.value
                if link is None or link.has_ended:
                    await self._wait_for_link()
                    continue
                try:
                    with link.on_end(self.wake):
                        await self._serve_on(link)
                finally:
                    await self._leave()
        finally:
            self._stopped.set()

    def wake(self) -> None:
        self._wake.set()

    def arrived(self, lane: _Lane, delivery: Delivery) -> None:
        self._arrived.append((lane, delivery))
        self.wake()

    async def _wait_for_link(self) -> None:
        waiting = asyncio.ensure_future(working_link(self._links))
        waiting.add_done_callback(lambda _: self.wake())
        try:
            while not waiting.done() and not self._is_stopping:
                self._wake.clear()
                await self._wake.wait()
        finally:
            waiting.cancel()

    async def _serve_on(self, link: Link) -> None:
        while not link.has_ended and not self._is_stopping:
            self._wake.clear()
            self._is_idle.set(False)
            await self._fit_lanes(link)
            await self._give_arrived()
            if self._slots:
                await self._ask_in_turn()
            if self._slots:
                await self._arm_all()
            else:
                await self._disarm_all()
            self._is_idle.set(bool(self._slots) and not self._wake.is_set())
            await self._sleep()

    async def _fit_lanes(self, link: Link) -> None:
        for queue in self._queues:
            if queue not in self._lanes:
                self._lanes[queue] = _Lane(link, queue, self)
        for queue in [queue for queue in self._lanes if queue not in self._queues]:
            await self._lanes[queue].disarm()
            if not self._lanes[queue].is_held:
                await self._lanes.pop(queue).close()

    async def _ask_in_turn(self) -> None:
        """Ask until no slot waits, or until every queue said in a row that it is empty."""
        empty_in_a_row = 0
        while self._slots and empty_in_a_row < len(self._queues):
            lane = self._lanes.get(self._queues[self._turn % len(self._queues)])
            self._turn += 1
            delivery = await lane.get() if lane else None
            if lane is None or delivery is None:
                empty_in_a_row += 1
            else:
                empty_in_a_row = 0
                await self._give(lane, delivery)

    async def _give_arrived(self) -> None:
        while self._arrived:
            lane, delivery = self._arrived.popleft()
            if lane is not None:
                await lane.disarm()
                if lane.queue in self._queues:
                    self._turn = self._queues.index(lane.queue) + 1
            await self._give(lane, delivery)

    async def _give(self, lane: _Lane | None, delivery: Delivery) -> None:
        """To a slot, or back to the queue when none waits any more."""
        while self._slots and delivery.is_open:
            slot = self._slots.popleft()
            if not slot.done():
                if lane is not None:
                    lane.keep(delivery)
                slot.set_result(delivery)
                return
        await delivery.requeue()

    async def _arm_all(self) -> None:
        await asyncio.gather(*(self._lanes[queue].arm() for queue in self._queues if queue in self._lanes))

    async def _disarm_all(self) -> None:
        await asyncio.gather(*(lane.disarm() for lane in self._lanes.values() if lane.is_armed))
        await self._give_arrived()

    async def _sleep(self) -> None:
        """Until something happens, or a queue that rests is due and a slot waits for it."""
        due = [lane.rests_until for lane in self._lanes.values() if lane.rests_until] if self._slots else []
        now = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.05, min(due) - now) if due else None):
                await self._wake.wait()

    async def _leave(self) -> None:
        """The link is over, or we are: RabbitMQ hands out again what no slot has."""
        self._is_idle.set(False)
        lanes, self._lanes = list(self._lanes.values()), {}
        for lane in lanes:
            await lane.disarm()
        await self._give_arrived()
        # A slot may be about to settle what it has: its channel ends with its connection, not before.
        for lane in lanes:
            if not lane.is_held:
                await lane.close()
