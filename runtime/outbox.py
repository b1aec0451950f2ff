"""The durable outbox's drain loop: what was committed leaves, in order, at least once.

A message is stored in the same transaction as the effect it tells of; this loop publishes it afterwards. It knows its
store only as `OutboxStore`, so the worker's sqlite3 journal uses it without SQLAlchemy (`runtime.outbox_table` is the
store of all other roles). Each message has one fate for each answer of the publisher:

| answer | meaning | fate |
|---|---|---|
| `Sent` | the bus confirmed it | marked sent, never published again |
| `Unroutable` | no queue is bound where it goes | kept; the destination backs off |
| `Rejected(reason)` | the bus refused it, say because a queue is full | kept; the destination backs off |
| `Later(reason)` | no answer (not connected, no confirm): it may have arrived | kept; the destination backs off |
| (none asked) | `expires_at` has passed | given up; kept for people with the reason |

Rules: order holds inside a destination (its next message waits until this one is sent or given up), destinations do
not wait for each other, and the reason of every failure is recorded with the message. At least once: a crash between
the confirm and the mark publishes again, so receivers must dedupe. One loop a store: two would break the order.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Protocol

from runtime.clock import Clock
from runtime.errors import WorldFault
from runtime.logging import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True)
class OutboxMessage:
    """A stored message; `destination` is a key that only the bus understands."""

    id: int
    destination: str
    body: bytes
    correlation_id: str
    expires_at: datetime | None
    attempts: int


@dataclass(frozen=True)
class Sent:
    """The bus has confirmed the message."""


@dataclass(frozen=True)
class Unroutable:
    """The bus has returned the message: nobody's queue is bound there."""

    reason: str = "unroutable: no queue is bound there"


@dataclass(frozen=True)
class Rejected:
    """The bus has refused the message."""

    reason: str


@dataclass(frozen=True)
class Later:
    """The bus has not answered; the message may or may not have arrived."""

    reason: str


PublishResult = Sent | Unroutable | Rejected | Later
Publish = Callable[[OutboxMessage], Awaitable[PublishResult]]


class OutboxStore(Protocol):
    """Where messages wait. Each call is one transaction, durable on return; WorldFault when the store cannot.

    Promises: ids rise in the order of enqueueing; a message is pending from its commit until it is marked sent or
    given up; marking what is no longer pending, or not there, changes nothing.
    `tests/outbox_contract.py` checks all this.
    """

    async def pending(self, limit: int, without: Collection[str]) -> Sequence[OutboxMessage]:
        """Return the oldest `limit` pending messages, leaving out the destinations `without`."""
        ...

    async def mark_sent(self, ids: Sequence[int]) -> None:
        """Note that these were confirmed."""
        ...

    async def mark_failed(self, id: int, why: str) -> None:  # the store's own word
        """Count a failed attempt and keep its reason; the message stays pending."""
        ...

    async def give_up(self, ids: Sequence[int], why: str) -> None:
        """Note that these will never be sent, and why; they are no longer pending."""
        ...


@dataclass(frozen=True)
class OutboxLimits:
    """How hard the loop works and how long it waits."""

    destinations_at_once: int = 64
    messages_at_once: int = 16
    publish_seconds: float = 30
    first_retry_seconds: float = 0.25
    last_retry_seconds: float = 30

    def retry_seconds(self, failures: int) -> float:
        """Return how long a destination rests after `failures` failures in a row (1, 2, ...)."""
        return min(self.last_retry_seconds, self.first_retry_seconds * 2.0 ** min(failures - 1, 30))


@dataclass
class _Lane:
    """A destination's messages under way, and what became of them."""

    messages: Sequence[OutboxMessage]
    sent: list[int] = field(default_factory=list)
    expired: list[int] = field(default_factory=list)
    failure: tuple[int, str] | None = None


@dataclass(frozen=True)
class _Rest:
    failures: int
    until: float  # the loop's clock


class Outbox:
    """Publishes what a store holds. `wake` (an event) makes it look at once; `retry_now` also ends all rests."""

    def __init__(self, store: OutboxStore, clock: Clock, limits: OutboxLimits | None = None) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits or OutboxLimits()
        self._busy: set[str] = set()
        self._resting: dict[str, _Rest] = {}
        self._ended: list[tuple[str, _Lane]] = []
        self._store_failures = 0
        self._wake: asyncio.Event | None = None

    def retry_now(self) -> None:
        """Try every destination again at once; for the session, when the bus is back."""
        self._resting = {name: _Rest(rest.failures, -math.inf) for name, rest in self._resting.items()}
        if self._wake:
            self._wake.set()

    async def run(self, publish: Publish, wake: asyncio.Event) -> None:
        """Drain the store until cancelled.

        On cancel, publications under way are abandoned (they may arrive, and are published again at the next start)
        and those confirmed are marked before the cancel goes on. A WorldFault of the store is logged and waited out;
        one of `publish` counts as `Later`; any other error ends the loop.
        """
        self._wake = wake
        try:
            async with asyncio.TaskGroup() as lanes:
                while True:
                    wake.clear()
                    rest = await self._turn(lanes, publish)
                    await _wait_for(wake, rest)
        finally:
            await self._try_to_settle()

    async def _turn(self, lanes: asyncio.TaskGroup, publish: Publish) -> float | None:
        """Settle what ended, start what can start; return the seconds until something is due, None if nothing is."""
        now = asyncio.get_running_loop().time()
        try:
            await self._settle()
            while await self._start_lanes(lanes, publish, now):
                pass
        except WorldFault as error:
            self._store_failures += 1
            _log.error("outbox_store_failed", reason=str(error), failures=self._store_failures)
            return self._limits.retry_seconds(self._store_failures)
        self._store_failures = 0
        return self._seconds_until_next_retry(now)

    async def _start_lanes(self, lanes: asyncio.TaskGroup, publish: Publish, now: float) -> bool:
        if self._is_full():
            return False
        resting = {name for name, rest in self._resting.items() if rest.until > now}
        messages = await self._store.pending(self._limits.messages_at_once, self._busy | resting)
        # A stable sort: inside a destination the store's order stays.
        for destination, group in groupby(sorted(messages, key=_destination), key=_destination):
            self._busy.add(destination)
            lanes.create_task(self._run_lane(destination, _Lane(list(group)), publish))
        return bool(messages)

    def _is_full(self) -> bool:
        return len(self._busy) >= self._limits.destinations_at_once

    async def _run_lane(self, destination: str, lane: _Lane, publish: Publish) -> None:
        try:
            for message in lane.messages:
                if message.expires_at is not None and message.expires_at <= self._clock.now():
                    lane.expired.append(message.id)
                    continue
                answer = await self._publish_in_time(message, publish)
                if not isinstance(answer, Sent):
                    lane.failure = (message.id, answer.reason)
                    break
                lane.sent.append(message.id)
        finally:
            self._ended.append((destination, lane))
            if self._wake:
                self._wake.set()

    async def _publish_in_time(self, message: OutboxMessage, publish: Publish) -> PublishResult:
        seconds = self._limits.publish_seconds
        try:
            async with asyncio.timeout(seconds):
                return await publish(message)
        except TimeoutError:
            return Later(f"no confirm within {seconds:g} s")
        except WorldFault as error:
            return Later(str(error))

    async def _settle(self) -> None:
        """Record what became of the ended lanes; only then may their destinations start again."""
        ended = list(self._ended)
        sent = [id_ for _, lane in ended for id_ in lane.sent]
        expired = [id_ for _, lane in ended for id_ in lane.expired]
        if sent:
            await self._store.mark_sent(sent)
        if expired:
            await self._store.give_up(expired, "expired before it could be sent")
        for destination, lane in ended:
            if lane.failure:
                await self._store.mark_failed(*lane.failure)
            self._note_outcome(destination, lane)
            del self._ended[0]  # one by one: when the store fails here, the rest is settled in the next turn

    def _note_outcome(self, destination: str, lane: _Lane) -> None:
        self._busy.discard(destination)
        before = self._resting.pop(destination, None)
        if lane.failure is None:
            return
        # A lane that got something through failed for the first time, however often it had failed before.
        failures = 1 if lane.sent or before is None else before.failures + 1
        until = asyncio.get_running_loop().time() + self._limits.retry_seconds(failures)
        self._resting[destination] = _Rest(failures, until)
        _log.warning("outbox_destination_rests", destination=destination, reason=lane.failure[1], failures=failures)

    async def _try_to_settle(self) -> None:
        try:
            await self._settle()
        except WorldFault as error:
            _log.error("outbox_store_failed", reason=str(error), failures=self._store_failures + 1)

    def _seconds_until_next_retry(self, now: float) -> float | None:
        """Forget rests that are over and had nothing to send; `now` is the turn's, so that no rest falls between."""
        if not self._is_full():
            self._resting = {
                name: rest for name, rest in self._resting.items() if rest.until > now or name in self._busy
            }
        due = [rest.until for rest in self._resting.values() if rest.until > now]
        return max(0.0, min(due) - asyncio.get_running_loop().time()) if due else None


def _destination(message: OutboxMessage) -> str:
    return message.destination


async def _wait_for(wake: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        pass
