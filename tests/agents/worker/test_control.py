"""Orders about claims count for their own tenant's claims, once, and never for what is not here."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from agents.worker.jobs.recovery import REMIND_AFTER, forget_the_old, remind_of_ends
from agents.worker.journal.claims import ClaimState
from agents.worker.orders.claims import Claimed
from agents.worker.services import Services
from agents.worker.speech.post import KEEP_DAYS
from bus.delivery import Fate
from runtime.outbox import Later, Sent
from schemas import ids
from schemas.refusals import Reason
from schemas.reports import Claim, Finished, Heartbeat, Log
from schemas.statements import Usage
from tests.agents.worker.world import NAMES, FakeDelivery, Script, World
from tests.clocks import START


async def _claim(world: World, services: Services, **job: Any) -> tuple[Claimed, Claim]:
    claimed = await services.claims.take_in(await world.dinah.offer(**job))
    assert claimed is not None
    return claimed, world.bus.of(Claim)[-1]


async def _finish(world: World, services: Services) -> tuple[Claim, Finished]:
    """A job that ran to its end, with all of its log on the bus."""
    claimed, claim = await _claim(world, services)
    await services.control.handle(await world.dinah.grant(claim))
    await services.lives.live(claimed, 0)
    finished = await world.bus.until(Finished)
    await world.bus.until_true(lambda: len(world.bus.log()) == finished.log_bytes)
    return claim, finished


async def test_another_tenant_cannot_order_about_my_claim(world: World) -> None:
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        for order in (
            await world.eliza.grant(claim),
            await world.eliza.cancel(claim),
            await world.eliza.settled(claim),
            await world.eliza.resend(claim, 0, 10),
        ):
            assert await services.control.handle(order) is Fate.DEAD
        assert claimed.handle.answer is None
        assert claimed.handle.stop_cause is None
        assert services.counts.refused.labels(Reason.WRONG_ORIGIN.value)._value.get() == 4


async def test_an_order_through_anothers_exchange_is_refused(world: World) -> None:
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        grant = await world.dinah.grant(claim)
        moved = FakeDelivery(grant.body, NAMES.control_exchange(world.eliza.tenant))
        assert await services.control.handle(moved) is Fate.DEAD
        assert claimed.handle.answer is None


async def test_a_grant_for_another_attempt_than_the_claims_is_refused(world: World) -> None:
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        other = claim.model_copy(update={"attempt": ids.new_attempt_id()})
        assert await services.control.handle(await world.dinah.grant(other)) is Fate.DEAD
        assert claimed.handle.answer is None


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x95\x01"])
async def test_garbage_is_dead_and_nothing_else_happens(world: World, garbage: bytes) -> None:
    async with world.running() as services:
        delivery = FakeDelivery(garbage, NAMES.control_exchange(world.dinah.tenant))
        assert await services.control.handle(delivery) is Fate.DEAD


async def test_a_job_is_no_order_about_a_claim(world: World) -> None:
    async with world.running() as services:
        delivery = FakeDelivery(await world.dinah.job(), NAMES.control_exchange(world.dinah.tenant))
        assert await services.control.handle(delivery) is Fate.DEAD


async def test_orders_about_claims_that_are_not_here_have_no_effect(world: World) -> None:
    async with world.running() as services:
        _, claim = await _claim(world, services)
        stranger = claim.model_copy(update={"claim": ids.new_claim_id(), "attempt": ids.new_attempt_id()})
        world.bus.published.clear()
        for order in (
            await world.dinah.stand_down(stranger),
            await world.dinah.cancel(stranger),
            await world.dinah.resend(stranger, 0, 10),
            await world.dinah.settled(stranger),
        ):
            assert await services.control.handle(order) is Fate.SETTLED
    assert world.bus.published == []


async def test_the_same_order_again_is_settled_quietly(world: World) -> None:
    async with world.running() as services:
        claim, _ = await _finish(world, services)
        resend = await world.dinah.resend(claim, 0, 10)
        before = len(world.bus.of(Log))
        assert await services.control.handle(resend) is Fate.SETTLED
        await world.bus.until(Log, before + 1)
        assert await services.control.handle(FakeDelivery(resend.body, resend.exchange)) is Fate.SETTLED
        assert not services.logs.is_busy


async def test_a_resend_gives_the_same_bytes_again(world: World) -> None:
    world.fake.script = Script(chunks=[b"x" * 1000 for _ in range(50)])
    async with world.running() as services:
        claim, finished = await _finish(world, services)
        first = {said.message.offset: said.body for said in world.bus.published if isinstance(said.message, Log)}
        world.bus.published.clear()
        await services.control.handle(await world.dinah.resend(claim, 0, finished.log_bytes, (finished.sequence,)))
        await world.bus.until(Finished)
        await world.bus.until_true(lambda: len(world.bus.of(Log)) == len(first))
    again = {said.message.offset: said.body for said in world.bus.published if isinstance(said.message, Log)}
    assert again == first
    assert world.bus.of(Finished) == [finished]


async def test_settled_forgets_everything(world: World) -> None:
    async with world.running() as services:
        claim, _ = await _finish(world, services)
        assert (await services.journal.claims())[0].state is ClaimState.OVER
        assert await services.control.handle(await world.dinah.settled(claim)) is Fate.SETTLED
        assert await services.journal.claims() == []
    assert list((world.directory / "spool").iterdir()) == []


async def test_a_running_claim_is_not_settled_away(world: World) -> None:
    world.fake.script = Script(lasts=True)
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        await services.control.handle(await world.dinah.grant(claim))
        living = asyncio.create_task(services.lives.live(claimed, 0))
        await world.bus.until(Heartbeat)
        await services.control.handle(await world.dinah.settled(claim))
        assert (await services.journal.claims())[0].state is ClaimState.GRANTED
        await services.control.handle(await world.dinah.cancel(claim))
        await living
        await world.bus.until(Finished)


async def test_what_was_not_settled_is_sent_after_a_restart(world: World) -> None:
    async with world.running() as services:
        claim, finished = await _finish(world, services)
    world.bus.published.clear()
    async with world.running() as services:
        await services.control.handle(await world.dinah.resend(claim, 0, finished.log_bytes, (finished.sequence,)))
        assert (await world.bus.until(Finished)) == finished
        await world.bus.until_true(lambda: len(world.bus.log()) == finished.log_bytes)
    assert ids.sha256_hex(world.bus.log()) == finished.log_sha256


async def test_an_end_that_nobody_settles_is_said_again_in_the_same_bytes(world: World) -> None:
    """The order that settles it was lost on its way: without this it would stay here, and count, for two weeks."""
    async with world.running() as services:
        await _finish(world, services)
        await world.bus.until(Usage, 10)
        for late in (timedelta(0), REMIND_AFTER + timedelta(seconds=1)):
            await remind_of_ends(services.journal, services.post, START + late)
        await world.bus.until(Finished, 2)
    first, second = [said for said in world.bus.published if isinstance(said.message, Finished)]
    assert (first.body, first.exchange) == (second.body, second.exchange)


async def test_an_end_that_still_waits_for_the_bus_is_not_said_twice(world: World) -> None:
    world.bus.answer = lambda said: Later("away") if isinstance(said.message, Finished) else Sent()
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        await services.control.handle(await world.dinah.grant(claim))
        await services.lives.live(claimed, 0)
        unsent = await services.journal.count_unsent()
        await remind_of_ends(services.journal, services.post, START + 2 * REMIND_AFTER)
        assert await services.journal.count_unsent() <= unsent


async def test_what_nobody_settles_is_forgotten_in_the_end(world: World) -> None:
    async with world.running() as services:
        await _finish(world, services)
        await forget_the_old(services.journal, services.logs, START + timedelta(days=KEEP_DAYS - 1))
        assert len(await services.journal.claims()) == 1
        await forget_the_old(services.journal, services.logs, START + timedelta(days=KEEP_DAYS + 1))
        assert await services.journal.claims() == []
    assert list((world.directory / "spool").iterdir()) == []
