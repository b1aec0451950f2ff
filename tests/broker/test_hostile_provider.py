"""A provider that lies, floods and confuses: it harms what it was given, and nothing else."""

from typing import Any

import pytest
from sqlalchemy import func, select

from broker.providers.costs import costs_of, read_rate_cards
from broker.store import providers as provider_store
from broker.store import room
from broker.store import usage as usage_store
from broker.tables import ClaimRow, OrphanRow, RefusalRow
from broker.wiring import _store_client as open_store_client
from runtime.errors import OurFault
from schemas import frame, ids
from schemas.life import JobState
from schemas.orders import Grant
from schemas.refusals import Reason
from schemas.reports import Claim
from schemas.statements import Rate, StoreOffer
from tests.broker.test_story import ONE_JOB, granted
from tests.broker.world import Claimed, FakeProvider, World, read


async def count(world: World, table: Any) -> int:
    async with world.database.read() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31)])
async def test_a_claim_whose_key_no_box_can_be_sealed_to_is_not_granted_and_breaks_nothing(
    world: World, alice: FakeProvider, key: bytes
) -> None:
    await world.submit(ONE_JOB)
    attempt, worker = (await world.job_order()).attempt, alice.workers["w1"]
    fields: dict[str, Any] = {"attempt": attempt, "claim": ids.new_claim_id(), "grant_key": key}
    raw = await worker.speaker.introduction(world.tenant, Claim, provider=alice.name, agent="w1", **fields)
    honest = await worker.claim(world.tenant, attempt)
    await world.hear(alice.name, raw, honest.raw)
    assert (await world.said_one(Grant)).claim == honest.claim


async def test_a_log_in_crumbs_with_gaps_between_is_refused_before_it_costs_anything(
    world: World, alice: FakeProvider
) -> None:
    await world.submit(ONE_JOB)
    claimed = await granted(world, alice)
    for start in range(0, 3000, 60):
        await world.hear_log(alice.name, *(claimed.log(2 * offset, b"x") for offset in range(start, start + 60)))
    row = await world.claim(claimed.claim)
    assert row is not None
    assert len(row.log_ranges) <= 1000


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> int:
    """The bound on rows about nothing of ours, lowered so that a flood takes no time."""
    monkeypatch.setattr(room, "ROWS", 50)
    return room.ROWS


async def test_a_flood_of_claims_of_attempts_that_never_were_fills_no_disk(
    world: World, alice: FakeProvider, little_room: int
) -> None:
    worker = alice.workers["w1"]
    for _ in range(4):
        raws = [(await worker.claim(world.tenant, ids.new_attempt_id())).raw for _ in range(25)]
        await world.hear(alice.name, *raws)
    assert await count(world, OrphanRow) <= little_room


async def test_a_flood_of_claims_of_one_attempt_fills_no_disk(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    attempt, worker = (await world.job_order()).attempt, alice.workers["w1"]
    for _ in range(3):
        await world.hear(alice.name, *[(await worker.claim(world.tenant, attempt)).raw for _ in range(100)])
    assert await count(world, ClaimRow) <= 100


async def test_a_flood_of_refusals_of_nothing_fills_no_disk(
    world: World, alice: FakeProvider, little_room: int
) -> None:
    worker = alice.workers["w1"]
    for batch in range(4):
        orders = [b"order %d %d" % (batch, number) for number in range(25)]
        raws = [await worker.refuse(world.tenant, order, None, Reason.DRAINING, "here") for order in orders]
        await world.hear(alice.name, *raws)
    assert await count(world, RefusalRow) <= little_room


def bill(claimed: Claimed, world: World, provider: FakeProvider, meter: str, interval: int, quantity: str) -> bytes:
    return claimed.usage(
        world,
        ids.sha256_hex(provider.rate_card),
        meter=meter,
        interval=interval,
        quantity=quantity,
    )


async def verdicts(world: World) -> list[str]:
    while await world.controller.receipts.answer():
        pass
    async with world.database.read() as session:
        return [row.verdict or "" for row in await usage_store.facts(session)]


async def finished(world: World, provider: FakeProvider, seconds: float) -> Claimed:
    claimed = await granted(world, provider)
    world.clock.advance(seconds)
    await world.hear(provider.name, claimed.finished())
    await world.controller.settlement.look()
    return claimed


async def test_time_cut_into_intervals_is_signed_for_only_up_to_what_it_was_together(
    world: World, alice: FakeProvider
) -> None:
    await world.submit(ONE_JOB)
    claimed = await finished(world, alice, 30)
    await world.hear(alice.name, *(bill(claimed, world, alice, "wall-seconds", part, "30") for part in range(5)))
    assert await verdicts(world) == ["accepted", "accepted", "accepted", "disputed", "disputed"]


async def test_one_attempt_is_signed_for_once(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    claimed = await finished(world, alice, 30)
    await world.hear(alice.name, *(bill(claimed, world, alice, "attempts", part, "1") for part in range(2)))
    assert await verdicts(world) == ["accepted", "disputed"]


async def test_each_reserved_core_may_be_billed(world: World, alice: FakeProvider) -> None:
    await world.submit("name: p\njobs:\n  build:\n    steps: [make]\n    resources: {cores: 4}\n")
    claimed = await finished(world, alice, 100)
    await world.hear(alice.name, bill(claimed, world, alice, "wall-seconds", 0, "400"))
    assert await verdicts(world) == ["accepted"]


async def test_a_second_id_for_the_same_use_is_refused(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    claimed = await finished(world, alice, 30)
    await world.hear(alice.name, claimed.usage(world, ids.sha256_hex(alice.rate_card), id="d" * 64))
    assert await verdicts(world) == []


@pytest.mark.parametrize("ca", ["garbage", "ü", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"])
async def test_a_card_whose_stores_ca_is_no_certificate_delays_only_what_goes_there(
    world: World, alice: FakeProvider, ca: str
) -> None:
    bettina = FakeProvider("bettina.example", world.issuer, world.clock, store=True)
    bettina.store = StoreOffer(url="https://store.example", ca=ca)
    await world.meet(bettina)
    world.controller.stores._open_client = open_store_client
    run = await world.submit(
        "name: p\nstore: bettina.example\njobs:\n  build:\n    steps: [make]\n", files={"big": bytes(300 * 1024)}
    )
    (digest,) = world.controller.uploads._wanted["bettina.example"]
    trouble = await world.controller.uploads._upload("bettina.example", digest)
    assert "CA that it names cannot be used" in str(trouble)
    assert (await world.job(run)).state is JobState.WAITING


@pytest.mark.parametrize("ca", [None, ""])
async def test_a_store_cannot_make_us_speak_in_plaintext_to_another_machine(ca: str | None) -> None:
    async with open_store_client(StoreOffer(url="http://192.0.2.1", ca=ca)) as client:
        with pytest.raises(OurFault):
            await client.get("http://192.0.2.1/tabs", timeout=1)


ABSURD = Rate(meter="wall-seconds", unit="s", price="9e24", per="1e-12", increment="9e24")  # type: ignore[arg-type]


async def test_absurd_prices_break_no_grant_and_no_page(world: World, alice: FakeProvider) -> None:
    alice.rate_card = frame.seal(read(alice.rate_card).model_copy(update={"rates": (ABSURD,)}), alice.root.private)
    raw, digest = alice.rate_card, ids.sha256_hex(alice.rate_card)
    async with world.database.write() as session:
        await provider_store.save_rate_card(session, alice.name, digest, raw, world.clock.now())
    known = world.controller.book.get(alice.name)
    assert known is not None
    world.controller.book.learn_card(alice.name, known.card.model_copy(update={"rate_card": digest}))
    await world.submit(ONE_JOB)
    claimed = await finished(world, alice, 30)
    await world.hear(alice.name, bill(claimed, world, alice, "wall-seconds", 0, "30"))
    async with world.database.read() as session:
        rows, cards = await usage_store.facts(session), await provider_store.rate_cards(session)
    (cost,) = costs_of(rows, read_rate_cards(cards))
    assert cost.unpriced_events == 1
