"""The promises of `runtime.outbox.OutboxStore`, as a suite for every store, and a store that fails on purpose.

A store's test module subclasses `OutboxContract` and gives a `shelf` fixture: the store plus how to put messages in.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from runtime.errors import WorldFault
from runtime.outbox import OutboxMessage, OutboxStore
from tests.clocks import START

Put = Callable[[str, bytes, str, datetime | None], Awaitable[None]]


@dataclass(frozen=True)
class Shelf:
    """A store under test; `put(destination, body, correlation_id, expires_at)` commits one message."""

    store: OutboxStore
    put: Put


class FaultyOutbox:
    """An OutboxStore in memory that fails as a disk does: the next `faults` calls raise WorldFault.

    With `fails_after_commit` the call takes effect first, as when the answer of a commit is lost.
    """

    def __init__(self) -> None:
        self.faults = 0
        self.fails_after_commit = False
        self.errors: dict[int, str] = {}
        self.sent: list[int] = []
        self.gave_up: list[int] = []
        self._last_id = 0
        self._waiting: dict[int, OutboxMessage] = {}

    async def put(
        self, destination: str, body: bytes = b"", correlation_id: str = "a", expires_at: datetime | None = None
    ) -> None:
        self._last_id += 1
        self._waiting[self._last_id] = OutboxMessage(self._last_id, destination, body, correlation_id, expires_at, 0)

    async def pending(self, limit: int, without: Collection[str]) -> Sequence[OutboxMessage]:
        self._fail(after=False)
        return [message for message in self._waiting.values() if message.destination not in without][:limit]

    async def mark_sent(self, ids: Sequence[int]) -> None:
        self._fail(after=False)
        self.sent += [each for each in ids if self._waiting.pop(each, None)]
        self._fail(after=True)

    async def mark_failed(self, id: int, why: str) -> None:
        self._fail(after=False)
        if id in self._waiting:
            self.errors[id] = why
            self._waiting[id] = replace(self._waiting[id], attempts=self._waiting[id].attempts + 1)
        self._fail(after=True)

    async def give_up(self, ids: Sequence[int], why: str) -> None:
        self._fail(after=False)
        for each in ids:
            if self._waiting.pop(each, None):
                self.gave_up.append(each)
                self.errors[each] = why
        self._fail(after=True)

    def _fail(self, *, after: bool) -> None:
        if self.faults and after == self.fails_after_commit:
            self.faults -= 1
            raise WorldFault("the disk is full")


class OutboxContract:
    """What the drain loop relies on."""

    async def test_messages_come_back_whole_and_in_order(self, shelf: Shelf) -> None:
        await shelf.put("jobs:b", b"\x00\xff", "a1", START)
        await shelf.put("jobs:a", b"", "a2", None)
        first, second = await shelf.store.pending(10, ())
        assert first.id < second.id
        assert replace(first, id=0) == OutboxMessage(0, "jobs:b", b"\x00\xff", "a1", START, 0)
        assert replace(second, id=0) == OutboxMessage(0, "jobs:a", b"", "a2", None, 0)

    async def test_the_oldest_come_first_and_no_more_than_asked(self, shelf: Shelf) -> None:
        for number in range(5):
            await shelf.put("d", bytes([number]), "a", None)
        assert [message.body[0] for message in await shelf.store.pending(3, ())] == [0, 1, 2]

    async def test_destinations_left_out_do_not_hide_the_others(self, shelf: Shelf) -> None:
        for destination in ("full", "full", "full", "free"):
            await shelf.put(destination, b"", "a", None)
        assert [message.destination for message in await shelf.store.pending(1, {"full"})] == ["free"]
        assert await shelf.store.pending(9, {"full", "free"}) == []

    async def test_sent_messages_are_gone_and_marking_again_changes_nothing(self, shelf: Shelf) -> None:
        for _ in range(3):
            await shelf.put("d", b"", "a", None)
        ids = [message.id for message in await shelf.store.pending(2, ())]
        for _ in range(2):
            await shelf.store.mark_sent(ids)
        await shelf.store.mark_sent([10**9])
        (left,) = await shelf.store.pending(9, ())
        assert left.id not in ids

    async def test_a_failed_attempt_is_counted_and_keeps_its_place(self, shelf: Shelf) -> None:
        for number in range(2):
            await shelf.put("d", bytes([number]), "a", None)
        first = (await shelf.store.pending(1, ()))[0]
        await shelf.store.mark_failed(first.id, "queue full")
        await shelf.store.mark_failed(first.id, "x" * 10_000)
        again, behind = await shelf.store.pending(9, ())
        assert (again.id, again.attempts, behind.attempts) == (first.id, 2, 0)

    async def test_what_was_given_up_is_not_pending(self, shelf: Shelf) -> None:
        await shelf.put("d", b"", "a", None)
        (message,) = await shelf.store.pending(9, ())
        await shelf.store.give_up([message.id], "expired")
        await shelf.store.mark_failed(message.id, "too late")
        assert await shelf.store.pending(9, ()) == []

    async def test_an_id_is_never_used_again(self, shelf: Shelf) -> None:
        seen = set()
        for _ in range(3):
            await shelf.put("d", b"", "a", None)
            (message,) = await shelf.store.pending(9, ())
            await shelf.store.mark_sent([message.id])
            seen.add(message.id)
        assert len(seen) == 3
