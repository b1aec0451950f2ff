"""A provider's own card: read once for all who ask at once, believed under the pinned root, never an older one."""

import asyncio
from datetime import timedelta

import pytest

from identity.keys import SigningKey
from identity.own_card import PAUSE, OwnCard
from runtime.errors import OurFault, WorldFault
from schemas import frame
from schemas.refusals import Reason, Refusal
from schemas.registry import SPEAKS
from schemas.statements import Agent, Card
from tests.clocks import ManualClock

ROOT = SigningKey.generate()


class Desk:
    """Serves one card; can be slow, and can be away."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.reads = 0
        self.is_away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.serve(1)

    def serve(self, serial: int, root: SigningKey = ROOT) -> None:
        now = self._clock.now()
        card = Card(
            provider="alice.example",
            serial=serial,
            desk_url="https://desk.alice.example",
            issuers=(),
            agents=(Agent(name=f"w{serial}", role="worker", key=bytes(32), accounts=()),),
            pools=(),
            store=None,
            rate_card=f"{serial:064x}",
            speaks=SPEAKS,
            issued_at=now,
            expires_at=now + timedelta(days=1),
        )
        self.raw = frame.seal(card, root.private)

    async def card(self) -> bytes:
        self.reads += 1
        await self.gate.wait()
        if self.is_away:
            raise WorldFault("away")
        return self.raw

    async def statement(self, digest: str) -> bytes | Refusal:
        return Refusal(Reason.NOT_FOUND, digest)


@pytest.fixture
def desk(clock: ManualClock) -> Desk:
    return Desk(clock)


@pytest.fixture
def own_card(desk: Desk, clock: ManualClock) -> OwnCard:
    return OwnCard("alice.example", ROOT.public, desk, clock)


async def test_all_who_ask_while_the_card_is_read_get_it_when_it_is_there(desk: Desk, own_card: OwnCard) -> None:
    desk.gate.clear()
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(own_card.renew()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in asking)
        desk.gate.set()
    assert own_card.rate_card_digest == f"{1:064x}"
    assert desk.reads == 1


async def test_a_flood_of_questions_is_one_request_a_pause(desk: Desk, own_card: OwnCard, clock: ManualClock) -> None:
    for _ in range(5):
        await own_card.renew()
    clock.advance(PAUSE.total_seconds())
    await own_card.renew()
    assert desk.reads == 2


async def test_an_older_card_never_replaces_a_newer_one(desk: Desk, own_card: OwnCard, clock: ManualClock) -> None:
    desk.serve(2)
    await own_card.renew()
    desk.serve(1)
    clock.advance(PAUSE.total_seconds())
    await own_card.renew()
    assert list(own_card.agents) == ["w2"]


async def test_a_desk_that_is_away_leaves_the_card_in_hand(desk: Desk, own_card: OwnCard, clock: ManualClock) -> None:
    await own_card.renew()
    desk.is_away = True
    clock.advance(PAUSE.total_seconds())
    await own_card.renew()
    assert list(own_card.agents) == ["w1"]


async def test_a_card_under_another_root_is_for_a_person_to_look_at(desk: Desk, own_card: OwnCard) -> None:
    desk.serve(1, SigningKey.generate())
    with pytest.raises(OurFault, match="not signed by our own root"):
        await own_card.renew()
