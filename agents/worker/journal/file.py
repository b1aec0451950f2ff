"""The journal's SQLite file: one connection, used from one thread of its own, so that the event loop never waits for a
disk.

Each call is one transaction, durable on return (WAL, `synchronous=FULL`), because a claim that was promised must
survive the power cut that follows. The standard library's `sqlite3` is all it needs (DESIGN §3).
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from runtime.errors import OurFault, WorldFault

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE claims (
    claim TEXT PRIMARY KEY,
    attempt TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('claiming', 'claimed', 'granted', 'over')),
    job BLOB NOT NULL,
    next_sequence INTEGER NOT NULL DEFAULT 0,
    claimed_at INTEGER NOT NULL,
    granted_at INTEGER,
    alive_at INTEGER,
    over_at INTEGER,
    log_acknowledged INTEGER NOT NULL DEFAULT 0,
    is_log_whole INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE reports (
    claim TEXT NOT NULL REFERENCES claims (claim) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (claim, sequence)
) STRICT;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    body BLOB NOT NULL,
    correlation_id TEXT NOT NULL,
    expires_at INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    why TEXT,
    given_up INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX outbox_pending ON outbox (given_up, id);
CREATE TABLE seen (
    key TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    forget_at INTEGER NOT NULL
) STRICT;
"""

ResultT = TypeVar("ResultT")


class JournalFile:
    """Runs transactions on the file, one after the other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open or make the file; raises OurFault where it is not a journal that this version reads."""
        await self._in_thread(self._connect)

    async def close(self) -> None:
        await self._in_thread(self._disconnect)
        self._thread.shutdown(wait=False)

    async def write(self, transaction: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """Run one transaction; durable on return. Raises WorldFault where the disk refuses.

        Cancel: the caller stops waiting; the transaction itself still happens whole or not at all.
        """
        return await self._in_thread(lambda: self._transact(transaction))

    async def read(self, query: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        return await self._in_thread(lambda: query(self._open_connection()))

    async def _in_thread(self, call: Callable[[], ResultT]) -> ResultT:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.OperationalError as error:
            raise WorldFault(
                f"the journal cannot be used ({error})", where=str(self._path), remedy="See that the disk is not full."
            ) from error

    def _connect(self) -> None:
        self._path.touch(mode=0o600)
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")
        elif version != SCHEMA_VERSION:
            connection.close()
            raise OurFault(
                f"a journal of version {version}, this program reads version {SCHEMA_VERSION}",
                where=str(self._path),
                remedy="Finish the jobs with the program that wrote it, or move the file away.",
            )
        self._connection = connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _transact(self, transaction: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        connection = self._open_connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = transaction(connection)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return result

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise OurFault("the journal is not open", where=str(self._path))
        return self._connection
