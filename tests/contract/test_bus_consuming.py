"""Every delivery gets one fate, whatever its handler does, and the queue's end is known when it is reached."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime

import pytest
import pytest_asyncio

from bus.access import AdminAccess
from bus.consuming import TRIES
from bus.delivery import Delivery, Fate
from bus.session import Subscription
from bus.topology import dead_letter_origin, usage_key
from runtime.clock import SystemClock
from runtime.errors import WorldFault
from runtime.outbox import Sent
from tests.bus_world import DINAH, ELIZA, NAMES, Bus, bus_for_tests, kick, running, say, soon

REPLIES = NAMES.replies(DINAH)
CONTROL = NAMES.control_queue(DINAH, "w7")


@pytest_asyncio.fixture
async def bus(rabbitmq: AdminAccess, vhost: str) -> AsyncIterator[Bus]:
    async with bus_for_tests(rabbitmq, vhost) as bus:
        yield bus


class Script:
    """A handler that does what the test wrote for each body, and settles what it did not write."""

    def __init__(self, **answers: list[Fate | Exception]) -> None:
        self._answers = answers
        self.calls: Counter[str] = Counter()
        self.order: list[str] = []
        self.settled: set[str] = set()
        self._changed = asyncio.Condition()

    async def __call__(self, delivery: Delivery) -> Fate:
        body = delivery.body.decode()
        async with self._changed:
            self.calls[body] += 1
            self.order.append(body)
            answers = self._answers.get(body, [])
            answer = answers.pop(0) if answers else Fate.SETTLED
            if answer is Fate.SETTLED:
                self.settled.add(body)
            self._changed.notify_all()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def batch(self, deliveries: list[Delivery]) -> Fate:
        fates = [await self(delivery) for delivery in deliveries]
        return fates[0]

    async def until_settled(self, *bodies: str) -> None:
        async with self._changed:
            await soon(self._changed.wait_for(lambda: set(bodies) <= self.settled))


async def trouble(subscription: Subscription, what: str) -> None:
    """Wait until the subscription says that this is its problem."""
    problem = subscription.problem
    while what not in problem:
        problem = await soon(subscription.problem_changed(problem))


def now() -> datetime:
    return SystemClock().now()


async def test_deliveries_come_in_order_with_their_origin(bus: Bus) -> None:
    script, seen = Script(), []

    async def handler(delivery: Delivery) -> Fate:
        seen.append((delivery.exchange, delivery.routing_key, delivery.message_type, delivery.correlation_id))
        return await script(delivery)

    async with running(bus.controller()) as session, running(bus.worker()) as worker:
        session.consume(REPLIES, handler)
        await soon(worker.up())
        for number in range(50):
            assert await say(worker, REPLIES, body=b"%d" % number) == Sent()
        await script.until_settled("49")
    assert script.order == [str(number) for number in range(50)]
    assert set(seen) == {(REPLIES, "", "fedci.test/1", "a1")}
    assert await bus.count(REPLIES) == 0


async def test_an_error_of_ours_is_tried_again_and_then_the_message_is_dead_and_the_rest_goes_on(bus: Bus) -> None:
    script = Script(bad=[ValueError("a bug")] * TRIES)
    async with running(bus.controller()) as session:
        session.consume(REPLIES, script)
        await bus.put(REPLIES, "", b"bad", b"good")
        await script.until_settled("good")
    assert script.calls == {"bad": TRIES, "good": 1}
    assert await bus.count(REPLIES) == 0


async def test_the_worlds_fault_is_waited_out_and_nothing_is_lost(bus: Bus) -> None:
    full = WorldFault("the disk is full")
    wrapped = RuntimeError("while storing")
    wrapped.__cause__ = OSError(28, "No space left on device")
    script = Script(one=[full, wrapped, full, wrapped, full])
    async with running(bus.controller()) as session:
        session.consume(REPLIES, script)
        await bus.put(REPLIES, "", b"one", b"two")
        await script.until_settled("one", "two")
    assert script.calls["one"] == 6 > TRIES
    assert script.order[-1] == "two"


async def test_a_retry_comes_again(bus: Bus) -> None:
    script = Script(one=[Fate.RETRY, Fate.RETRY])
    async with running(bus.controller()) as session:
        session.consume(REPLIES, script)
        await bus.put(REPLIES, "", b"one")
        await script.until_settled("one")
    assert script.calls["one"] == 3


async def test_a_dead_job_goes_to_the_dead_letters_with_its_origin(bus: Bus) -> None:
    dead: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()

    async def read_dead(delivery: Delivery) -> Fate:
        dead.set_result(delivery)
        return Fate.SETTLED

    async with running(bus.worker()) as worker, running(bus.desk()) as desk:
        desk.consume(NAMES.dead_queue, read_dead)
        taker = worker.taker([NAMES.jobs_queue(ELIZA, "fast")])
        await bus.put(NAMES.jobs_exchange(ELIZA), "fast", b"garbage")
        assert await (await soon(taker.take())).reject()
        delivery = await soon(dead)
        origin = dead_letter_origin(delivery.routing_key)
        assert origin is not None
        assert (origin.tenant, origin.pool, delivery.body) == (ELIZA, "fast", b"garbage")


async def test_batches_share_one_transaction_and_one_acknowledgement(bus: Bus) -> None:
    sizes: list[int] = []
    script = Script()

    async def handler(deliveries: list[Delivery]) -> Fate:
        sizes.append(len(deliveries))
        return await script.batch(deliveries)

    await bus.put(REPLIES, "", *(b"%d" % number for number in range(500)))
    async with running(bus.controller()) as session:
        session.consume_batches(REPLIES, handler, most_at_once=100, linger_seconds=0.2)
        await script.until_settled("499")
    assert max(sizes) == 100
    assert script.order == [str(number) for number in range(500)]
    assert await bus.count(REPLIES) == 0


async def test_one_bad_message_does_not_take_its_batch_along(bus: Bus) -> None:
    answers: dict[str, list[Fate | Exception]] = {"7": [ValueError("a bug")] * 100}
    script = Script(**answers)
    await bus.put(REPLIES, "", *(b"%d" % number for number in range(20)))
    async with running(bus.controller()) as session:
        session.consume_batches(REPLIES, script.batch, most_at_once=20, linger_seconds=0.2)
        await script.until_settled(*(str(number) for number in range(20) if number != 7))
    assert "7" not in script.settled
    assert await bus.count(REPLIES) == 0


async def test_a_deleted_queue_is_consumed_again_when_it_is_back(bus: Bus) -> None:
    script = Script()
    async with running(bus.controller()) as session:
        subscription = session.consume(REPLIES, script, probe_seconds=0.1)
        await soon(subscription.consuming())
        await bus.provisioner.remove_tenant(NAMES, DINAH)
        await trouble(subscription, "NOT_FOUND")
        await bus.declare_again()
        await soon(subscription.consuming())
        await bus.put(REPLIES, "", b"after")
        await script.until_settled("after")
        assert session.status.connects == 1


async def test_a_queue_that_is_not_ours_is_a_problem_of_that_subscription_only(bus: Bus) -> None:
    script = Script()
    async with running(bus.controller()) as session:
        session.consume(REPLIES, script)
        strange = session.consume(NAMES.replies(ELIZA), script)
        await trouble(strange, "ACCESS_REFUSED")
        await bus.put(REPLIES, "", b"mine")
        await script.until_settled("mine")


async def test_the_end_of_a_queue_is_known_only_when_all_before_it_is_settled(bus: Bus) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(_: Delivery) -> Fate:
        entered.set()
        await leave.wait()
        return Fate.SETTLED

    async with running(bus.controller()) as session:
        await bus.put(REPLIES, "", b"1")
        before = now()
        subscription = session.consume(REPLIES, slow, probe_seconds=0.02)
        await soon(entered.wait())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await subscription.caught_up(before)
        assert session.caught_up_at(REPLIES) is None
        leave.set()
        at = await soon(subscription.caught_up(before))
        assert before <= at <= now()
        assert await soon(subscription.caught_up(now())) > at
        assert session.caught_up_at(REPLIES) == subscription.caught_up_at
        assert session.caught_up_at(NAMES.logs(DINAH)) is None


async def test_the_end_is_found_behind_more_messages_than_are_taken_ahead(bus: Bus) -> None:
    script = Script()
    await bus.put(REPLIES, "", *(b"%d" % number for number in range(100)))
    async with running(bus.controller()) as session:
        subscription = session.consume(REPLIES, script, prefetch=5, probe_seconds=0.01)
        await soon(subscription.caught_up(now()))
        assert len(script.settled) == 100
    assert await bus.count(REPLIES) == 0


async def test_a_stopped_subscription_takes_nothing_more(bus: Bus) -> None:
    script = Script()
    async with running(bus.controller()) as session:
        subscription = session.consume(REPLIES, script)
        await soon(subscription.consuming())
        await soon(subscription.stop())
        await bus.put(REPLIES, "", b"1")
        again = session.consume(REPLIES, script)
        await soon(again.consuming())
        await script.until_settled("1")


async def test_settling_twice_is_a_value_and_no_crash(bus: Bus) -> None:
    async with running(bus.worker()) as worker:
        taker = worker.taker([NAMES.jobs_queue(DINAH, "fast")])
        await bus.put(NAMES.jobs_exchange(DINAH), "fast", b"1", b"2")
        first = await soon(taker.take())
        assert await first.ack()
        assert not await first.reject()
        second = await soon(taker.take())
        assert second.body == b"2"


async def test_a_stream_is_read_from_any_offset_and_read_on_after_a_cut(bus: Bus) -> None:
    keys = [usage_key(DINAH, "attempts"), usage_key(ELIZA, "log-bytes")]
    for number in range(30):
        await bus.put(NAMES.billing_exchange, keys[number % 2], b"%d" % number)
    desk = bus.ledger()
    async with running(desk) as session:
        for offset, expected in (("first", range(30)), (20, range(20, 30))):
            entries = session.read_stream(NAMES.billing_stream, offset, idle_seconds=0.5)  # type: ignore[arg-type]
            async with contextlib.aclosing(entries):
                read = [(entry.offset, entry.body, entry.routing_key) async for entry in entries]
            assert read == [(n, b"%d" % n, keys[n % 2]) for n in expected]

        bodies: list[bytes] = []
        async with contextlib.aclosing(session.read_stream(NAMES.billing_stream, 28)) as tail:
            bodies.append((await soon(anext(tail))).body)
            await soon(kick(bus, desk, session))
            await bus.put(NAMES.billing_exchange, keys[0], b"30")
            bodies.extend([(await soon(anext(tail))).body for _ in range(2)])
        assert bodies == [b"28", b"29", b"30"]
