"""Bringing a database up to date, and what happens when that is impossible."""

import asyncio
import sqlite3
import sys
from pathlib import Path

import pytest

from runtime import migrations
from runtime.errors import OurFault, WorldFault
from tests.runtime.migrated.tables import Base

PACKAGE = "tests.runtime.migrated"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "with space:colon%percent"
    directory.mkdir()
    return directory / "role.sqlite"


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def execute(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


async def test_a_new_database_gets_exactly_the_tables_of_the_code(path: Path) -> None:
    await migrations.upgrade(path, PACKAGE)
    await migrations.check(path, PACKAGE, Base.metadata)


async def test_upgrading_twice_or_at_the_same_time_changes_nothing(path: Path) -> None:
    await asyncio.gather(*(migrations.upgrade(path, PACKAGE) for _ in range(4)))
    await migrations.upgrade(path, PACKAGE)
    assert rows(path, "SELECT version_num FROM alembic_version") == [("0002",)]


async def test_rebuilding_a_table_keeps_the_rows_that_refer_to_it(path: Path) -> None:
    execute(
        path,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
        "INSERT INTO alembic_version VALUES ('0001')",
        "CREATE TABLE account (id INTEGER PRIMARY KEY, name VARCHAR NOT NULL, made_at BIGINT NOT NULL)",
        "CREATE TABLE visit (id INTEGER PRIMARY KEY, account_id BIGINT REFERENCES account (id) ON DELETE CASCADE)",
        "INSERT INTO account VALUES (1, 'alice', 0)",
        "INSERT INTO visit VALUES (1, 1)",
    )
    await migrations.upgrade(path, PACKAGE)
    assert rows(path, "SELECT name, balance FROM account") == [("alice", 0)]
    assert rows(path, "SELECT * FROM visit") == [(1, 1)]


async def test_a_failed_upgrade_leaves_the_old_tables(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = tmp_path / "broken_house"
    (house / "versions").mkdir(parents=True)
    (house / "__init__.py").touch()
    (house / "versions" / "0001.py").write_text(
        'from alembic import op\nrevision = "1"\ndown_revision = None\n'
        'def upgrade():\n    op.execute("CREATE TABLE a (x)")\n    op.execute("nonsense")\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(OurFault, match="does not fit"):
        await migrations.upgrade(path, "broken_house")
    sys.modules.pop("broken_house", None)
    assert rows(path, "SELECT name FROM sqlite_master") == []


async def test_rows_that_refer_to_nothing_stop_the_upgrade(path: Path) -> None:
    await migrations.upgrade(path, PACKAGE)
    execute(path, "INSERT INTO visit VALUES (1, 99)")
    with pytest.raises(OurFault, match="rows that do not exist"):
        await migrations.upgrade(path, PACKAGE)


async def test_a_database_of_a_newer_version_is_refused_with_the_remedy(path: Path) -> None:
    await migrations.upgrade(path, PACKAGE)
    execute(path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(OurFault, match="install that version again"):
        await migrations.upgrade(path, PACKAGE)


async def test_a_table_the_revisions_forgot_is_found(path: Path) -> None:
    await migrations.upgrade(path, PACKAGE)
    execute(path, "ALTER TABLE account DROP COLUMN made_at")
    with pytest.raises(OurFault, match="New upgrade operations detected"):
        await migrations.check(path, PACKAGE, Base.metadata)


async def test_a_file_that_is_no_database_is_told_as_such(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(WorldFault, match="restore the file from a backup"):
        await migrations.upgrade(path, PACKAGE)
