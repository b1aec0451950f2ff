"""What the worker must not forget: its claims, what it still has to say, and which orders it has seen.

The states of a claim here: `claiming` (journalled, its message perhaps not out), `claimed` (the bus has it), `granted`
(it runs, or ran when the worker died), `over` (reported, kept until the controller says `settled`). A claim that never
ran is deleted as soon as its release is in the outbox: nothing of it is worth keeping.

Rules:

1. What is said about a state stands in the outbox by the same transaction that changes the state.
2. The claim's one-time private key is not in here: a claim that a restart interrupts is released, never granted, so
   the key need not outlive the process.
3. A sequence number is stored before the report that bears it is made: no restart uses one twice.
4. Of an order its key and digest are remembered until its envelope has expired: the same bytes again are a
   redelivery, other bytes an equivocation.
"""

import asyncio
import sqlite3
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from agents.worker.journal.file import JournalFile
from identity.trust.replay import Seen, settle_duplicate
from schemas import frame, limits
from schemas.frame import UnverifiedFrame
from schemas.orders import Job, Order
from schemas.refusals import Refusal
from schemas.wire import from_milliseconds, to_milliseconds


class ClaimState(StrEnum):
    CLAIMING = "claiming"
    CLAIMED = "claimed"
    GRANTED = "granted"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class OrderMark:
    """How an order is recognised when it comes again."""

    key: str
    digest: str
    forget_at: datetime

    @classmethod
    def of(cls, order: Order, digest: str) -> "OrderMark":
        forget_at = order.expires_at + timedelta(seconds=2 * limits.CLOCK_SKEW_SECONDS)
        return cls(_key_text(order.duplicate_key), digest, forget_at)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message for the outbox."""

    destination: str
    body: bytes
    correlation_id: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewClaim:
    claim: str
    tenant: str
    job: Job
    raw_job: bytes
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class ClaimEntry:
    """One claim as the journal holds it."""

    claim: str
    attempt: str
    tenant: str
    state: ClaimState
    job: Job
    claimed_at: datetime
    granted_at: datetime | None
    alive_at: datetime | None
    over_at: datetime | None
    log_acknowledged: int
    is_log_whole: bool


@dataclass(frozen=True, slots=True)
class KeptReport:
    sequence: int
    body: bytes


class Journal:
    """The worker's memory. `outbox_filled` is set whenever something waits to be sent."""

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        self.outbox_filled = asyncio.Event()

    @classmethod
    async def open(cls, path: Path) -> "Journal":
        file = JournalFile(path)
        await file.open()
        return cls(file)

    @property
    def file(self) -> JournalFile:
        return self._file

    async def close(self) -> None:
        await self._file.close()

    # -- claims

    async def add_claim(self, new: NewClaim, mark: OrderMark) -> Seen | Refusal:
        """Journal a claim; anything but `Seen.NEW` means that nothing was written.

        `REDELIVERY` is the answer while the journal holds a claim of this attempt.
        """

        def transaction(db: sqlite3.Connection) -> Seen | Refusal:
            seen = _look_up(db, mark)
            if isinstance(seen, Refusal):
                return seen
            # The same bytes without a claim of them here: it was released or forgotten, and the controller decides.
            if db.execute("SELECT 1 FROM claims WHERE attempt = ?", (new.job.attempt,)).fetchone():
                return Seen.REDELIVERY
            _remember(db, mark)
            db.execute(
                "INSERT INTO claims (claim, attempt, tenant, state, job, claimed_at)"
                " VALUES (?, ?, ?, 'claiming', ?, ?)",
                (new.claim, new.job.attempt, new.tenant, new.raw_job, to_milliseconds(new.claimed_at)),
            )
            return Seen.NEW

        return await self._file.write(transaction)

    async def confirm_claim(self, claim: str) -> None:
        """Note that the bus has the claim."""
        await self._execute("UPDATE claims SET state = 'claimed' WHERE claim = ? AND state = 'claiming'", (claim,))

    async def grant(self, claim: str, mark: OrderMark, granted_at: datetime) -> bool:
        """Note that the claim starts now; False where it has started before or is no more: then nothing starts."""

        def transaction(db: sqlite3.Connection) -> bool:
            at = to_milliseconds(granted_at)
            started = db.execute(
                "UPDATE claims SET state = 'granted', granted_at = ?, alive_at = ?"
                " WHERE claim = ? AND state IN ('claiming', 'claimed')",
                (at, at, claim),
            ).rowcount
            if started:
                _remember(db, mark)
            return bool(started)

        return await self._file.write(transaction)

    async def next_sequence(self, claim: str, now: datetime) -> int:
        """Take the claim's next report number, and note that it was alive now."""

        def transaction(db: sqlite3.Connection) -> int:
            row = db.execute(
                "UPDATE claims SET next_sequence = next_sequence + 1, alive_at = ? WHERE claim = ?"
                " RETURNING next_sequence - 1",
                (to_milliseconds(now), claim),
            ).fetchone()
            # A claim that is already forgotten (released) has said nothing before: its only report is number 0.
            return int(row[0]) if row else 0

        return await self._file.write(transaction)

    async def release(self, claim: str, outgoing: Outgoing) -> None:
        """Forget a claim that never ran, and say so."""

        def transaction(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM claims WHERE claim = ? AND state IN ('claiming', 'claimed')", (claim,))
            _enqueue(db, [outgoing])

        await self._file.write(transaction)
        self.outbox_filled.set()

    async def drop(self, claim: str) -> None:
        """Forget a claim of which nothing was said to anybody."""
        await self._execute("DELETE FROM claims WHERE claim = ? AND state = 'claiming'", (claim,))

    async def finish(self, claim: str, over_at: datetime, report: KeptReport, outgoing: Sequence[Outgoing]) -> bool:
        """Note the end of a job with its report and all that has to be said; False where it was noted before."""

        def transaction(db: sqlite3.Connection) -> bool:
            ended = db.execute(
                "UPDATE claims SET state = 'over', over_at = ? WHERE claim = ? AND state = 'granted'",
                (to_milliseconds(over_at), claim),
            ).rowcount
            if ended:
                db.execute("INSERT INTO reports VALUES (?, ?, ?)", (claim, report.sequence, report.body))
                _enqueue(db, outgoing)
            return bool(ended)

        is_ended = await self._file.write(transaction)
        self.outbox_filled.set()
        return is_ended

    async def note_log(self, claim: str, acknowledged: int, *, is_whole: bool) -> None:
        """Note how far the bus has the log, and whether that is all of it."""
        await self._execute(
            "UPDATE claims SET log_acknowledged = max(log_acknowledged, ?), is_log_whole = ? WHERE claim = ?",
            (acknowledged, int(is_whole), claim),
        )

    async def forget(self, claim: str) -> bool:
        """Delete a claim that is over, with its reports; False where it runs or is not known."""

        def transaction(db: sqlite3.Connection) -> bool:
            return bool(db.execute("DELETE FROM claims WHERE claim = ? AND state = 'over'", (claim,)).rowcount)

        return await self._file.write(transaction)

    async def find(self, claim: str) -> ClaimEntry | None:
        rows = await self._file.read(lambda db: db.execute("SELECT * FROM claims WHERE claim = ?", (claim,)).fetchall())
        return _entry(rows[0]) if rows else None

    async def claims(self, states: Collection[ClaimState] = tuple(ClaimState)) -> list[ClaimEntry]:
        """All claims in these states, oldest first."""
        marks = ", ".join("?" for _ in states)
        query = f"SELECT * FROM claims WHERE state IN ({marks}) ORDER BY claimed_at, claim"  # noqa: S608 - marks only
        rows = await self._file.read(lambda db: db.execute(query, tuple(states)).fetchall())
        return [_entry(row) for row in rows]

    async def count_unsettled(self, tenant: str) -> int:
        """How many claims of a tenant are over and not yet settled."""
        query = "SELECT count(*) FROM claims WHERE tenant = ? AND state = 'over'"
        return int(await self._file.read(lambda db: db.execute(query, (tenant,)).fetchone()[0]))

    async def kept_reports(self, claim: str, sequences: Collection[int] | None = None) -> list[bytes]:
        """The reports that are still kept, in their order; only those of these numbers where some are named."""
        query = "SELECT sequence, body FROM reports WHERE claim = ? ORDER BY sequence"
        rows = await self._file.read(lambda db: db.execute(query, (claim,)).fetchall())
        return [bytes(row["body"]) for row in rows if sequences is None or row["sequence"] in sequences]

    # -- orders and messages

    async def look_up(self, mark: OrderMark) -> Seen | Refusal:
        """Whether this order was taken in before; a refusal where it was another one under the same key."""
        return await self._file.read(lambda db: _look_up(db, mark))

    async def remember(self, mark: OrderMark) -> None:
        """Remember an order whose effect is stored."""

        def transaction(db: sqlite3.Connection) -> None:
            _remember(db, mark)

        await self._file.write(transaction)

    async def enqueue(self, outgoing: Sequence[Outgoing]) -> None:
        """Put messages into the outbox."""

        def transaction(db: sqlite3.Connection) -> None:
            _enqueue(db, outgoing)

        await self._file.write(transaction)
        self.outbox_filled.set()

    async def enqueue_once(self, outgoing: Sequence[Outgoing]) -> None:
        """Put into the outbox what does not wait there already."""

        def transaction(db: sqlite3.Connection) -> None:
            waiting = "SELECT 1 FROM outbox WHERE NOT given_up AND destination = ? AND body = ?"
            _enqueue(
                db, [each for each in outgoing if not db.execute(waiting, (each.destination, each.body)).fetchone()]
            )

        await self._file.write(transaction)
        self.outbox_filled.set()

    async def count_unsent(self) -> int:
        """How many messages wait in the outbox."""
        query = "SELECT count(*) FROM outbox WHERE NOT given_up"
        return int(await self._file.read(lambda db: db.execute(query).fetchone()[0]))

    async def has_unsent(self, attempt: str) -> bool:
        """Whether messages about this attempt wait in the outbox."""
        query = "SELECT 1 FROM outbox WHERE correlation_id = ? AND NOT given_up LIMIT 1"
        return await self._file.read(lambda db: db.execute(query, (attempt,)).fetchone()) is not None

    async def prune(self, now: datetime) -> None:
        """Forget the marks of orders that have expired, and the messages that were given up and are out of date."""

        def transaction(db: sqlite3.Connection) -> None:
            at = to_milliseconds(now)
            db.execute("DELETE FROM seen WHERE forget_at < ?", (at,))
            db.execute("DELETE FROM outbox WHERE given_up AND expires_at < ?", (at - 7 * 86_400_000,))

        await self._file.write(transaction)

    async def _execute(self, statement: str, values: tuple[object, ...]) -> None:
        def transaction(db: sqlite3.Connection) -> None:
            db.execute(statement, values)

        await self._file.write(transaction)


def _key_text(key: tuple[Hashable, ...]) -> str:
    return "\n".join(str(part) for part in key)


def _look_up(db: sqlite3.Connection, mark: OrderMark) -> Seen | Refusal:
    row = db.execute("SELECT digest FROM seen WHERE key = ?", (mark.key,)).fetchone()
    return settle_duplicate(row["digest"] if row else None, mark.digest)


def _remember(db: sqlite3.Connection, mark: OrderMark) -> None:
    db.execute(
        "INSERT INTO seen VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING",
        (mark.key, mark.digest, to_milliseconds(mark.forget_at)),
    )


def _enqueue(db: sqlite3.Connection, outgoing: Iterable[Outgoing]) -> None:
    db.executemany(
        "INSERT INTO outbox (destination, body, correlation_id, expires_at) VALUES (?, ?, ?, ?)",
        [
            (
                message.destination,
                message.body,
                message.correlation_id,
                None if message.expires_at is None else to_milliseconds(message.expires_at),
            )
            for message in outgoing
        ],
    )


def _entry(row: sqlite3.Row) -> ClaimEntry:
    return ClaimEntry(
        claim=row["claim"],
        attempt=row["attempt"],
        tenant=row["tenant"],
        state=ClaimState(row["state"]),
        job=_read_job(bytes(row["job"])),
        claimed_at=from_milliseconds(row["claimed_at"]),
        granted_at=_instant(row["granted_at"]),
        alive_at=_instant(row["alive_at"]),
        over_at=_instant(row["over_at"]),
        log_acknowledged=row["log_acknowledged"],
        is_log_whole=bool(row["is_log_whole"]),
    )


def _instant(value: int | None) -> datetime | None:
    return None if value is None else from_milliseconds(value)


def _read_job(raw: bytes) -> Job:
    # Verified when it was journalled; its token may have expired since, which changes nothing about what was claimed.
    parts = frame.split(raw)
    job = Job.from_payload(parts.payload) if isinstance(parts, UnverifiedFrame) else parts
    if not isinstance(job, Job):
        raise TypeError(f"the journal holds a job that cannot be read: {job}")
    return job
