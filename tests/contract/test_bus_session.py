"""A session over everything that befalls connections: what was confirmed is there, and consuming goes on."""

import asyncio
from collections.abc import AsyncIterator

import aio_pika
import pytest
import pytest_asyncio

from bus.access import AdminAccess
from bus.delivery import Delivery, Fate
from bus.link import Link
from bus.session import BusSession, SessionLimits
from runtime.clock import SystemClock
from runtime.outbox import Later, Sent
from schemas.refusals import Reason, Refusal
from schemas.sessions import SessionGranted
from tests.bus_world import DINAH, NAMES, QUICK, Bus, bus_for_tests, kick, running, say, soon
from tests.proxy import Mode, Proxy, proxy_to

JOBS = NAMES.jobs_exchange(DINAH)
REPLIES = NAMES.replies(DINAH)


@pytest_asyncio.fixture
async def bus(rabbitmq: AdminAccess, vhost: str) -> AsyncIterator[Bus]:
    async with bus_for_tests(rabbitmq, vhost) as bus:
        yield bus


@pytest_asyncio.fixture
async def proxy(bus: Bus) -> AsyncIterator[Proxy]:
    async with proxy_to(bus.access.amqp_host, bus.access.amqp_port) as proxy:
        yield proxy


class Inbox:
    """A handler that remembers, and lets a test wait for what it should get."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._changed = asyncio.Condition()

    async def __call__(self, delivery: Delivery) -> Fate:
        async with self._changed:
            self.bodies.append(delivery.body)
            self._changed.notify_all()
        return Fate.SETTLED

    async def until(self, wanted: set[bytes]) -> None:
        async with self._changed:
            await soon(self._changed.wait_for(lambda: wanted <= set(self.bodies)))


async def test_a_session_that_the_desk_refuses_says_why_and_comes_up_when_it_is_admitted(bus: Bus) -> None:
    desk = bus.controller()
    desk.refusal = Refusal(Reason.HELD_FOR_APPROVAL, "the owner has not decided")
    async with running(desk) as session:
        status = session.status
        while "held-for-approval" not in status.reason:
            status = await soon(session.status_changed(status))
        assert not status.is_up
        assert isinstance(await say(session, JOBS, "fast"), Later)
        desk.refusal = None
        granted = await soon(session.up())
        assert granted.tenants == desk.tenants
        assert await say(session, JOBS, "fast") == Sent()


async def test_after_a_server_side_close_the_session_reconnects_and_nothing_confirmed_is_lost(bus: Bus) -> None:
    desk, inbox = bus.worker(), Inbox()
    confirmed: set[bytes] = set()

    async def publish_all(first: int) -> None:
        for number in range(first, first + 300):
            body = b"%d" % number
            while await say(session, REPLIES, body=body) != Sent():
                await soon(session.up())
            confirmed.add(body)

    async with running(desk) as session, running(bus.controller()) as reader:
        reader.consume(REPLIES, inbox, probe_seconds=0.2)
        await soon(session.up())
        async with asyncio.TaskGroup() as tasks:
            for first in range(0, 1200, 300):
                tasks.create_task(publish_all(first))
            for _ in range(3):
                await soon(kick(bus, desk, session))
                await soon(session.up())
        await inbox.until(confirmed)
        assert session.status.connects >= 4
    assert len(confirmed) == 1200


async def test_a_cut_while_consuming_brings_again_what_was_not_settled(bus: Bus, proxy: Proxy) -> None:
    desk, inbox = bus.controller(), Inbox()
    desk.address = bus.address(proxy.port)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow_once(delivery: Delivery) -> Fate:
        if not entered.is_set():
            entered.set()
            await leave.wait()
        return await inbox(delivery)

    async with running(desk) as session:
        session.consume(REPLIES, slow_once, probe_seconds=0.2)
        await soon(session.up())
        await bus.put(REPLIES, "", b"1", b"2", b"3")
        await soon(entered.wait())
        up = session.status
        proxy.cut()
        await soon(session.status_changed(up))
        # The connection is gone; the handler is not: it finishes, and its late acknowledgement is no error.
        leave.set()
        await inbox.until({b"1", b"2", b"3"})
        await soon(session.up())
    assert inbox.bodies.count(b"1") == 2
    assert await bus.count(REPLIES) == 0


async def test_a_bus_that_cannot_be_reached_is_waited_for(bus: Bus, proxy: Proxy) -> None:
    desk = bus.controller()
    desk.address = bus.address(proxy.port)
    proxy.mode = Mode.REFUSE
    async with running(desk) as session:
        status = session.status
        while "connecting to the bus" not in status.reason:
            status = await soon(session.status_changed(status))
        proxy.mode = Mode.OK
        await soon(session.up())
        assert await say(session, JOBS, "fast") == Sent()


async def test_a_bus_that_swallows_everything_gives_an_answer_in_time(bus: Bus, proxy: Proxy) -> None:
    desk = bus.controller()
    desk.address = bus.address(proxy.port)
    async with running(desk, bounds=SessionLimits(publish_seconds=0.5)) as session:
        await soon(session.up())
        assert await say(session, JOBS, "fast") == Sent()
        proxy.mode = Mode.BLACKHOLE
        result = await say(session, JOBS, "fast")
        assert result == Later("no confirm within 0.5 s")
        proxy.mode = Mode.OK
        proxy.cut()


async def test_a_removed_user_waits_with_the_reason_and_comes_back_with_fresh_credentials(bus: Bus) -> None:
    desk, inbox = bus.controller(), Inbox()
    async with running(desk) as session:
        session.consume(REPLIES, inbox)
        await soon(session.up())
        up = session.status
        desk.refusal = Refusal(Reason.SUSPENDED, "by the owner")
        await desk.remove_user()
        status = await soon(session.status_changed(up))
        while "suspended" not in status.reason:
            status = await soon(session.status_changed(status))
        assert not status.is_up
        desk.name_another_user()
        desk.refusal = None
        await soon(session.up())
        await bus.put(REPLIES, "", b"after")
        await inbox.until({b"after"})


async def test_a_session_is_extended_before_it_ends_without_a_new_connection(bus: Bus) -> None:
    desk = bus.controller()
    desk.session_seconds = 1.0
    bounds = SessionLimits(shortest_renewal_seconds=0.1)
    async with running(desk, bounds=bounds) as session:
        first = await soon(session.up())
        desk.asked_again.clear()
        await soon(desk.asked_again.wait())
        assert await say(session, JOBS, "fast") == Sent()
        assert session.status.connects == 1
        assert session.granted is not None
        assert session.granted.ends_at > first.ends_at
        # A desk that is away for one renewal costs nothing either.
        desk.refusal = Refusal(Reason.RATE_LIMITED)
        desk.asked_again.clear()
        await soon(desk.asked_again.wait())
        assert await say(session, JOBS, "fast") == Sent()


async def test_another_user_replaces_the_connections_without_a_gap(bus: Bus) -> None:
    desk, inbox = bus.worker(), Inbox()
    desk.session_seconds = 1.0
    bounds = SessionLimits(shortest_renewal_seconds=0.1, retire_seconds=0.2, first_retry_seconds=0.05)
    queue = NAMES.control_queue(DINAH, "w7")
    async with running(desk, bounds=bounds) as session:
        subscription = session.consume(queue, inbox, probe_seconds=0.2)
        await soon(session.up())
        old = session.status
        desk.name_another_user()
        results: list[object] = []
        while session.status == old or len(results) < 200:
            results.append(await say(session, REPLIES))
        assert set(results) == {Sent()}
        assert session.status.is_up
        await soon(subscription.consuming())
        await bus.put(NAMES.control_exchange(DINAH), "w7", b"an order")
        await inbox.until({b"an order"})
        assert session.status.connects == 2


async def test_who_follows_changes_hears_of_a_new_tenant(bus: Bus) -> None:
    desk = bus.worker()
    desk.tenants = (DINAH,)
    async with running(desk, follows_changes=True, bounds=SessionLimits(shortest_renewal_seconds=0.05)) as session:
        before = await soon(session.up())
        desk.tenants, desk.revision = (DINAH, DINAH[:-1] + "a"), 2
        after = await soon(session.changed(before))
        assert after.tenants == desk.tenants
        assert session.status.connects == 1


async def test_plaintext_to_another_machine_is_refused_and_said(bus: Bus) -> None:
    desk = bus.controller()
    desk.address = desk.address.model_copy(update={"host": "192.0.2.1", "is_tls": False})
    async with running(desk) as session:
        status = session.status
        while "plaintext to 192.0.2.1" not in status.reason:
            status = await soon(session.status_changed(status))


async def test_many_publish_at_once_and_all_are_confirmed(bus: Bus) -> None:
    async with running(bus.worker(), bounds=QUICK) as session:
        await soon(session.up())
        results = await soon(asyncio.gather(*(say(session, REPLIES, body=b"%d" % n) for n in range(2000))))
        assert set(results) == {Sent()}
    assert await bus.count(REPLIES) == 2000


async def test_closing_lets_the_handler_finish_and_settle(bus: Bus) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(_: Delivery) -> Fate:
        entered.set()
        await leave.wait()
        return Fate.SETTLED

    await bus.put(REPLIES, "", b"1", b"2")
    async with running(bus.controller()) as session:
        session.consume(REPLIES, slow)
        await soon(entered.wait())
        closing = asyncio.create_task(session.close())
        leave.set()
        await soon(closing)
    assert await bus.take_all(REPLIES) == [b"2"]


async def test_cancelling_the_session_cancels_the_handler_and_keeps_the_message(bus: Bus) -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(_: Delivery) -> Fate:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return Fate.SETTLED

    await bus.put(REPLIES, "", b"1")
    session = BusSession(bus.controller(), name="a test", clock=SystemClock(), bounds=QUICK)
    session.consume(REPLIES, endless)
    task = asyncio.create_task(session.run())
    await soon(entered.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert cancelled.is_set()
    assert not session.status.is_up
    assert await bus.take_all(REPLIES) == [b"1"]


async def test_a_connection_lost_while_the_other_was_opened_ends_the_link(bus: Bus) -> None:
    desk = bus.controller()
    granted = await desk()
    assert isinstance(granted, SessionGranted)
    lost = asyncio.Event()
    publishing = await aio_pika.connect(bus.access.amqp_url(bus.vhost, desk.user, desk.password))
    publishing.close_callbacks.add(lambda *_: lost.set())
    await desk.remove_user()
    await soon(lost.wait())
    link = Link(granted, publishing, bus.admin)
    assert "CONNECTION_FORCED" in await soon(link.ended())
