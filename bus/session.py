"""A session at one provider's bus: kept up for ever, whatever happens to network, RabbitMQ, desk and credentials.

The session owns the connections, and every task that works on them. It obtains credentials afresh for each connection,
extends the session before it ends, and moves to a new user before the old one is gone: the new connections are opened
first, then the subscriptions move, then the old connections are closed. It trusts no hidden recovery of the library:
each queue is consumed anew, explicitly, on each link. One session never touches another's: a provider in trouble
costs its own tasks only.

Delivery: publishing answers with a value once RabbitMQ has taken or refused the message (`bus.publishing`); consuming
is at least once and in order (`bus.consuming`, `bus.taking`). Receivers dedupe.

Closing, in this order: take no more; let the handlers' current calls finish and settle; close channels; close
connections. Cancelling `run` cancels the handlers instead of waiting for them, and closes the same way.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from bus.consuming import BatchHandler, Handler, Subscription, Taking, one_by_one
from bus.delivery import Delivery, Fate
from bus.link import BusFault, Link, LinkLost, NameRefused, PlaintextRefused, open_link
from bus.publishing import Outgoing, Publisher
from bus.streams import Offset, StreamEntry, read_stream
from bus.taking import Taker
from bus.waiting import BackOff, Watched, first_of
from runtime.clock import Clock
from runtime.errors import PeerFault, WorldFault
from runtime.logging import get_logger
from runtime.outbox import Later, PublishResult, Sent
from schemas import limits
from schemas.refusals import Refusal
from schemas.sessions import SessionGranted

__all__ = [
    "BusSession",
    "Delivery",
    "Fate",
    "LinkLost",
    "NameRefused",
    "SessionLimits",
    "SessionStatus",
    "StreamEntry",
    "Subscription",
    "Taker",
]

Credentials = Callable[[int | None], Awaitable[SessionGranted | Refusal]]
"""Asks the desk. Called with None for an answer at once, and with the known revision where the desk may hold its
answer until the facts are others. Raises `WorldFault` or `PeerFault` when there is no answer."""

_log = get_logger(__name__)


@dataclass(frozen=True)
class SessionLimits:
    """Deadlines and bounds of one session."""

    confirms_in_flight: int = 100
    publish_seconds: float = 30.0
    credentials_seconds: float = 60.0
    """Longer than a desk may hold its answer."""
    retire_seconds: float = 5.0
    """How long a replaced link stays, so that what came over it can still be settled."""
    first_retry_seconds: float = 0.1
    last_retry_seconds: float = 15.0
    shortest_renewal_seconds: float = 1.0


@dataclass(frozen=True)
class SessionStatus:
    """Whether the session is up, since when, and if not, why: in words that a person can act on."""

    is_up: bool
    since: datetime
    reason: str
    connects: int


@dataclass
class _Parts:
    """What runs on the session until it is stopped, in the order in which it was asked for."""

    subscriptions: list[Subscription] = field(default_factory=list)
    takers: list[Taker] = field(default_factory=list)


class BusSession:
    """One provider's bus. Subscriptions and takers may be made before `run` and while it runs.

    `name` is seen by the owner of the bus in RabbitMQ's lists of connections. With `follows_changes` the desk is asked
    again and again with the known revision (agents, who must learn of new tenants at once); else only to extend.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        name: str,
        clock: Clock,
        follows_changes: bool = False,
        bounds: SessionLimits | None = None,
    ) -> None:
        self._credentials = credentials
        self._name = name
        self._clock = clock
        self._follows_changes = follows_changes
        self._bounds = bounds or SessionLimits()
        self._window = asyncio.Semaphore(self._bounds.confirms_in_flight)
        self._links: Watched[Link | None] = Watched(None)
        self._publisher: Publisher | None = None
        self._granted: Watched[SessionGranted | None] = Watched(None)
        self._status = Watched(SessionStatus(False, clock.now(), "not started", 0))
        self._parts = _Parts()
        self._tasks: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()
        self._log = _log.bind(session=name)

    # -- what others see

    @property
    def status(self) -> SessionStatus:
        return self._status.value

    @property
    def granted(self) -> SessionGranted | None:
        """What the desk said last: provider, tenants, pools, workers, end; None before its first answer."""
        return self._granted.value

    async def up(self) -> SessionGranted:
        """Wait until the session is up."""
        await self._status.until(lambda status: status.is_up)
        return await self.changed(None)

    async def status_changed(self, known: SessionStatus) -> SessionStatus:
        """Wait until the status is another one."""
        return await self._status.until(lambda status: status != known)

    async def changed(self, known: SessionGranted | None) -> SessionGranted:
        """Wait until the desk names other tenants, pools or workers than `known`, and return what it said."""
        granted = await self._granted.until(lambda new: new is not None and _facts(new) != _facts(known))
        if granted is None:
            raise AssertionError("never None after the wait")
        return granted

    def caught_up_at(self, queue: str) -> datetime | None:
        """The latest time as of which `queue` is known to have been read to its end and settled, over all links.

        None when it never was, or nobody here consumes it. This is what silence may be counted from (DESIGN §7.3).
        """
        known = [part.caught_up_at for part in self._parts.subscriptions if part.queue == queue]
        return max((at for at in known if at is not None), default=None)

    # -- what others do

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        message_type: str,
        correlation_id: str,
        expires_after: timedelta | None = None,
    ) -> PublishResult:
        """Publish once and say what became of it; never raises for what the bus does.

        `Sent` is confirmed by every queue it went to. After `Later` it may have arrived. Waits for its turn among the
        confirms in flight and for the answer, `publish_seconds` at most; fails at once while the session is down.
        Raises `ValueError` for a body over `limits.BUS_MESSAGE_BYTES`, which no sealed envelope is. Cancelling leaves
        it sent or not sent.
        """
        if len(body) > limits.BUS_MESSAGE_BYTES:
            raise ValueError(f"{len(body)} bytes, the bus carries {limits.BUS_MESSAGE_BYTES}")
        message = Outgoing(exchange, routing_key, body, message_type, correlation_id, expires_after)
        result = await self._publish(message)
        if not isinstance(result, Sent):
            # It may have failed without waiting for anything: whoever tries again at once must not starve the loop,
            # and with it the news that the connection is lost.
            await asyncio.sleep(0)
        return result

    def consume(self, queue: str, handler: Handler, *, prefetch: int = 20, probe_seconds: float = 5.0) -> Subscription:
        """Call `handler` for each delivery of `queue`, in order, until the subscription is stopped."""
        taking = Taking(prefetch=prefetch, probe_seconds=probe_seconds)
        return self._subscribe(queue, one_by_one(handler), taking)

    def consume_batches(
        self,
        queue: str,
        handler: BatchHandler,
        *,
        most_at_once: int = 100,
        linger_seconds: float = 0.01,
        prefetch: int = 200,
        probe_seconds: float = 5.0,
    ) -> Subscription:
        """Call `handler` with up to `most_at_once` deliveries, which share one fate and one acknowledgement.

        A call waits up to `linger_seconds` for more once there is one.
        """
        taking = Taking(prefetch, most_at_once, linger_seconds, probe_seconds)
        return self._subscribe(queue, handler, taking)

    def taker(self, queues: Sequence[str] = ()) -> Taker:
        """Deliveries one by one for free slots, from many queues in turn."""
        taker = Taker(queues, self._links, self._clock)
        self._parts.takers.append(taker)
        self._start(taker.run())
        return taker

    def read_stream(
        self, queue: str, offset: Offset = "first", *, idle_seconds: float | None = None
    ) -> AsyncGenerator[StreamEntry, None]:
        """Read a stream from any offset; see `bus.streams`. Use it with `contextlib.aclosing`."""
        return read_stream(self._links, self._clock, queue, offset, idle_seconds=idle_seconds)

    async def run(self) -> None:
        """Keep the session up until `close` or a cancel. Never ends by itself."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for part in self._running_parts():
                    tasks.create_task(part.run())
                renewing = tasks.create_task(self._renew_for_ever())
                await self._keep_up()
                await self._stop_parts()
                renewing.cancel()
        finally:
            self._tasks = None
            await self._drop(self._links.value, "closed")

    async def close(self) -> None:
        """Stop in order: no more deliveries, handlers finish, channels, connections; then `run` returns.

        Returns when the handlers have finished; not to be awaited by one of them.
        """
        await self._stop_parts()
        self._closing.set()

    # -- the session's own work

    async def _publish(self, message: Outgoing) -> PublishResult:
        seconds = self._bounds.publish_seconds
        try:
            async with asyncio.timeout(seconds), self._window:
                if self._publisher is None:
                    return Later(self.status.reason or "the session is not up")
                return await self._publisher.publish(message, seconds)
        except TimeoutError:
            return Later(f"no confirm within {seconds:g} s")

    def _subscribe(self, queue: str, handler: BatchHandler, taking: Taking) -> Subscription:
        subscription = Subscription(queue, handler, taking, self._links, self._clock)
        self._parts.subscriptions = [part for part in self._parts.subscriptions if not part.has_stopped]
        self._parts.subscriptions.append(subscription)
        self._start(subscription.run())
        return subscription

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        if self._tasks is None:
            work.close()  # `run` starts it
        else:
            self._tasks.create_task(work)

    def _running_parts(self) -> list[Subscription | Taker]:
        return [*self._parts.subscriptions, *self._parts.takers] if self._tasks is not None else []

    async def _stop_parts(self) -> None:
        await asyncio.gather(*(part.stop() for part in self._running_parts()))

    async def _keep_up(self) -> None:
        back_off = BackOff(self._bounds.first_retry_seconds, self._bounds.last_retry_seconds)
        while not self._closing.is_set():
            link = await self._try_to_open(await self._ask(None))
            if link is None:
                await first_of(self._closing.wait(), seconds=back_off.next_seconds())
                continue
            opened_at = self._clock.boottime()
            await self._hold(link)
            if self._clock.boottime() - opened_at > self._bounds.last_retry_seconds:
                back_off.reset()
            elif not self._closing.is_set():
                await first_of(self._closing.wait(), seconds=back_off.next_seconds())

    async def _hold(self, link: Link) -> None:
        """Stay on the link until it is lost, or on the one that replaces it when the desk names another user."""
        while True:
            self._adopt(link)
            await first_of(link.ended(), self._closing.wait(), self._other_user(link))
            if link.has_ended or self._closing.is_set():
                await self._drop(link, link.end_reason or "closed")
                return
            replacement = await self._try_to_open(self._granted.value)
            if replacement is None:
                await first_of(link.ended(), self._closing.wait(), seconds=self._bounds.first_retry_seconds * 10)
                continue
            self._retire(link)
            link = replacement

    async def _other_user(self, link: Link) -> None:
        await self._granted.until(lambda granted: granted is not None and granted.user != link.granted.user)

    async def _try_to_open(self, granted: SessionGranted | None) -> Link | None:
        if granted is None:
            return None
        try:
            return await open_link(granted, self._name)
        except (BusFault, PlaintextRefused) as fault:
            self._note_trouble(str(fault))
            return None

    async def _ask(self, revision: int | None) -> SessionGranted | None:
        """Ask the desk once; its answer is remembered, and why there is none is told in the status."""
        try:
            async with asyncio.timeout(self._bounds.credentials_seconds):
                answer = await self._credentials(revision)
        except TimeoutError:
            trouble = f"the desk did not answer within {self._bounds.credentials_seconds:g} s"
        except (WorldFault, PeerFault) as fault:
            trouble = f"no credentials: {fault}"
        else:
            if isinstance(answer, SessionGranted):
                self._granted.set(answer)
                return answer
            trouble = f"the desk refused: {answer}"
        self._note_trouble(trouble)
        return None

    async def _renew_for_ever(self) -> None:
        """While a link is up, extend the session well before its end, or hear of changes as they happen."""
        back_off = BackOff(self._bounds.shortest_renewal_seconds, self._bounds.last_retry_seconds)
        while True:
            await self._status.until(lambda status: status.is_up)
            known = self._granted.value
            if known is None or not self._follows_changes:
                await first_of(self._newer_than(known), seconds=self._seconds_to_renewal())
                if self._granted.value is not known:
                    continue
            asked_at = self._clock.boottime()
            answer = await self._ask(known.revision if known is not None and self._follows_changes else None)
            if answer is not None and _facts(answer) != _facts(known):
                back_off.reset()
            elif self._clock.boottime() - asked_at < self._bounds.shortest_renewal_seconds:
                # Refused, or a desk that does not hold its answers.
                await asyncio.sleep(back_off.next_seconds())

    async def _newer_than(self, known: SessionGranted | None) -> None:
        await self._granted.until(lambda granted: granted is not known)

    def _seconds_to_renewal(self) -> float:
        granted = self._granted.value
        left = (granted.ends_at - self._clock.now()).total_seconds() if granted is not None else 0.0
        return max(self._bounds.shortest_renewal_seconds, left / 2)

    # -- states

    def _adopt(self, link: Link) -> None:
        if self._links.value is link:
            return
        self._publisher = Publisher(link)
        self._links.set(link)
        connects = self.status.connects + 1
        self._status.set(SessionStatus(True, self._clock.now(), "", connects))
        self._log.info("bus_session_up", provider=link.granted.provider, user=link.granted.user, connects=connects)

    async def _drop(self, link: Link | None, reason: str) -> None:
        self._publisher = None
        self._links.set(None)
        if self.status.is_up:
            self._status.set(SessionStatus(False, self._clock.now(), reason, self.status.connects))
            self._log.warning("bus_session_down", reason=reason)
        if link is not None:
            await link.close()

    def _retire(self, link: Link) -> None:
        """Let the old link go in a while: who works on it leaves now, what came over it is settled still."""
        if self._tasks is not None:
            self._tasks.create_task(self._close_retired(link))

    async def _close_retired(self, link: Link) -> None:
        try:
            await self._links.until(lambda current: current is not link)
            link.end("replaced by one of another user")
            await first_of(self._closing.wait(), seconds=self._bounds.retire_seconds)
        finally:
            await link.close()

    def _note_trouble(self, reason: str) -> None:
        """Say why there is no session; while there is one, only the log hears of it."""
        self._log.warning("bus_session_trouble", reason=reason)
        if not self.status.is_up and self.status.reason != reason:
            self._status.set(replace(self.status, reason=reason))


def _facts(granted: SessionGranted | None) -> object:
    return granted and (granted.revision, granted.tenants, granted.pools, granted.workers)
