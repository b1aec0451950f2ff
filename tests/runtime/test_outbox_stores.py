"""The outbox table and the faulty fake keep the same promises; then what only the table has."""

import asyncio
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase

from runtime.database import COLUMN_TYPES, Database, new_metadata
from runtime.outbox_table import OutboxColumns, OutboxTable
from tests.clocks import ManualClock
from tests.outbox_contract import FaultyOutbox, OutboxContract, Put, Shelf


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = COLUMN_TYPES


class OutboxRow(OutboxColumns, Base):
    __tablename__ = "outbox"


@pytest.fixture
def wake() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def table(db: Database, clock: ManualClock, wake: asyncio.Event) -> OutboxTable:
    async with db.write() as session:
        await (await session.connection()).run_sync(Base.metadata.create_all)
    return OutboxTable(db, OutboxRow, clock, wake)


@pytest.fixture
def put(db: Database, table: OutboxTable) -> Put:
    async def put(destination: str, body: bytes, correlation_id: str, expires_at: datetime | None) -> None:
        async with db.write() as session:
            table.enqueue(
                session, destination=destination, body=body, correlation_id=correlation_id, expires_at=expires_at
            )

    return put


class TestFake(OutboxContract):
    @pytest.fixture
    def shelf(self) -> Shelf:
        fake = FaultyOutbox()
        return Shelf(fake, fake.put)


class TestTable(OutboxContract):
    @pytest.fixture
    def shelf(self, table: OutboxTable, put: Put) -> Shelf:
        return Shelf(table, put)


async def test_a_message_exists_only_if_its_transaction_commits(
    db: Database, table: OutboxTable, wake: asyncio.Event
) -> None:
    async def fail() -> None:
        async with db.write() as session:
            table.enqueue(session, destination="d", body=b"", correlation_id="a")
            await session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await table.pending(9, ()) == []
    assert not wake.is_set()


async def test_a_commit_wakes_the_loop(db: Database, table: OutboxTable, wake: asyncio.Event) -> None:
    async with db.write() as session:
        table.enqueue(session, destination="d", body=b"", correlation_id="a")
        await session.flush()
        assert not wake.is_set()
    assert wake.is_set()


async def test_the_reason_of_a_failure_is_kept_for_people(db: Database, table: OutboxTable, put: Put) -> None:
    await put("d", b"", "a", None)
    await table.mark_failed(1, "queue full")
    async with db.read() as session:
        row = (await session.scalars(select(OutboxRow))).one()
    assert (row.last_error, row.sent_at, row.gave_up_at) == ("queue full", None, None)


async def test_only_what_is_done_and_old_is_purged(table: OutboxTable, put: Put, clock: ManualClock) -> None:
    for _ in range(4):
        await put("d", b"", "a", None)
    await table.mark_sent([1])
    await table.give_up([2], "expired")
    clock.advance(10)
    await table.mark_sent([3])
    assert await table.purge(clock.now() - timedelta(seconds=5)) == 2
    assert [message.id for message in await table.pending(9, ())] == [4]
