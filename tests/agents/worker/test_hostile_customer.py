"""A customer that floods its worker with orders: it costs no disk, and nobody else's bandwidth."""

import sqlite3
from typing import Any

from agents.worker.services import Services
from bus.delivery import Fate
from runtime.outbox import Later, PublishResult, Sent
from schemas import ids
from schemas.orders import Cancel, Order, Resend, Settled, StandDown
from schemas.refusals import Reason
from schemas.reports import Claim, Finished, Log
from tests.agents.worker.world import NAMES, FakeDelivery, Published, World


async def _count(services: Services, table: str) -> int:
    def count(db: sqlite3.Connection) -> int:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - ours

    return await services.journal.file.read(count)


async def _finish(world: World, services: Services) -> tuple[Claim, Finished]:
    claimed = await services.claims.take_in(await world.dinah.offer())
    assert claimed is not None
    claim = world.bus.of(Claim)[-1]
    await services.control.handle(await world.dinah.grant(claim))
    await services.lives.live(claimed, 0)
    finished = await world.bus.until(Finished)
    await world.bus.until_true(lambda: len(world.bus.log()) == finished.log_bytes)
    return claim, finished


async def test_orders_about_claims_that_never_were_are_not_remembered(world: World) -> None:
    models: dict[type[Order], dict[str, Any]] = {
        Cancel: {"id": ids.new_message_id(), "cause": "user"},
        Resend: {"id": ids.new_message_id(), "log_from": 0, "log_to": 10},
        Settled: {"id": ids.new_message_id()},
        StandDown: {"reason": Reason.CANCELLED},
    }
    exchange = NAMES.control_exchange(world.dinah.tenant)
    async with world.running() as services:
        for model, fields in models.items():
            about: dict[str, Any] = {"attempt": ids.new_attempt_id(), "claim": ids.new_claim_id()} | fields
            raw = await world.dinah.speaker.order(NAMES.provider, model, **about)
            assert await services.control.handle(FakeDelivery(raw, exchange)) is Fate.SETTLED
        assert await _count(services, "seen") == 0


async def test_a_log_is_not_sent_many_times_at_once(world: World) -> None:
    async with world.running() as services:
        claim, finished = await _finish(world, services)
        world.bus.answer = lambda said: Later("the logs are full") if isinstance(said.message, Log) else Sent()
        for _ in range(20):
            await services.control.handle(await world.dinah.resend(claim, 0, finished.log_bytes))
        assert len(services.logs._tasks[claim.claim]) == 1


async def test_a_result_asked_for_again_and_again_waits_once_in_the_outbox(world: World) -> None:
    async with world.running() as services:
        claim, finished = await _finish(world, services)

        def answer(said: Published) -> PublishResult:
            return Later("the replies are full") if isinstance(said.message, Finished) else Sent()

        world.bus.answer = answer
        before = await _count(services, "outbox")
        for _ in range(20):
            await services.control.handle(await world.dinah.resend(claim, 0, 0, (finished.sequence,)))
        assert await _count(services, "outbox") <= before + 1
