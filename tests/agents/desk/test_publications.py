"""What a desk publishes: signed by its root key, kept by digest, made anew only when it says something else."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest_asyncio

from agents.desk import setup, store
from agents.desk.publications import Publications
from agents.desk.settings import BusSettings, DeskSettings, RateSettings
from identity.keys import SigningKey
from identity.trust import SignedBy, verify_statement
from runtime.addresses import Listen
from runtime.database import Database
from runtime.migrations import check, upgrade
from schemas.statements import Agent, Card, RateCard
from tests.clocks import ManualClock

ROOT = SigningKey.generate()
BUS = BusSettings(host="127.0.0.1", port=5672, vhost="alice", api_url="http://127.0.0.1:15672", admin_user="admin")


def settings(price: str = "0.36") -> DeskSettings:
    rate = RateSettings(meter="wall-seconds", unit="s", price=Decimal(price), per=Decimal(3600))
    return DeskSettings(
        provider="alice.example",
        listen=Listen("127.0.0.1", 0),
        url="http://127.0.0.1:8401",
        bus=BUS,
        rates=(rate,),
    )


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    path = tmp_path / "desk.sqlite"
    await upgrade(path, setup.MIGRATIONS)
    opened = Database.open(path)
    yield opened
    await opened.close()


async def test_the_migrations_make_the_tables_that_the_code_expects(tmp_path: Path) -> None:
    from agents.desk.tables import Base

    path = tmp_path / "fresh.sqlite"
    await upgrade(path, setup.MIGRATIONS)
    await check(path, setup.MIGRATIONS, Base.metadata)


async def test_a_card_is_signed_by_the_root_and_repeated_byte_for_byte(database: Database, clock: ManualClock) -> None:
    desk = Publications(settings(), ROOT, database, clock, None)
    first, again = await desk.card(), await desk.card()
    assert first == again
    stated = verify_statement(first.raw, Card, key=ROOT.public)
    assert isinstance(stated, SignedBy)
    assert stated.message.serial == 1
    assert stated.message.rate_card == (await desk.rate_card()).digest


async def test_an_agent_enrolled_later_stands_on_the_next_card(database: Database, clock: ManualClock) -> None:
    desk = Publications(settings(), ROOT, database, clock, None)
    await desk.card()
    async with database.write() as session:
        await store.enrol(session, Agent(name="w7", role="worker", key=bytes(32), accounts=()), clock.now())
    stated = verify_statement((await desk.card()).raw, Card, key=ROOT.public)
    assert isinstance(stated, SignedBy)
    assert stated.message.serial == 2
    assert [agent.name for agent in stated.message.agents] == ["w7"]


async def test_a_changed_price_is_a_new_rate_card_and_the_old_one_stays_to_be_read(
    database: Database, clock: ManualClock
) -> None:
    old = await Publications(settings("0.36"), ROOT, database, clock, None).rate_card()
    dearer = Publications(settings("0.48"), ROOT, database, clock, None)
    new = await dearer.rate_card()
    assert new.digest != old.digest
    assert await dearer.by_digest(old.digest) == old.raw
    stated = verify_statement(new.raw, RateCard, key=ROOT.public)
    assert isinstance(stated, SignedBy)
    assert stated.message.serial == 2
    assert await dearer.by_digest("f" * 64) is None
