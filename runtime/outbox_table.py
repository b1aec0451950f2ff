"""The outbox as a table in a role's database: enqueue in the caller's transaction, drained by `runtime.outbox`.

Each house declares its own table from `OutboxColumns` and makes one `OutboxTable` of it. Sent and given-up messages
stay, with their reason, until `purge`.
"""

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Index, LargeBinary, Text, delete, event, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, declared_attr, mapped_column
from sqlalchemy.schema import SchemaItem

from runtime.clock import Clock
from runtime.database import Database, Instant, SerialId
from runtime.outbox import OutboxMessage

MAX_REASON_CHARS = 500
_PENDING = text("sent_at IS NULL AND gave_up_at IS NULL")


class OutboxColumns:
    """Mixin for a house's table: `class OutboxRow(OutboxColumns, Base): __tablename__ = "outbox"`."""

    id: Mapped[int] = mapped_column(SerialId, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(Instant)
    destination: Mapped[str] = mapped_column(Text)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    correlation_id: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime | None] = mapped_column(Instant)
    sent_at: Mapped[datetime | None] = mapped_column(Instant)
    gave_up_at: Mapped[datetime | None] = mapped_column(Instant)
    attempts: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None] = mapped_column(Text)

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> tuple[SchemaItem | dict[str, Any], ...]:
        name = f"ix_{cls.__tablename__}_pending"  # type: ignore[attr-defined]  # given by the house's class
        # AUTOINCREMENT: without it SQLite gives a purged row's id to a new one, and the order breaks.
        return (
            Index(name, "id", sqlite_where=_PENDING, postgresql_where=_PENDING),
            {"sqlite_autoincrement": True},
        )


class OutboxTable:
    """An `OutboxStore` on a house's table; sets `wake` whenever a transaction that enqueued has committed."""

    def __init__(self, db: Database, row: type[OutboxColumns], clock: Clock, wake: asyncio.Event) -> None:
        self._db = db
        self._row = row
        self._clock = clock
        self._wake = wake

    def enqueue(
        self,
        session: AsyncSession,
        *,
        destination: str,
        body: bytes,
        correlation_id: str,
        expires_at: datetime | None = None,
    ) -> OutboxColumns:
        """Add a message to the caller's transaction; it exists if and when that commits. Its id is set by a flush."""
        row = self._row()
        row.created_at = self._clock.now()
        row.destination = destination
        row.body = body
        row.correlation_id = correlation_id
        row.expires_at = expires_at
        row.attempts = 0
        session.add(row)
        event.listen(session.sync_session, "after_commit", lambda _: self._wake.set())
        return row

    async def pending(self, limit: int, without: Collection[str]) -> Sequence[OutboxMessage]:
        row = self._row
        query = select(row).where(_PENDING, row.destination.not_in(without)).order_by(row.id).limit(limit)
        async with self._db.read() as session:
            return [_message(found) for found in await session.scalars(query)]

    async def mark_sent(self, ids: Sequence[int]) -> None:
        async with self._db.write() as session:
            change = update(self._row).where(_PENDING, self._row.id.in_(ids))
            await session.execute(change.values(sent_at=self._clock.now(), attempts=self._row.attempts + 1))

    async def mark_failed(self, id: int, why: str) -> None:  # the seam's word
        async with self._db.write() as session:
            change = update(self._row).where(_PENDING, self._row.id == id)
            await session.execute(change.values(attempts=self._row.attempts + 1, last_error=why[:MAX_REASON_CHARS]))

    async def give_up(self, ids: Sequence[int], why: str) -> None:
        async with self._db.write() as session:
            await self.give_up_in(session, ids, why)

    async def give_up_in(self, session: AsyncSession, ids: Sequence[int], why: str) -> None:
        """Give up messages as part of the caller's transaction, say because their job was cancelled."""
        change = update(self._row).where(_PENDING, self._row.id.in_(ids))
        await session.execute(change.values(gave_up_at=self._clock.now(), last_error=why[:MAX_REASON_CHARS]))

    async def purge(self, before: datetime) -> int:
        """Delete what was sent or given up before `before`; return how many."""
        row = self._row
        async with self._db.write() as session:
            done = await session.execute(delete(row).where(or_(row.sent_at < before, row.gave_up_at < before)))
        return cast("CursorResult[Any]", done).rowcount


def _message(row: OutboxColumns) -> OutboxMessage:
    return OutboxMessage(
        id=row.id,
        destination=row.destination,
        body=row.body,
        correlation_id=row.correlation_id,
        expires_at=row.expires_at,
        attempts=row.attempts,
    )
