"""Every right of the table on a real RabbitMQ, and its opposite."""

import asyncio
from collections.abc import AsyncIterator

import aio_pika
import pytest
import pytest_asyncio
from aio_pika.exceptions import ChannelClosed

from bus.access import AdminAccess
from bus.topology import MAX_TENANTS, agent_rights, jobs_key, usage_key
from runtime.outbox import Rejected, Sent, Unroutable
from schemas.ids import tenant_id
from tests.bus_world import DINAH, ELIZA, NAMES, PROVIDER, Bus, PlayedDesk, bus_for_tests, kick, running, say, soon


@pytest_asyncio.fixture
async def bus(rabbitmq: AdminAccess, vhost: str) -> AsyncIterator[Bus]:
    async with bus_for_tests(rabbitmq, vhost) as bus:
        yield bus


@pytest_asyncio.fixture
async def dinah(bus: Bus) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    """A connection of Dinah's controller that obeys none of our rules."""
    desk = bus.controller()
    await desk()
    async with await aio_pika.connect(bus.access.amqp_url(bus.vhost, desk.user, desk.password)) as connection:
        yield connection


async def test_a_controller_writes_to_its_own_three_exchanges(bus: Bus) -> None:
    async with running(bus.controller()) as session:
        await soon(session.up())
        assert await say(session, NAMES.jobs_exchange(DINAH), jobs_key("fast")) == Sent()
        assert await say(session, NAMES.control_exchange(DINAH), "w7") == Sent()
        assert await say(session, NAMES.receipts_exchange(DINAH)) == Sent()
    assert await bus.count(NAMES.jobs_queue(DINAH, "fast")) == 1
    assert await bus.count(NAMES.control_queue(DINAH, "w7")) == 1
    assert await bus.count(NAMES.receipts_queue) == 1


@pytest.mark.parametrize(
    "exchange",
    [
        NAMES.jobs_exchange(ELIZA),
        NAMES.control_exchange(ELIZA),
        NAMES.receipts_exchange(ELIZA),
        NAMES.replies(DINAH),
        NAMES.logs(DINAH),
        NAMES.billing_exchange,
        NAMES.dead_exchange,
        "",
        "amq.topic",
        "amq.direct",
    ],
)
async def test_a_controller_writes_nowhere_else(bus: Bus, exchange: str) -> None:
    async with running(bus.controller()) as session:
        await soon(session.up())
        result = await say(session, exchange, NAMES.jobs_queue(DINAH, "fast"))
        assert isinstance(result, Rejected)
        assert "ACCESS_REFUSED" in result.reason
        # The innocent exchange has a channel of its own.
        assert await say(session, NAMES.jobs_exchange(DINAH), "fast") == Sent()


@pytest.mark.parametrize(
    "queue",
    [
        NAMES.replies(ELIZA),
        NAMES.logs(ELIZA),
        NAMES.jobs_queue(DINAH, "fast"),
        NAMES.control_queue(DINAH, "w7"),
        NAMES.receipts_queue,
        NAMES.billing_ledger_queue,
        NAMES.billing_stream,
        NAMES.dead_queue,
    ],
)
async def test_a_controller_reads_nobody_elses_queue(dinah: aio_pika.abc.AbstractConnection, queue: str) -> None:
    channel = await dinah.channel()
    with pytest.raises(ChannelClosed, match="ACCESS_REFUSED"):
        await soon((await channel.get_queue(queue, ensure=False)).get(fail=False))


async def test_a_controller_reads_its_own_two_queues(dinah: aio_pika.abc.AbstractConnection) -> None:
    channel = await dinah.channel()
    for queue in (NAMES.replies(DINAH), NAMES.logs(DINAH)):
        assert await soon((await channel.get_queue(queue, ensure=False)).get(fail=False)) is None


async def test_a_controller_declares_nothing(dinah: aio_pika.abc.AbstractConnection) -> None:
    for name in ("mine", NAMES.replies(DINAH) + ".2", ""):
        channel = await dinah.channel()
        with pytest.raises(ChannelClosed, match="ACCESS_REFUSED"):
            await soon(channel.declare_queue(name, durable=True))
    channel = await dinah.channel()
    with pytest.raises(ChannelClosed, match="ACCESS_REFUSED"):
        await soon(channel.declare_exchange("mine"))


async def test_a_controller_binds_and_deletes_nothing(dinah: aio_pika.abc.AbstractConnection) -> None:
    channel = await dinah.channel()
    with pytest.raises(ChannelClosed, match="ACCESS_REFUSED"):
        await soon((await channel.get_queue(NAMES.replies(DINAH), ensure=False)).bind(NAMES.billing_exchange, "#"))
    channel = await dinah.channel()
    with pytest.raises(ChannelClosed, match="ACCESS_REFUSED"):
        await soon(channel.queue_delete(NAMES.replies(DINAH)))


async def test_a_worker_answers_and_bills_and_writes_no_orders(bus: Bus) -> None:
    async with running(bus.worker()) as session:
        await soon(session.up())
        for tenant in (DINAH, ELIZA):
            assert await say(session, NAMES.replies(tenant)) == Sent()
            assert await say(session, NAMES.logs(tenant)) == Sent()
            assert await say(session, NAMES.billing_exchange, usage_key(tenant, "attempts")) == Sent()
            assert isinstance(await say(session, NAMES.jobs_exchange(tenant), "fast"), Rejected)
            assert isinstance(await say(session, NAMES.control_exchange(tenant), "w1"), Rejected)
            assert isinstance(await say(session, NAMES.receipts_exchange(tenant)), Rejected)
        assert isinstance(await say(session, "", NAMES.replies(DINAH)), Rejected)
    assert await bus.count(NAMES.billing_ledger_queue) == 2


async def test_a_worker_reads_its_pool_and_its_own_orders_only(bus: Bus) -> None:
    desk = bus.worker("w7")
    await desk()
    async with await aio_pika.connect(bus.access.amqp_url(bus.vhost, desk.user, desk.password)) as connection:
        for queue in (NAMES.jobs_queue(DINAH, "fast"), NAMES.control_queue(ELIZA, "w7")):
            channel = await connection.channel()
            assert await soon((await channel.get_queue(queue, ensure=False)).get(fail=False)) is None
        for queue in (NAMES.jobs_queue(DINAH, "boards"), NAMES.control_queue(ELIZA, "w1"), NAMES.replies(DINAH)):
            channel = await connection.channel()
            with pytest.raises(ChannelClosed, match="ACCESS_REFUSED"):
                await soon((await channel.get_queue(queue, ensure=False)).get(fail=False))


@pytest.mark.parametrize("role", ["ledger", "desk"])
async def test_who_does_not_measure_does_not_bill(bus: Bus, role: str) -> None:
    desk: PlayedDesk = getattr(bus, role)()
    async with running(desk) as session:
        await soon(session.up())
        assert isinstance(await say(session, NAMES.billing_exchange, usage_key(DINAH, "attempts")), Rejected)
        assert await say(session, NAMES.replies(DINAH)) == Sent()


async def test_rights_given_while_connected_hold_at_once(bus: Bus) -> None:
    desk = bus.worker(tenants=(DINAH,))
    async with running(desk) as session:
        await soon(session.up())
        assert isinstance(await say(session, NAMES.replies(ELIZA)), Rejected)
        await bus.provisioner.update_rights(desk.user, bus.worker().rights)
        assert await say(session, NAMES.replies(ELIZA)) == Sent()


async def test_rights_taken_away_hold_once_the_connections_are_closed(bus: Bus) -> None:
    """A busy channel remembers what it was allowed, so the desk closes the connections too."""
    desk = bus.worker()
    async with running(desk) as session:
        await soon(session.up())
        assert await say(session, NAMES.replies(ELIZA)) == Sent()
        await bus.provisioner.update_rights(desk.user, bus.worker(tenants=(DINAH,)).rights)
        await soon(kick(bus, desk, session))
        await soon(session.up())
        assert isinstance(await say(session, NAMES.replies(ELIZA)), Rejected)
        assert await say(session, NAMES.replies(DINAH)) == Sent()


async def test_what_nobody_reads_is_unroutable_and_what_is_full_is_rejected(bus: Bus) -> None:
    async with running(bus.controller()) as session:
        await soon(session.up())
        assert isinstance(await say(session, NAMES.jobs_exchange(DINAH), "no-such-pool"), Unroutable)
        results = [await say(session, NAMES.jobs_exchange(DINAH), "fast") for _ in range(20)]
        full = [result for result in results if isinstance(result, Rejected)]
        assert full
        assert "full" in full[0].reason
        assert {type(result) for result in results} == {Sent, Rejected}
        # Another pool of the same tenant has room.
        assert await say(session, NAMES.jobs_exchange(DINAH), "boards") == Sent()
    assert await bus.count(NAMES.jobs_queue(DINAH, "fast")) == len(results) - len(full)


async def test_many_refused_at_once_cost_no_innocent_one_anything(bus: Bus) -> None:
    async with running(bus.controller()) as session:
        await soon(session.up())
        wrong = [say(session, NAMES.replies(ELIZA)) for _ in range(100)]
        right = [say(session, NAMES.receipts_exchange(DINAH)) for _ in range(100)]
        refused, sent = await asyncio.gather(asyncio.gather(*wrong), asyncio.gather(*right))
        assert {type(result) for result in refused} == {Rejected}
        assert set(sent) == {Sent()}
        assert session.status.connects == 1


async def test_a_missing_exchange_is_unroutable(bus: Bus) -> None:
    await bus.provisioner.remove_tenant(NAMES, ELIZA)
    async with running(bus.worker()) as session:
        await soon(session.up())
        assert isinstance(await say(session, NAMES.replies(ELIZA)), Unroutable)
        assert await say(session, NAMES.replies(DINAH)) == Sent()


async def test_rabbitmq_holds_the_rights_of_a_worker_of_the_longest_name_for_the_most_tenants(bus: Bus) -> None:
    many = tuple(tenant_id("https://fatima.example", str(number)) for number in range(MAX_TENANTS - 1))
    rights = agent_rights("worker", PROVIDER, (*many, DINAH), worker="w" * 40, pools=["p" * 40])
    async with running(PlayedDesk(bus, rights)) as session:
        await soon(session.up())
        assert await say(session, NAMES.replies(DINAH)) == Sent()
        assert isinstance(await say(session, NAMES.replies(ELIZA)), Rejected)
