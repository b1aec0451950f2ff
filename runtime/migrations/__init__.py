"""Brings a database to the tables that this version of the code expects.

`upgrade(target, "house.migrations")` runs the Alembic revisions found in the package's `versions/` directory (plain
files, no env.py and no alembic.ini: `env.py` here serves all houses). Rules: the whole upgrade is one transaction, also
on SQLite, so a failure leaves the old tables; on SQLite foreign keys are off while tables are rebuilt and checked
before the commit; two processes that start at once do it one after the other; a database written by newer code is
refused. To write a revision: `revise(target, package, metadata, message)`, then read what it wrote.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, MetaData, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from runtime.database import begin_sqlite_with, is_sqlite, make_private, place_of, to_url, worldly
from runtime.errors import OurFault

if TYPE_CHECKING:
    from alembic.config import Config

_UPGRADE_LOCK = 0x6665_6463_69  # "fedci": any number that nobody else locks


async def upgrade(target: Path | str, migrations_package: str) -> None:
    """Bring the database at `target` to the newest revision of the package.

    Runs in a thread with a loop of its own, because Alembic reads files and blocks. Raises OurFault when the database
    is newer than the code or a revision fails, WorldFault when it cannot be reached or written; it is then as it was.
    """
    await asyncio.to_thread(_upgrade, target, migrations_package)


async def check(target: Path | str, migrations_package: str, metadata: MetaData) -> None:
    """Raise OurFault unless the migrated database has exactly the tables of `metadata`; for each house's tests."""

    def compare(config: "Config") -> None:
        from alembic import command

        config.attributes["metadata"] = metadata
        command.check(config)

    await asyncio.to_thread(_run, target, migrations_package, compare)


async def revise(target: Path | str, migrations_package: str, metadata: MetaData, message: str) -> None:
    """Write a new revision file from the difference between the database and `metadata`; for developers."""

    def write(config: "Config") -> None:
        from alembic import command

        config.attributes["metadata"] = metadata
        command.revision(config, message, autogenerate=True, version_path=_versions(migrations_package))

    await asyncio.to_thread(_run, target, migrations_package, write)


def _upgrade(target: Path | str, package: str) -> None:
    url = to_url(target)
    if is_sqlite(url) and _is_newest(Path(url.database or ""), package):
        return  # nearly every start: Alembic is not even loaded

    def upgrade_to_head(config: "Config") -> None:
        from alembic import command

        command.upgrade(config, "head")

    _run(target, package, upgrade_to_head)


def _is_newest(file: Path, package: str) -> bool:
    """Whether this SQLite file is at the package's last revision; files are named `<revision>_<words>.py`, in order."""
    if not file.exists():
        return False
    newest = max((path.name.partition("_")[0] for path in Path(_versions(package)).glob("[0-9]*_*.py")), default=None)
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            versions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            return versions == [(newest,)] and not connection.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.Error:
        return False  # new, busy or damaged: the long way says which


def _run(target: Path | str, package: str, work: Callable[["Config"], None]) -> None:
    from alembic.util.exc import CommandError

    place = place_of(to_url(target))
    try:
        with worldly(place):
            asyncio.run(_run_in_transaction(target, package, work))
    except (CommandError, DBAPIError) as error:
        raise OurFault(
            f"the database does not fit this version of fedci ({error})",
            where=place,
            remedy="If a newer version wrote it, install that version again; else restore the last backup.",
        ) from error


async def _run_in_transaction(target: Path | str, package: str, work: Callable[["Config"], None]) -> None:
    url = to_url(target)
    if is_sqlite(url):
        make_private(url)
    engine = create_async_engine(url, poolclass=NullPool)
    if is_sqlite(url):
        # Rebuilding a table drops it, which would delete or refuse the rows that refer to it.
        begin_sqlite_with(engine, "BEGIN IMMEDIATE", foreign_keys=False)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_work_alone, _config(package), work)
    finally:
        await engine.dispose()


def _work_alone(connection: Connection, config: "Config", work: Callable[["Config"], None]) -> None:
    from alembic.util.exc import CommandError

    config.attributes["connection"] = connection
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
    work(config)
    if connection.dialect.name == "sqlite":
        broken = connection.execute(text("PRAGMA foreign_key_check")).fetchall()
        if broken:
            raise CommandError(f"rows refer to rows that do not exist: {broken[:5]}")


def _config(package: str) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", _escaped(str(files("runtime.migrations"))))
    config.set_main_option("version_locations", _escaped(_versions(package)))
    config.set_main_option("path_separator", "newline")  # a path may hold spaces and colons
    return config


def _versions(package: str) -> str:
    return str(files(package) / "versions")


def _escaped(value: str) -> str:
    return value.replace("%", "%%")
