"""Providers: pinned at first sight, and never quietly another one afterwards."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from broker.providers.book import KnownProvider
from broker.store import providers as provider_store
from identity.keys import SigningKey, b64url, fingerprint
from runtime.errors import WorldFault
from schemas import frame, ids
from schemas.refusals import Reason, Refusal
from tests.broker.world import FakeProvider, World, open_world
from tests.clocks import ManualClock

ALICE = "alice.example"
URL = f"https://{ALICE}"


class Desk:
    """A provider's desk on the network, which shows what a test puts there."""

    def __init__(self) -> None:
        self.card = b""
        self.root = b""
        self.rate_card = b""
        self.is_away = False
        self.is_rate_card_away = False

    def show(self, provider: FakeProvider) -> None:
        self.card, self.root, self.rate_card = provider.card(), provider.root.public, provider.rate_card

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.is_away or (self.is_rate_card_away and request.url.path.startswith("/statements/")):
            raise httpx.ConnectError("away", request=request)
        match request.url.path:
            case "/card":
                return httpx.Response(200, stream=httpx.ByteStream(self.card))
            case "/root":
                return httpx.Response(200, json={"root_key": b64url(self.root)})
            case path if path == f"/statements/{ids.sha256_hex(self.rate_card)}":
                return httpx.Response(200, stream=httpx.ByteStream(self.rate_card))
        return httpx.Response(404, json={"reason": "not-found", "detail": ""})


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def world(tmp_path: Path, clock: ManualClock, desk: Desk) -> AsyncIterator[World]:
    async def answer(request: httpx.Request) -> httpx.Response:
        answered = desk.answer(request)
        return httpx.Response(
            answered.status_code,
            headers=answered.headers,
            stream=answered.stream if not answered.is_stream_consumed else httpx.ByteStream(answered.content),
        )

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport) as client, open_world(tmp_path, clock, client) as opened:
        yield opened


@pytest.fixture
def alice(world: World, desk: Desk) -> FakeProvider:
    provider = FakeProvider(ALICE, world.issuer, world.clock)
    provider.hire("w1")
    desk.show(provider)
    return provider


async def added(world: World) -> KnownProvider:
    known = await world.controller.providers.add(URL)
    assert isinstance(known, KnownProvider), known
    return known


async def refreshed(world: World) -> KnownProvider:
    world.clock.advance(5)
    await world.controller.providers.refresh(ALICE)
    known = world.controller.book.get(ALICE)
    assert known is not None
    return known


async def test_a_provider_is_pinned_with_its_root_card_and_rate_card(world: World, alice: FakeProvider) -> None:
    known = await added(world)
    assert (known.name, known.root_key, known.card.serial) == (ALICE, alice.root.public, 1)
    async with world.database.read() as session:
        assert await provider_store.rate_card(session, ids.sha256_hex(alice.rate_card)) is not None


async def test_a_rate_card_that_cannot_be_had_at_once_is_asked_for_again(
    world: World, alice: FakeProvider, desk: Desk
) -> None:
    desk.is_rate_card_away = True
    assert (await added(world)).name == ALICE
    desk.is_rate_card_away = False
    await refreshed(world)
    async with world.database.read() as session:
        assert await provider_store.rate_card(session, ids.sha256_hex(alice.rate_card)) is not None


async def test_an_introduction_pins_nothing(world: World, alice: FakeProvider) -> None:
    introduced = await world.controller.providers.introduce(URL)
    assert not isinstance(introduced, Refusal)
    assert introduced.fingerprint == fingerprint(alice.root.public)
    assert world.controller.book.all() == ()


async def test_another_fingerprint_than_the_one_told_is_refused(world: World, alice: FakeProvider) -> None:
    refused = await world.controller.providers.add(URL, fingerprint(SigningKey.generate().public))
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.ROOT_CHANGED
    assert world.controller.book.all() == ()


async def test_the_fingerprint_may_be_typed_with_or_without_gaps(world: World, alice: FakeProvider) -> None:
    known = await world.controller.providers.add(URL, ids.sha256_hex(alice.root.public).upper())
    assert isinstance(known, KnownProvider)


async def test_a_provider_is_added_once(world: World, alice: FakeProvider) -> None:
    await added(world)
    again = await world.controller.providers.add(URL)
    assert isinstance(again, Refusal)
    assert again.reason is Reason.CONFLICT


async def test_a_card_that_its_own_root_did_not_sign_is_refused(world: World, alice: FakeProvider, desk: Desk) -> None:
    desk.root = SigningKey.generate().public
    refused = await world.controller.providers.add(URL)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.CARD_SIGNATURE


@pytest.mark.parametrize("url", ["http://alice.example", "ftp://alice.example", "https://u:p@alice.example", "alice"])
async def test_an_address_that_must_not_be_called_is_refused(world: World, url: str) -> None:
    refused = await world.controller.providers.add(url)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.INVALID_REQUEST


async def test_a_desk_that_is_away_is_the_worlds_fault(world: World, desk: Desk) -> None:
    desk.is_away = True
    with pytest.raises(WorldFault):
        await world.controller.providers.add(URL)


async def test_a_newer_card_replaces_the_older(world: World, alice: FakeProvider, desk: Desk) -> None:
    await added(world)
    alice.hire("w2")
    desk.show(alice)
    known = await refreshed(world)
    assert (known.card.serial, known.card.pools[0].workers, known.alarm) == (2, ("w1", "w2"), None)


async def test_a_changed_root_is_an_alarm_and_never_an_update(world: World, alice: FakeProvider, desk: Desk) -> None:
    await added(world)
    desk.show(FakeProvider(ALICE, world.issuer, world.clock))
    known = await refreshed(world)
    assert known.root_key == alice.root.public
    assert known.alarm is not None
    assert known.alarm.startswith("root-changed")
    desk.show(alice)
    assert (await refreshed(world)).alarm is None
    async with world.database.read() as session:
        assert [alarm.kind for alarm in await provider_store.alarms(session, 10)] == ["card"]


async def test_an_older_card_is_an_alarm(world: World, alice: FakeProvider, desk: Desk) -> None:
    old = alice.card()
    desk.show(alice)
    await added(world)
    desk.card = old
    alarm = (await refreshed(world)).alarm
    assert alarm is not None
    assert alarm.startswith("card-rolled-back")


async def test_two_cards_with_one_serial_are_an_alarm(world: World, alice: FakeProvider, desk: Desk) -> None:
    known = await added(world)
    desk.card = frame.seal(known.card.model_copy(update={"issuers": ()}), alice.root.private)
    alarm = (await refreshed(world)).alarm
    assert alarm is not None
    assert alarm.startswith("equivocation")


async def test_a_desk_that_is_away_later_changes_nothing(world: World, alice: FakeProvider, desk: Desk) -> None:
    await added(world)
    desk.is_away = True
    known = await refreshed(world)
    assert (known.card.serial, known.alarm) == (1, None)


async def test_an_unknown_agent_makes_us_ask_for_a_newer_card(world: World, alice: FakeProvider, desk: Desk) -> None:
    await added(world)
    worker = alice.hire("w2")
    desk.show(alice)
    world.clock.advance(5)
    claim = await worker.claim(world.tenant, ids.new_attempt_id())
    intake = world.controller.intake(ALICE)
    await intake.take([claim.raw])
    assert intake.counts.refused == {}


async def test_after_a_restart_the_providers_are_known(tmp_path: Path, world: World, alice: FakeProvider) -> None:
    await added(world)
    async with open_world(tmp_path, world.clock) as again:
        (known,) = again.controller.book.all()
        assert (known.name, known.root_key) == (ALICE, alice.root.public)
