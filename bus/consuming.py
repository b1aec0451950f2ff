"""A subscription: a queue and its handler, kept over every loss of the connection until it is stopped.

The handler runs in the session's own tasks, one call at a time and in the order of the queue (deliveries that come
again come later). It is never cancelled because a connection broke: it finishes, and settling then changes nothing, as
RabbitMQ hands the message out again. Every delivery gets exactly one fate, here:

| the handler | fate |
|---|---|
| returns a `Fate` | that one; after `RETRY` a pause that grows, so that a queue is no wheel |
| raises what is the world's fault (`is_worlds_fault`) | called again after growing pauses, as long as it takes |
| raises anything else | called again, `TRIES` times in all; then, one by one, what still fails is `DEAD` |

Nothing is lost for a full disk, and one message that breaks our code cannot hold up all the others for ever. At least
once: a crash between the handler's effect and the acknowledgement brings the message again.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from bus.delivery import Delivery, Fate
from bus.intake import Intake, open_intake
from bus.link import BusFault, Link, working_link
from bus.waiting import BackOff, Watched, first_of
from runtime.clock import Clock
from runtime.errors import WorldFault
from runtime.logging import get_logger

TRIES = 4
Handler = Callable[[Delivery], Awaitable[Fate]]
BatchHandler = Callable[[list[Delivery]], Awaitable[Fate]]
_log = get_logger(__name__)


def is_worlds_fault(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a `WorldFault` or the system's (network, disk, deadline)."""
    while error is not None:
        if isinstance(error, WorldFault | OSError):
            return True
        error = error.__cause__
    return False


@dataclass(frozen=True)
class Taking:
    """How a subscription takes: deliveries ahead, deliveries a call, and how long a call waits for more of them."""

    prefetch: int = 100
    most_at_once: int = 1
    linger_seconds: float = 0.0
    probe_seconds: float = 5.0


class Subscription:
    """Made by `BusSession.consume` and `consume_batches`; ends with `stop`, or with its session."""

    def __init__(
        self, queue: str, handler: BatchHandler, taking: Taking, links: Watched[Link | None], clock: Clock
    ) -> None:
        self.queue = queue
        self._handler = handler
        self._taking = taking
        self._links = links
        self._clock = clock
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._is_running = False
        self._intake: Intake | None = None
        self._read_to_end: Watched[datetime | None] = Watched(None)
        self._problem = Watched("not started")

    @property
    def problem(self) -> str:
        """Why it does not consume; empty while it does."""
        return self._problem.value

    @property
    def caught_up_at(self) -> datetime | None:
        """The latest time as of which the queue is known to have been read to its end; None before the first."""
        return self._read_to_end.value

    async def caught_up(self, since: datetime) -> datetime:
        """Wait until the queue is known to have been read to its end as of a time not before `since`."""
        at = await self._read_to_end.until(lambda at: at is not None and at >= since)
        return at or since

    @property
    def has_stopped(self) -> bool:
        return self._stopping.is_set()

    async def consuming(self) -> None:
        """Wait until it consumes."""
        await self._problem.until(lambda problem: not problem)

    async def problem_changed(self, known: str) -> str:
        """Wait until the problem is another one, or none."""
        return await self._problem.until(lambda problem: problem != known)

    async def stop(self) -> None:
        """Take nothing more, let the handler's current call finish, return when all is closed."""
        self._stopping.set()
        if self._intake is not None:
            self._intake.end()
        if self._is_running:
            await self._stopped.wait()

    async def run(self) -> None:
        """Consume on each link in turn; the session's task. Cancelling cancels the handler's current call."""
        back_off = BackOff()
        self._is_running = True
        try:
            while (link := await self._next_link()) is not None:
                try:
                    await self._consume_on(link, back_off)
                except BusFault as fault:
                    self._problem.set(str(fault))
                    _log.warning("bus_consumer_lost", queue=self.queue, reason=str(fault))
                    if not link.has_ended:
                        await self._pause(back_off.next_seconds())
        finally:
            self._problem.set("stopped")
            self._stopped.set()

    async def _next_link(self) -> Link | None:
        """A link that works, or None when it is time to stop."""
        if not self._stopping.is_set():
            await first_of(working_link(self._links), self._stopping.wait())
        return None if self._stopping.is_set() else self._links.value

    async def _consume_on(self, link: Link, back_off: BackOff) -> None:
        async with open_intake(
            link, self.queue, self._clock, prefetch=self._taking.prefetch, read_to_end=self._read_to_end
        ) as intake:
            self._intake = intake
            if self._stopping.is_set():
                return
            self._problem.set("")
            try:
                async with asyncio.TaskGroup() as tasks:
                    # It ends with the intake. To cancel it amid a question would close the channel from our side,
                    # and where RabbitMQ closes it at the same moment, cost the whole connection.
                    tasks.create_task(self._probe(intake, back_off))
                    await self._handle_all(intake)
                    intake.end()
            finally:
                self._problem.set("between two connections")
                self._intake = None
        if intake.fault is not None:
            raise intake.fault

    async def _probe(self, intake: Intake, back_off: BackOff) -> None:
        """Prove now and then that the consumer lives, and learn whether the queue is read to its end."""
        try:
            while not intake.has_ended:
                await intake.look_for_the_end(self._taking.prefetch)
                back_off.reset()
                await intake.ended_within(self._taking.probe_seconds)
        except BusFault as fault:
            _log.warning("bus_probe_failed", queue=self.queue, reason=str(fault))
            intake.fail(fault)

    async def _handle_all(self, intake: Intake) -> None:
        retries = BackOff()
        while batch := await intake.some(self._taking.most_at_once, linger_seconds=self._taking.linger_seconds):
            fate = await self._handle(batch, intake)
            if fate is Fate.RETRY:
                await self._pause(retries.next_seconds())
            else:
                retries.reset()

    async def _handle(self, batch: list[Delivery], intake: Intake) -> Fate | None:
        """Call the handler until there is a fate, and tell it; None when told to stop before there was one."""
        fate = await self._fate_of(batch)
        if fate is Fate.DEAD and len(batch) > 1:
            # Which of them it is shows only when each goes alone.
            for delivery in batch:
                await self._handle([delivery], intake)
        elif fate is not None:
            await intake.settle(batch, fate)
        return fate

    async def _fate_of(self, batch: list[Delivery]) -> Fate | None:
        back_off, tries = BackOff(), 0
        while not self._stopping.is_set():
            try:
                return await self._handler(batch)
            except Exception as error:  # noqa: BLE001 – the table above
                tries += 0 if is_worlds_fault(error) else 1
                _log.exception("bus_handler_failed", queue=self.queue, tries=tries, **_about(batch))
                if tries >= TRIES:
                    _log.error("bus_delivery_dead", queue=self.queue, **_about(batch))
                    return Fate.DEAD
            await self._pause(back_off.next_seconds())
        return None

    async def _pause(self, seconds: float) -> None:
        await first_of(self._stopping.wait(), seconds=seconds)


def one_by_one(handler: Handler) -> BatchHandler:
    """A handler of batches of one."""

    async def handle(batch: list[Delivery]) -> Fate:
        return await handler(batch[0])

    return handle


def _about(batch: list[Delivery]) -> dict[str, object]:
    first = batch[0]
    return {
        "deliveries": len(batch),
        "type": first.message_type,
        "attempt": first.correlation_id,
        "exchange": first.exchange,
        "bytes": len(first.body),
        "sha256": hashlib.sha256(first.body).hexdigest(),
    }
