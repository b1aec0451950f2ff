"""One delivery for one free slot, tenants in turn, awake within milliseconds and idle at no cost."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bus.access import AdminAccess
from bus.delivery import Delivery
from bus.session import Taker
from schemas.ids import tenant_id
from tests.bus_world import DINAH, ELIZA, NAMES, Bus, bus_for_tests, kick, running, soon

D, E = NAMES.jobs_queue(DINAH, "fast"), NAMES.jobs_queue(ELIZA, "fast")


@pytest_asyncio.fixture
async def bus(rabbitmq: AdminAccess, vhost: str) -> AsyncIterator[Bus]:
    async with bus_for_tests(rabbitmq, vhost) as bus:
        yield bus


async def offer(bus: Bus, tenant: str, *bodies: bytes) -> None:
    await bus.put(NAMES.jobs_exchange(tenant), "fast", *bodies)


async def taken(taker: Taker) -> bytes:
    delivery = await soon(taker.take())
    assert await delivery.ack()
    return delivery.body


async def test_a_tenant_with_many_jobs_waits_as_long_as_one_with_few(bus: Bus) -> None:
    await offer(bus, DINAH, b"d1", b"d2", b"d3", b"d4")
    await offer(bus, ELIZA, b"e1", b"e2")
    async with running(bus.worker()) as session:
        taker = session.taker([D, E])
        assert [await taken(taker) for _ in range(6)] == [b"d1", b"e1", b"d2", b"e2", b"d3", b"d4"]


async def test_nothing_is_taken_without_a_free_slot(bus: Bus) -> None:
    await offer(bus, DINAH, b"d1", b"d2", b"d3")
    async with running(bus.worker()) as session:
        taker = session.taker([D, E])
        held = await soon(taker.take())
        assert await bus.count(D) == 2
        # Acknowledging pulls nothing in: the next is for who has a slot.
        await held.ack()
        async with running(bus.worker("w1")) as other:
            assert [await taken(other.taker([D])) for _ in range(1)] == [b"d2"]
    assert await bus.count(D) == 1


async def test_an_idle_worker_is_awake_within_50_ms(bus: Bus) -> None:
    delays = []
    async with running(bus.worker()) as session, running(bus.controller(ELIZA)) as controller:
        await soon(controller.up())
        taker = session.taker([D, E])
        for number in range(20):
            slot = asyncio.create_task(taker.take())
            await soon(taker.idle())
            started = time.perf_counter()
            await controller.publish(
                NAMES.jobs_exchange(ELIZA), "fast", b"%d" % number, message_type="t/1", correlation_id="a"
            )
            delivery = await soon(slot)
            delays.append(time.perf_counter() - started)
            await delivery.ack()
    assert statistics.median(delays) < 0.05, delays


async def test_an_idle_worker_costs_next_to_nothing(bus: Bus) -> None:
    async with running(bus.worker()) as session:
        taker = session.taker([D, E])
        slot = asyncio.create_task(taker.take())
        await soon(taker.idle())
        before, rounds = time.process_time(), taker._turn
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.shield(slot)
        assert time.process_time() - before < 0.1
        assert taker._turn == rounds
        slot.cancel()


async def test_many_slots_share_what_comes_and_each_delivery_goes_to_one(bus: Bus) -> None:
    async with running(bus.worker()) as session, running(bus.worker("w1")) as other:
        takers = [session.taker([D, E]), other.taker([E, D])]
        slots = [asyncio.create_task(taken(taker)) for taker in takers for _ in range(4)]
        for taker in takers:
            await soon(taker.idle())
        bodies = {tenant: [b"%s %d" % (tenant[-3:].encode(), n) for n in range(4)] for tenant in (DINAH, ELIZA)}
        await asyncio.gather(*(offer(bus, tenant, *bodies[tenant]) for tenant in bodies))
        got = await soon(asyncio.gather(*slots))
        assert sorted(got) == sorted(bodies[DINAH] + bodies[ELIZA])
    assert await bus.count(D) + await bus.count(E) == 0


async def test_a_surplus_delivery_goes_back_to_its_queue(bus: Bus) -> None:
    async with running(bus.worker()) as session:
        taker = session.taker([D, E])
        slot = asyncio.create_task(taker.take())
        await soon(taker.idle())
        await asyncio.gather(offer(bus, DINAH, b"d1"), offer(bus, ELIZA, b"e1"))
        first = await soon(slot)
        await first.ack()
        second = await soon(taker.take())
        assert {first.body, second.body} == {b"d1", b"e1"}
        await second.ack()
    assert await bus.count(D) + await bus.count(E) == 0


async def test_a_cancelled_slot_takes_nothing_along(bus: Bus) -> None:
    async with running(bus.worker()) as session:
        taker = session.taker([D])
        for number in range(10):
            slot = asyncio.create_task(taker.take())
            await soon(taker.idle())
            # Whatever comes first, the delivery or the cancel: afterwards it is there for another slot.
            if number % 2:
                await offer(bus, DINAH, b"%d" % number)
                slot.cancel()
            else:
                slot.cancel()
                await offer(bus, DINAH, b"%d" % number)
            outcome = (await asyncio.gather(slot, return_exceptions=True))[0]
            delivery = outcome if isinstance(outcome, Delivery) else await soon(taker.take())
            assert delivery.body == b"%d" % number
            await delivery.ack()


async def test_a_new_tenant_is_served_while_a_slot_waits(bus: Bus) -> None:
    async with running(bus.worker(tenants=(DINAH, ELIZA))) as session:
        taker = session.taker([D])
        slot = asyncio.create_task(taker.take())
        await soon(taker.idle())
        await offer(bus, ELIZA, b"e1")
        taker.serve([D, E])
        assert (await soon(slot)).body == b"e1"


async def test_a_tenant_that_went_is_not_served_and_what_a_slot_holds_of_it_can_be_settled(bus: Bus) -> None:
    await offer(bus, ELIZA, b"e1")
    async with running(bus.worker()) as session:
        taker = session.taker([D, E])
        held = await soon(taker.take())
        taker.serve([D])
        slot = asyncio.create_task(taker.take())
        await offer(bus, DINAH, b"d1")
        assert (await soon(slot)).body == b"d1"
        assert await held.ack()
        assert list(taker._lanes) == [D] or not taker._lanes[E].is_held
    assert await bus.count(E) == 0


async def test_a_missing_or_deleted_queue_disturbs_nobody_and_comes_back(bus: Bus) -> None:
    gone = tenant_id("https://fatima.example", "gone")
    queue = NAMES.jobs_queue(gone, "fast")
    async with running(bus.worker(tenants=(DINAH, ELIZA, gone))) as session:
        taker = session.taker([queue, D, E])
        slot = asyncio.create_task(taken(taker))
        await offer(bus, DINAH, b"d1")
        assert await soon(slot) == b"d1"
        assert "NOT_FOUND" in taker.problems[queue]

        slot = asyncio.create_task(taken(taker))
        await bus.declare_again(gone)
        await offer(bus, gone, b"g1")
        assert await soon(slot) == b"g1"
        assert not taker.problems

        slot = asyncio.create_task(taken(taker))
        await soon(taker.idle())
        await bus.provisioner.remove_tenant(NAMES, gone)
        await offer(bus, ELIZA, b"e1")
        assert await soon(slot) == b"e1"
        assert session.status.connects == 1


async def test_a_slot_waits_through_a_lost_connection(bus: Bus) -> None:
    desk = bus.worker()
    async with running(desk) as session:
        taker = session.taker([D, E])
        slot = asyncio.create_task(taker.take())
        await soon(taker.idle())
        await soon(kick(bus, desk, session))
        await offer(bus, DINAH, b"d1")
        delivery = await soon(slot)
        assert delivery.body == b"d1"
        # Lost before it was settled: it comes again, and the old delivery is a value.
        await soon(kick(bus, desk, session))
        await soon(session.up())
        assert not await delivery.ack()
        again = await soon(taker.take())
        assert again.body == b"d1"
        assert again.redelivered
        await again.ack()
