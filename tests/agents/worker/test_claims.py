"""Every delivery gets one fate, and only one that was claimed is anything to live."""

import pytest

from agents.worker.journal.claims import ClaimState
from runtime.outbox import Later, PublishResult, Sent
from schemas import ids
from schemas.refusals import Reason
from schemas.reports import Claim, Refused, Released
from tests.agents.worker.jobs import PROVIDER, WORKER
from tests.agents.worker.world import NAMES, FakeDelivery, Published, World


async def _refused(world: World, delivery: FakeDelivery) -> Refused:
    """The one refusal that the delivery brings; nothing is claimed."""
    async with world.running() as services:
        assert await services.claims.take_in(delivery) is None
        assert await services.journal.claims() == []
    assert world.bus.of(Claim) == []
    (said,) = world.bus.published
    assert isinstance(said.message, Refused)
    assert delivery.fate == "ack"
    return said.message


async def test_a_job_is_claimed_journalled_and_acknowledged(world: World) -> None:
    delivery = await world.dinah.offer()
    async with world.running() as services:
        claimed = await services.claims.take_in(delivery)
        assert claimed is not None
        (entry,) = await services.journal.claims()
    (claim,) = world.bus.of(Claim)
    assert delivery.fate == "ack"
    assert (entry.state, entry.claim, entry.attempt) == (ClaimState.CLAIMED, claim.claim, claimed.job.attempt)
    assert (claim.aud, claim.sub) == (ids.controller_audience(world.dinah.tenant), WORKER)
    assert world.bus.published[0].exchange == NAMES.replies(world.dinah.tenant)


async def test_a_delivery_is_not_acknowledged_before_the_bus_has_the_claim(world: World) -> None:
    delivery = await world.dinah.offer()
    fates: list[str | None] = []

    def answer(_: Published) -> PublishResult:
        fates.append(delivery.fate)
        return Sent() if len(fates) == 3 else Later("not connected")

    world.bus.answer = answer
    async with world.running() as services:
        assert await services.claims.take_in(delivery) is not None
    assert fates == [None, None, None]
    assert delivery.fate == "ack"


async def test_a_claim_that_the_bus_never_takes_is_released_and_the_job_given_back(world: World) -> None:
    delivery = await world.dinah.offer()

    def answer(said: Published) -> PublishResult:
        world.clock.advance(3)  # type: ignore[attr-defined]
        return Later("blocked") if isinstance(said.message, Claim) else Sent()

    world.bus.answer = answer
    async with world.running() as services:
        assert await services.claims.take_in(delivery) is None
        assert await services.journal.claims() == []
        released = await world.bus.until(Released)
        assert services.handles.all() == ()
    assert delivery.fate == "requeue"
    assert released.reason is Reason.UNDELIVERED


async def test_a_redelivered_job_is_settled_and_not_claimed_again(world: World) -> None:
    first = await world.dinah.offer()
    again = FakeDelivery(first.body, first.exchange)
    async with world.running() as services:
        assert await services.claims.take_in(first) is not None
        assert await services.claims.take_in(again) is None
    assert again.fate == "ack"
    assert len(world.bus.of(Claim)) == 1


async def test_two_jobs_under_one_attempt_are_an_alarm_and_only_the_first_counts(world: World) -> None:
    attempt = ids.new_attempt_id()
    async with world.running() as services:
        assert await services.claims.take_in(await world.dinah.offer(attempt=attempt)) is not None
        assert await services.claims.take_in(await world.dinah.offer(attempt=attempt, name="other")) is None
        assert services.counts.alarms._value.get() == 1
    (refused,) = world.bus.of(Refused)
    assert (refused.reason, refused.attempt) == (Reason.EQUIVOCATION, attempt)


async def test_a_job_that_does_not_fit_is_refused_to_its_owner(world: World) -> None:
    delivery = await world.dinah.offer(toolchains=("cobol",))
    refused = await _refused(world, delivery)
    assert (refused.reason, refused.scope) == (Reason.TOOLCHAIN_NOT_OFFERED, "here")
    assert refused.subject == ids.sha256_hex(delivery.body)
    assert world.bus.published[0].exchange == NAMES.replies(world.dinah.tenant)


async def test_a_draining_worker_refuses(world: World) -> None:
    world.is_draining = True
    assert (await _refused(world, await world.dinah.offer())).reason is Reason.DRAINING


async def test_a_job_for_another_provider_is_refused(world: World) -> None:
    delivery = FakeDelivery(await world.dinah.job(provider="cecilia.example"), NAMES.jobs_exchange(world.dinah.tenant))
    assert (await _refused(world, delivery)).reason is Reason.AUDIENCE


async def test_a_job_in_anothers_exchange_is_refused_to_the_exchanges_owner(world: World) -> None:
    delivery = FakeDelivery(await world.dinah.job(), NAMES.jobs_exchange(world.eliza.tenant))
    async with world.running() as services:
        assert await services.claims.take_in(await world.eliza.offer(pool="slow")) is None  # Eliza is known here
        assert await services.claims.take_in(delivery) is None
    refused = world.bus.published[-1]
    assert isinstance(refused.message, Refused)
    assert refused.message.reason is Reason.WRONG_ORIGIN
    assert refused.exchange == NAMES.replies(world.eliza.tenant)
    assert not any(said.exchange == NAMES.replies(world.dinah.tenant) for said in world.bus.published)


async def test_garbage_from_a_known_tenant_is_refused_to_it(world: World) -> None:
    async with world.running() as services:
        await services.claims.take_in(await world.dinah.offer())
        garbage = FakeDelivery(b"\xc1 garbage", NAMES.jobs_exchange(world.dinah.tenant))
        assert await services.claims.take_in(garbage) is None
    (refused,) = world.bus.of(Refused)
    assert (refused.reason, refused.attempt) == (Reason.MALFORMED_FRAME, None)
    assert garbage.fate == "ack"


async def test_what_nobody_can_be_answered_for_goes_to_the_dead_letters(world: World) -> None:
    garbage = FakeDelivery(b"garbage", NAMES.jobs_exchange(world.dinah.tenant))
    elsewhere = FakeDelivery(await world.dinah.job(), "amq.direct")
    async with world.running() as services:
        assert await services.claims.take_in(garbage) is None
        assert await services.claims.take_in(elsewhere) is None
    assert (garbage.fate, elsewhere.fate) == ("reject", "reject")
    assert world.bus.published == []


async def test_an_order_that_is_no_job_is_refused(world: World) -> None:
    async with world.running() as services:
        claimed = await services.claims.take_in(await world.dinah.offer())
        assert claimed is not None
        cancel = await world.dinah.cancel(world.bus.of(Claim)[0])
        await services.claims.take_in(FakeDelivery(cancel.body, NAMES.jobs_exchange(world.dinah.tenant)))
    assert world.bus.of(Refused)[0].reason is Reason.WRONG_KIND


async def test_while_the_issuer_is_away_a_job_is_given_back_and_nothing_is_kept(world: World) -> None:
    delivery = await world.dinah.offer()
    async with world.running() as services:
        garbage = FakeDelivery(b"garbage", NAMES.jobs_exchange(world.dinah.tenant))
        await services.claims.take_in(garbage)
        await services.claims._trust.prime()
        world.issuer.is_away = True  # its keys are known, but it gives no token
        assert await services.claims.take_in(delivery) is None
        assert await services.journal.claims() == []
        world.issuer.is_away = False
        again = FakeDelivery(delivery.body, delivery.exchange)
        assert await services.claims.take_in(again) is not None
    assert (delivery.fate, again.fate) == ("requeue", "ack")


@pytest.mark.parametrize("taken", [True, False])
async def test_a_refusal_is_confirmed_before_the_delivery_is_settled(world: World, taken: bool) -> None:
    def answer(_: Published) -> PublishResult:
        world.clock.advance(3)  # type: ignore[attr-defined]
        return Sent() if taken else Later("not connected")

    world.bus.answer = answer
    delivery = await world.dinah.offer(pool="slow")
    async with world.running() as services:
        await services.claims.take_in(delivery)
    assert delivery.fate == ("ack" if taken else "requeue")


async def test_a_tenant_that_never_settles_gets_no_more_of_the_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.worker.orders.claims.UNSETTLED_PER_TENANT", 0)
    assert (await _refused(world, await world.dinah.offer())).reason is Reason.QUEUE_FULL


def test_the_provider_is_the_one_of_the_bus() -> None:
    assert NAMES.provider == PROVIDER
