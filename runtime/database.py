"""A role's database: SQLite in its data directory, or PostgreSQL when it outgrows that.

Rules:
- one session is one transaction: `write` commits at the end of its block and rolls back on any error, `read` changes
  nothing; one session belongs to one task; never await the network inside `write`;
- on SQLite a write transaction begins as BEGIN IMMEDIATE and writers queue here, in order, for the one connection that
  writes: with the default, concurrent read-modify-writes were lost in silence;
- synchronous=FULL: deliveries are acknowledged and messages published because a commit has returned, so it must
  survive a power cut; with NORMAL, WAL may lose the last commits;
- disk full, read-only, damaged or unreachable is a `WorldFault` with the next step; constraint violations pass through
  for the caller, who knows what they mean.

Queries and tables belong to the houses; migrations to `runtime.migrations`. SQLite: https://sqlite.org/wal.html.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, MetaData, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.types import TypeDecorator
from sqlalchemy.util import await_only

from runtime.errors import WorldFault
from schemas.wire import from_milliseconds, to_milliseconds

BUSY_SECONDS = 10
POOL_WAIT_SECONDS = 30
_READERS = 4
_READS_ONLY = "reads-only"
_PRIMARY_CODE = 0xFF  # the rest of an SQLite error code is detail

_SQLITE_REMEDIES = {
    sqlite3.SQLITE_FULL: "The disk is full: free some space.",
    sqlite3.SQLITE_READONLY: "The database may not be written: see its owner, its mode and the mount.",
    sqlite3.SQLITE_CANTOPEN: "The file cannot be opened: see the path, its owner and its mode.",
    sqlite3.SQLITE_IOERR: "The disk failed or is full: see the kernel's log and the free space.",
    sqlite3.SQLITE_CORRUPT: "The database is damaged: stop the role and restore the file from a backup.",
    sqlite3.SQLITE_NOTADB: "The file is no database: stop the role and restore the file from a backup.",
    sqlite3.SQLITE_BUSY: "Another process holds the database: stop that one.",
    sqlite3.SQLITE_LOCKED: "Another process holds the database: stop that one.",
}
_POSTGRESQL_REMEDIES = {
    "08": "The server cannot be reached: see that it runs and that the URL is right.",
    "25006": "The server is read-only: connect to the primary.",
    "40": "Transactions collided: it is tried again.",
    "53": "The server is out of space or connections: see its log.",
    "57": "The server is shutting down or starting: it is tried again.",
    "58": "The server's disk failed: see its log.",
    "XX": "The server's data is damaged: see its log and restore a backup.",
}


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as whole milliseconds since 1970, as on the wire; finer parts are cut off."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002  # theirs
        if value is not None and value.tzinfo is None:
            raise ValueError("an instant carries its time zone")
        return None if value is None else to_milliseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else from_milliseconds(value)


# SQLite gives out row numbers only for INTEGER, which there has 64 bits anyway.
SerialId = BigInteger().with_variant(Integer(), "sqlite")

# For `type_annotation_map` of a house's DeclarativeBase: every `Mapped[datetime]` is an Instant.
COLUMN_TYPES: dict[Any, Any] = {datetime: Instant}


def new_metadata() -> MetaData:
    """Return a house's own MetaData; every constraint gets a name, so that migrations can drop it."""
    return MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Database:
    """Sessions on one database; make it with `Database.open`, end it with `await close()`."""

    def __init__(self, url: URL, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self._place = place_of(url)
        self._engines = (writer, reader)
        self._writes = async_sessionmaker(writer, expire_on_commit=False)
        self._reads = async_sessionmaker(reader, expire_on_commit=False, info={_READS_ONLY: True})

    @classmethod
    def open(cls, target: Path | str) -> "Database":
        """Return the database at a path (SQLite, made with mode 0600 if missing) or at a SQLAlchemy URL.

        Nothing is connected yet; the tables come from `runtime.migrations.upgrade`.
        """
        url = to_url(target)
        if not is_sqlite(url):
            engine = create_async_engine(url, pool_timeout=POOL_WAIT_SECONDS, pool_pre_ping=True)
            return cls(url, engine, engine.execution_options(postgresql_readonly=True))
        make_private(url)
        writer = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=POOL_WAIT_SECONDS)
        reader = create_async_engine(url, pool_size=_READERS, max_overflow=0, pool_timeout=POOL_WAIT_SECONDS)
        begin_sqlite_with(writer, "BEGIN IMMEDIATE", foreign_keys=True)
        begin_sqlite_with(reader, "BEGIN", foreign_keys=True, query_only=True)
        return cls(url, writer, reader)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction that is durable when the block has ended without an error.

        A cancel rolls back, unless it comes during the commit itself: then the outcome is unknown, and the repeat
        must be idempotent. Raises WorldFault when the database cannot do its work.
        """
        with worldly(self._place):
            async with self._writes() as session, session.begin():
                yield session

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a read-only transaction: one snapshot, which no writer waits for. Raises WorldFault likewise."""
        with worldly(self._place):
            async with self._reads() as session, session.begin():
                yield session

    async def close(self) -> None:
        """Close all connections; without it aiosqlite's threads keep the process alive."""
        for engine in self._engines:
            await engine.dispose()


def may_lock(session: AsyncSession) -> bool:
    """Whether rows may be locked for a change: in a transaction that only reads PostgreSQL refuses that."""
    return not session.info.get(_READS_ONLY, False)


@contextmanager
def worldly(place: str) -> Iterator[None]:
    """Turn the world's faults inside the block into WorldFault with the next step; let all other errors through."""
    try:
        yield
    except (DBAPIError, PoolTimeout, OSError) as error:
        remedy = _remedy(error)
        if remedy is None:
            raise
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise WorldFault(f"the database failed ({reason})", where=place, remedy=remedy) from error


def to_url(target: Path | str) -> URL:
    """Return the SQLAlchemy URL of a path or of a URL."""
    if isinstance(target, Path):
        return URL.create("sqlite+aiosqlite", database=str(target))
    return make_url(target)


def is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def place_of(url: URL) -> str:
    """Return how messages name the database: its path, or its URL without the password."""
    return url.database or "" if is_sqlite(url) else url.render_as_string(hide_password=True)


def begin_sqlite_with(engine: AsyncEngine, begin: str, **pragmas: bool) -> None:
    """Set up each new SQLite connection of `engine`, and begin its transactions with `begin`."""

    def connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver must not begin on its own
        cursor = connection.cursor()
        for name, value in {"busy_timeout": BUSY_SECONDS * 1000, "synchronous": "FULL", **pragmas}.items():
            cursor.execute(f"PRAGMA {name}={int(value) if isinstance(value, bool) else value}")
        if not pragmas.get("query_only"):
            _use_wal(cursor)
        cursor.close()

    event.listen(engine.sync_engine, "connect", connect)
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql(begin))


def _use_wal(cursor: Any) -> None:
    # Switching a new file takes it whole, and SQLite's busy timeout does not cover that: connections that come at once
    # must take turns here. Later it is a no-operation.
    for tries_left in range(BUSY_SECONDS * 50, -1, -1):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or tries_left == 0:
                raise
        await_only(asyncio.sleep(0.02))


def make_private(url: URL) -> None:
    """Make an SQLite file with mode 0600 where there is none; the first to open it decides."""
    # SQLite would make the file readable by others; its -wal and -shm files take over the mode.
    try:
        os.close(os.open(url.database or "", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise WorldFault(
            f"cannot open the database ({error.strerror})",
            where=str(url.database),
            remedy="See the path, the owner of the file and of its directory, and the free space.",
        ) from error


def _remedy(error: Exception) -> str | None:
    """Return the next step for the world's faults, None for all other errors."""
    if isinstance(error, PoolTimeout):
        return "All connections stayed busy: see the log for what holds them, or restart the role."
    if not isinstance(error, DBAPIError):
        return _POSTGRESQL_REMEDIES["08"] if isinstance(error, ConnectionError) else None
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return _SQLITE_REMEDIES.get(code & _PRIMARY_CODE)
    state = str(getattr(error.orig, "sqlstate", None) or "")
    known = _POSTGRESQL_REMEDIES.get(state) or _POSTGRESQL_REMEDIES.get(state[:2])
    return known or (_POSTGRESQL_REMEDIES["08"] if error.connection_invalidated else None)
