"""The drain loop: order, fates, rests, wake-ups and crashes."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import WorldFault
from runtime.outbox import Later, Outbox, OutboxLimits, OutboxMessage, PublishResult, Rejected, Sent, Unroutable
from tests.clocks import ManualClock
from tests.outbox_contract import FaultyOutbox

QUICK = OutboxLimits(first_retry_seconds=0.001, last_retry_seconds=0.01)
PATIENT = OutboxLimits(first_retry_seconds=1000, last_retry_seconds=1000)


class Bus:
    """Answers each publication with the next scripted answer of its destination, then with Sent."""

    def __init__(self) -> None:
        self.script: dict[str, list[PublishResult | Exception]] = defaultdict(list)
        self.tried: list[int] = []
        self.arrived: list[OutboxMessage] = []
        self.held: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Event()

    async def publish(self, message: OutboxMessage) -> PublishResult:
        self.tried.append(message.id)
        self._changed.set()
        if message.destination in self.held:
            await self.held[message.destination].wait()
        answer = self.script[message.destination].pop(0) if self.script[message.destination] else Sent()
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Sent):
            self.arrived.append(message)
        self._changed.set()
        return answer

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def store() -> FaultyOutbox:
    return FaultyOutbox()


@pytest.fixture
def bus() -> Bus:
    return Bus()


@asynccontextmanager
async def draining(
    store: FaultyOutbox, bus: Bus, clock: ManualClock, limits: OutboxLimits = QUICK
) -> AsyncIterator[tuple[Outbox, asyncio.Event]]:
    outbox, wake = Outbox(store, clock, limits), asyncio.Event()
    task = asyncio.create_task(outbox.run(bus.publish, wake))
    try:
        yield outbox, wake
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def test_what_is_stored_is_published_once_and_marked(store: FaultyOutbox, bus: Bus, clock: ManualClock) -> None:
    for _ in range(40):
        await store.put("d")
    async with draining(store, bus, clock):
        await bus.until(lambda: len(bus.arrived) == 40)
    assert bus.tried == store.sent == list(range(1, 41))


async def test_a_wake_up_publishes_at_once(store: FaultyOutbox, bus: Bus, clock: ManualClock) -> None:
    async with draining(store, bus, clock) as (_, wake):
        await store.put("d")
        wake.set()
        await bus.until(lambda: len(bus.arrived) == 1)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Unroutable(), "unroutable: no queue is bound there"),
        (Rejected("queue full"), "queue full"),
        (Later("not connected"), "not connected"),
        (WorldFault("connection lost"), "connection lost"),
    ],
)
async def test_an_unsent_message_is_kept_with_the_reason_and_tried_again(
    store: FaultyOutbox, bus: Bus, clock: ManualClock, answer: PublishResult | Exception, reason: str
) -> None:
    await store.put("d")
    bus.script["d"] = [answer]
    async with draining(store, bus, clock):
        await bus.until(lambda: len(bus.arrived) == 1)
    assert store.errors == {1: reason}
    assert bus.arrived[0].attempts == 1


async def test_no_answer_in_time_counts_as_later(store: FaultyOutbox, bus: Bus, clock: ManualClock) -> None:
    await store.put("d")
    bus.held["d"] = asyncio.Event()
    async with draining(store, bus, clock, OutboxLimits(publish_seconds=0.01, first_retry_seconds=0.001)):
        await bus.until(lambda: len(bus.tried) >= 2)
    assert store.errors[1] == "no confirm within 0.01 s"


async def test_a_stuck_destination_holds_up_no_other_even_with_a_long_queue(
    store: FaultyOutbox, bus: Bus, clock: ManualClock
) -> None:
    bus.held["stuck"] = asyncio.Event()
    bus.script["full"] = [Rejected("full")] * 100
    for destination in ["stuck"] * 50 + ["full"] * 50 + ["free"] * 50:
        await store.put(destination)
    async with draining(store, bus, clock, PATIENT):
        await bus.until(lambda: len(bus.arrived) == 50)
    assert {message.destination for message in bus.arrived} == {"free"}
    assert bus.tried.count(1) == bus.tried.count(51) == 1


async def test_retry_now_ends_all_rests_and_a_wake_up_does_not(
    store: FaultyOutbox, bus: Bus, clock: ManualClock
) -> None:
    bus.script["d"] = [Later("not connected")]
    await store.put("d")
    async with draining(store, bus, clock, PATIENT) as (outbox, wake):
        await bus.until(lambda: bool(bus.tried))
        await store.put("other")
        wake.set()
        await bus.until(lambda: [message.destination for message in bus.arrived] == ["other"])
        assert bus.tried.count(1) == 1
        outbox.retry_now()
        await bus.until(lambda: len(bus.arrived) == 2)


async def test_an_expired_message_is_given_up_and_the_next_one_goes_on(
    store: FaultyOutbox, bus: Bus, clock: ManualClock
) -> None:
    await store.put("d", expires_at=clock.now())
    await store.put("d", expires_at=clock.now() + timedelta(seconds=1))
    async with draining(store, bus, clock):
        await bus.until(lambda: len(bus.arrived) == 1)
    assert (bus.tried, store.gave_up) == ([2], [1])
    assert store.errors[1] == "expired before it could be sent"


@pytest.mark.parametrize("after_commit", [False, True])
async def test_a_failing_store_publishes_nothing_twice_and_loses_nothing(
    store: FaultyOutbox, bus: Bus, clock: ManualClock, after_commit: bool
) -> None:
    store.fails_after_commit = after_commit
    store.faults = 3
    bus.script["b"] = [Rejected("full"), Sent(), Rejected("full")]
    for destination in "aabbab":
        await store.put(destination)
    async with draining(store, bus, clock):
        await bus.until(lambda: len(bus.arrived) == 6)
    assert sorted(store.sent) == [1, 2, 3, 4, 5, 6]
    assert sorted(message.id for message in bus.arrived) == [1, 2, 3, 4, 5, 6]


async def test_a_cancel_marks_what_was_confirmed_and_leaves_the_rest_for_the_next_start(
    store: FaultyOutbox, bus: Bus, clock: ManualClock
) -> None:
    bus.held["slow"] = asyncio.Event()
    await store.put("slow")
    await store.put("quick")
    async with draining(store, bus, clock):
        await bus.until(lambda: len(bus.tried) == 2 and len(bus.arrived) == 1)
    assert store.sent == [2]
    assert [message.id for message in await store.pending(9, ())] == [1]


async def test_a_bug_in_the_publisher_ends_the_loop(store: FaultyOutbox, bus: Bus, clock: ManualClock) -> None:
    bus.script["d"] = [ZeroDivisionError()]
    await store.put("d")
    with pytest.raises(ExceptionGroup) as caught:
        await Outbox(store, clock).run(bus.publish, asyncio.Event())
    assert caught.group_contains(ZeroDivisionError)


async def test_no_more_destinations_are_served_at_once_than_allowed(
    store: FaultyOutbox, bus: Bus, clock: ManualClock
) -> None:
    gate = asyncio.Event()
    for number in range(6):
        bus.held[str(number)] = gate
        await store.put(str(number))
    async with draining(store, bus, clock, OutboxLimits(destinations_at_once=2, messages_at_once=1)):
        await bus.until(lambda: len(bus.tried) == 2)
        gate.set()
        await bus.until(lambda: len(bus.arrived) == 6)


@given(st.integers(1, 10_000))
def test_rests_grow_to_their_limit(failures: int) -> None:
    limits = OutboxLimits()
    assert 0 < limits.retry_seconds(failures) <= limits.retry_seconds(failures + 1) <= limits.last_retry_seconds


ANSWERS = st.sampled_from([Sent(), Sent(), Rejected("full"), Later("away"), Unroutable()])


@settings(max_examples=25)
@given(
    destinations=st.lists(st.sampled_from("abc"), max_size=30),
    script=st.dictionaries(st.sampled_from("abc"), st.lists(ANSWERS, max_size=6)),
    faults=st.integers(0, 3),
)
async def test_whatever_the_bus_answers_each_destination_gets_everything_in_order(
    destinations: list[str], script: dict[str, list[PublishResult | Exception]], faults: int
) -> None:
    store, bus = FaultyOutbox(), Bus()
    store.faults = faults
    bus.script.update({name: list(answers) for name, answers in script.items()})
    for destination in destinations:
        await store.put(destination)
    async with draining(store, bus, ManualClock()):
        await bus.until(lambda: len(bus.arrived) == len(destinations))
    for name in "abc":
        ids = [message.id for message in bus.arrived if message.destination == name]
        assert ids == [number for number, each in enumerate(destinations, 1) if each == name]
