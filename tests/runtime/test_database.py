"""What the database promises: no lost update, durable commits, clear faults."""

import asyncio
import os
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, insert, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError, StatementError

from runtime.database import Database, Instant, may_lock, to_url
from runtime.errors import WorldFault
from tests.runtime.migrated.tables import Account, Visit

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


async def add_account(db: Database, name: str = "alice") -> None:
    async with db.write() as session:
        session.add(Account(name=name, balance=0, made_at=NOW))


async def balance(db: Database) -> int:
    async with db.read() as session:
        return (await session.execute(select(Account.balance))).scalar_one()


async def test_concurrent_updates_are_not_lost(db: Database) -> None:
    await add_account(db)

    async def earn() -> None:
        for _ in range(10):
            async with db.write() as session:
                account = (await session.execute(select(Account))).scalar_one()
                await asyncio.sleep(0)
                account.balance += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(earn())
    assert await balance(db) == 50


async def test_two_processes_on_one_file_do_not_lose_updates_either(db: Database, tmp_path: Path) -> None:
    await add_account(db)
    other = Database.open(tmp_path / "role.sqlite")

    async def earn(database: Database) -> None:
        for _ in range(10):
            async with database.write() as session:
                account = (await session.execute(select(Account))).scalar_one()
                account.balance += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(earn(db))
        group.create_task(earn(other))
    await other.close()
    assert await balance(db) == 20


async def test_an_error_rolls_back(db: Database) -> None:
    async def fail() -> None:
        async with db.write() as session:
            session.add(Account(name="bob", balance=0, made_at=NOW))
            await session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await add_account(db)
    async with db.read() as session:
        assert (await session.scalars(select(Account.name))).all() == ["alice"]


async def test_a_cancel_rolls_back_and_frees_the_writer(db: Database) -> None:
    inside = asyncio.Event()

    async def hang() -> None:
        async with db.write() as session:
            session.add(Account(name="carol", balance=0, made_at=NOW))
            await session.flush()
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await inside.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await add_account(db)
    async with db.read() as session:
        assert (await session.scalars(select(Account.name))).all() == ["alice"]


async def test_a_reader_keeps_its_snapshot_while_a_writer_commits(db: Database) -> None:
    await add_account(db)
    async with db.read() as session:
        assert (await session.execute(select(Account.balance))).scalar_one() == 0
        async with db.write() as writer:
            (await writer.execute(select(Account))).scalar_one().balance = 7
        assert (await session.execute(select(Account.balance))).scalar_one() == 0
    assert await balance(db) == 7


async def test_values_can_be_read_after_the_commit(db: Database) -> None:
    async with db.write() as session:
        account = Account(name="alice", balance=3, made_at=NOW)
        session.add(account)
    assert (account.id, account.balance, account.made_at) == (1, 3, NOW)


async def test_a_reader_cannot_write(db: Database) -> None:
    with pytest.raises(WorldFault, match="readonly"):
        async with db.read() as session:
            await session.execute(insert(Account).values(name="eve", balance=0, made_at=NOW))


async def test_rows_are_locked_only_where_they_can_be_changed(db: Database) -> None:
    """PostgreSQL answers `FOR UPDATE` in a read-only transaction with an error."""
    async with db.read() as reading:
        assert not may_lock(reading)
    async with db.write() as writing:
        assert may_lock(writing)


async def test_a_broken_constraint_is_the_callers_to_understand(db: Database) -> None:
    await add_account(db)
    with pytest.raises(IntegrityError):
        await add_account(db)
    with pytest.raises(IntegrityError):
        async with db.write() as session:
            session.add(Visit(account_id=99))


async def test_commits_are_flushed_to_the_disk_and_the_file_is_private(db: Database, tmp_path: Path) -> None:
    async with db.write() as session:
        assert (await session.execute(text("PRAGMA synchronous"))).scalar_one() == 2
        assert (await session.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
        assert (await session.execute(text("PRAGMA foreign_keys"))).scalar_one() == 1
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes.pop("role.sqlite") == 0o600
    assert set(modes.values()) <= {0o600}


async def test_a_full_disk_is_the_worlds_fault_with_a_remedy(db: Database) -> None:
    await add_account(db)
    async with db.write() as session:
        pages = (await session.execute(text("PRAGMA page_count"))).scalar_one()
        await session.execute(text(f"PRAGMA max_page_count={pages}"))
    with pytest.raises(WorldFault, match="The disk is full: free some space"):
        await add_account(db, "x" * 100_000)
    async with db.write() as session:
        await session.execute(text("PRAGMA max_page_count=1000000"))
    await add_account(db, "bob")


async def test_a_file_that_is_no_database_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "role.sqlite"
    path.write_bytes(os.urandom(8192))
    db = Database.open(path)
    with pytest.raises(WorldFault, match="no database") as caught:
        async with db.read() as session:
            await session.execute(text("SELECT * FROM sqlite_master"))
    assert str(path) in str(caught.value)
    await db.close()


async def test_a_missing_directory_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(WorldFault, match="No such file"):
        Database.open(tmp_path / "none" / "role.sqlite")


async def test_a_database_held_by_another_process_is_told(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.database.BUSY_SECONDS", 0)
    other = Database.open(tmp_path / "role.sqlite")
    async with db.write() as session:
        session.add(Account(name="alice", balance=0, made_at=NOW))
        await session.flush()
        with pytest.raises(WorldFault, match="Another process holds"):
            await add_account(other, "bob")
    await other.close()


async def test_a_write_inside_a_write_is_told_instead_of_hanging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.database.POOL_WAIT_SECONDS", 0.01)
    db = Database.open(tmp_path / "role.sqlite")
    async with db.write() as outer:
        await outer.execute(text("SELECT 1"))
        with pytest.raises(WorldFault, match="stayed busy"):
            async with db.write() as inner:
                await inner.execute(text("SELECT 1"))
    await db.close()


@given(st.integers(0, 253_402_300_799_999_999).map(lambda microseconds: EPOCH + timedelta(microseconds=microseconds)))
def test_an_instant_comes_back_to_the_millisecond(at: datetime) -> None:
    stored = Instant().process_bind_param(at, sqlite.dialect())
    back = Instant().process_result_value(stored, sqlite.dialect())
    assert back is not None
    assert timedelta(0) <= at - back < timedelta(milliseconds=1)
    assert back.tzinfo is UTC


def test_an_instant_of_another_zone_is_the_same_instant() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    assert Instant().process_bind_param(elsewhere, sqlite.dialect()) == 1767323045678


async def test_a_naive_time_is_refused(db: Database) -> None:
    async with db.write() as session:
        naive = insert(Account).values(name="x", balance=0, made_at=datetime(2026, 1, 1))  # noqa: DTZ001  # refused
        with pytest.raises(StatementError, match="time zone"):
            await session.execute(naive)


def test_a_path_is_taken_literally() -> None:
    assert to_url(Path("/a b/%?#.sqlite")).database == "/a b/%?#.sqlite"


async def test_a_write_begins_immediately_and_a_read_does_not(db: Database) -> None:
    begun: list[str] = []
    for engine in db._engines:
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *call: begun.append(call[2]))
    async with db.write() as session:
        await session.execute(text("SELECT 1"))
    async with db.read() as session:
        await session.execute(text("SELECT 1"))
    assert begun == ["BEGIN IMMEDIATE", "SELECT 1", "BEGIN", "SELECT 1"]


async def test_many_first_connections_at_once_all_get_the_new_file(tmp_path: Path) -> None:
    databases = [Database.open(tmp_path / "new.sqlite") for _ in range(8)]

    async def look(db: Database) -> None:
        async with db.write() as session:
            assert (await session.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
        await db.close()

    async with asyncio.TaskGroup() as group:
        for db in databases:
            group.create_task(look(db))
