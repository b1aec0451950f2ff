"""The outbox's rows in the worker's journal: `runtime.outbox.OutboxStore` on plain `sqlite3`.

What the bus has confirmed is deleted: what must be kept for a `resend` is kept by the journal's own tables. What was
given up stays for people to see until it is a week out of date.
"""

import sqlite3
from collections.abc import Collection, Sequence

from agents.worker.journal.file import JournalFile
from runtime.outbox import OutboxMessage
from schemas.wire import from_milliseconds


class JournalOutbox:
    """Obeys `runtime.outbox.OutboxStore`."""

    def __init__(self, file: JournalFile) -> None:
        self._file = file

    async def pending(self, limit: int, without: Collection[str]) -> Sequence[OutboxMessage]:
        marks = ", ".join("?" for _ in without)
        query = (
            f"SELECT * FROM outbox WHERE NOT given_up AND destination NOT IN ({marks})"  # noqa: S608 - marks only
            " ORDER BY id LIMIT ?"
        )
        rows = await self._file.read(lambda db: db.execute(query, (*without, limit)).fetchall())
        return [_message(row) for row in rows]

    async def mark_sent(self, ids: Sequence[int]) -> None:
        await self._change("DELETE FROM outbox WHERE id = ? AND NOT given_up", [(each,) for each in ids])

    async def mark_failed(self, id: int, why: str) -> None:
        await self._change("UPDATE outbox SET attempts = attempts + 1, why = ? WHERE id = ?", [(why, id)])

    async def give_up(self, ids: Sequence[int], why: str) -> None:
        await self._change("UPDATE outbox SET given_up = 1, why = ? WHERE id = ?", [(why, each) for each in ids])

    async def _change(self, statement: str, values: Sequence[tuple[object, ...]]) -> None:
        def transaction(db: sqlite3.Connection) -> None:
            db.executemany(statement, values)

        await self._file.write(transaction)


def _message(row: sqlite3.Row) -> OutboxMessage:
    return OutboxMessage(
        id=row["id"],
        destination=row["destination"],
        body=bytes(row["body"]),
        correlation_id=row["correlation_id"],
        expires_at=None if row["expires_at"] is None else from_milliseconds(row["expires_at"]),
        attempts=row["attempts"],
    )
