"""Slots live apart, and stop in three steps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agents.worker.orders.admission import Lent
from agents.worker.orders.slots import Slots
from agents.worker.services import Services
from runtime.errors import OurFault
from runtime.lifecycle import Stop, StopLevel
from schemas.ends import EndReason
from schemas.orders import Job
from schemas.refusals import Reason
from schemas.reports import Claim, Finished, Heartbeat, Released
from tests.agents.worker.world import FakeDelivery, Script, World


class Work:
    """Deliveries for whichever slot is free."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[FakeDelivery] = asyncio.Queue()

    async def take(self) -> FakeDelivery:
        return await self.queue.get()


@asynccontextmanager
async def _slots(
    world: World, services: Services, work: Work, count: int = 2
) -> AsyncIterator[tuple[Slots, Stop, asyncio.Task[None]]]:
    stop = Stop()
    slots = Slots(
        count, take=work.take, claims=services.claims, lives=services.lives, handles=services.handles, stop=stop,
        clock=world.clock,
    )  # fmt: skip
    task = asyncio.create_task(slots.run())
    try:
        async with asyncio.timeout(10):
            yield slots, stop, task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _grant_a_job(world: World, services: Services, work: Work) -> Claim:
    count = len(world.bus.of(Claim)) + 1
    await work.queue.put(await world.dinah.offer())
    claim: Claim = await world.bus.until(Claim, count)
    await services.control.handle(await world.dinah.grant(claim))
    return claim


async def _start_a_long_job(world: World, services: Services, work: Work) -> Claim:
    """A job that runs until it is told to end, and is known to run."""
    world.fake.script = Script(lasts=True)
    claim = await _grant_a_job(world, services, work)
    await world.bus.until_true(lambda: any(beat.claim == claim.claim for beat in world.bus.of(Heartbeat)))
    return claim


async def test_one_slot_works_while_the_other_waits_for_its_grant(world: World) -> None:
    work = Work()
    async with world.running() as services, _slots(world, services, work) as (slots, _, _):
        await work.queue.put(await world.dinah.offer())
        await world.bus.until(Claim)
        await _grant_a_job(world, services, work)
        await world.bus.until(Finished)
        assert sum(slot.attempt is not None for slot in slots.states) >= 1


async def test_draining_finishes_what_runs_and_takes_nothing_more(world: World) -> None:
    work = Work()
    async with world.running() as services, _slots(world, services, work, count=1) as (_, stop, running):
        claim = await _start_a_long_job(world, services, work)
        stop.press()
        late = await world.dinah.offer()
        await work.queue.put(late)
        assert not running.done()
        await services.control.handle(await world.dinah.cancel(claim))
        await running
        assert (await world.bus.until(Finished)).reason is EndReason.CANCELLED
    assert late.fate is None


async def test_handing_back_releases_what_waits_and_ends_what_runs(world: World) -> None:
    work = Work()
    async with world.running() as services, _slots(world, services, work) as (_, stop, running):
        await _start_a_long_job(world, services, work)
        await work.queue.put(await world.dinah.offer())
        await world.bus.until(Claim, 2)
        stop.rise_to(StopLevel.HAND_BACK)
        await running
        assert (await world.bus.until(Finished)).reason is EndReason.WORKER_SHUTDOWN
        assert (await world.bus.until(Released)).reason is Reason.DRAINING


async def test_an_idle_worker_stops_at_once(world: World) -> None:
    async with world.running() as services, _slots(world, services, Work()) as (_, stop, running):
        stop.press()
        await running


async def test_a_surprise_in_one_job_leaves_the_slot_alive(world: World) -> None:
    world.fake.script = Script(fault=RuntimeError("a surprise"))
    work = Work()
    async with world.running() as services, _slots(world, services, work, count=1):
        await work.queue.put(await world.dinah.offer())
        claim = await world.bus.until(Claim)
        await services.control.handle(await world.dinah.grant(claim))
        assert (await world.bus.until(Finished)).reason is EndReason.SANDBOX_FAILED
        world.fake.script = Script()
        await _grant_a_job(world, services, work)
        assert (await world.bus.until(Finished, 2)).reason is EndReason.SUCCEEDED


async def test_a_fault_that_a_person_must_mend_ends_no_job_that_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def changed_root(_: Job) -> Lent:
        raise OurFault("the desk's card is not signed by our own root key")

    work = Work()
    async with world.running() as services, _slots(world, services, work) as (_, _, running):
        claim = await _start_a_long_job(world, services, work)
        monkeypatch.setattr(services.claims, "_lent", changed_root)
        second = await world.dinah.offer()
        await work.queue.put(second)
        done, _ = await asyncio.wait([running], timeout=0.05)
        assert not done
        assert second.fate == "requeue"
        await services.control.handle(await world.dinah.cancel(claim))
        with pytest.raises(OurFault):
            await running
        assert (await world.bus.until(Finished)).reason is EndReason.CANCELLED
