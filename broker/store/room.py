"""How much a provider may have recorded that is about nothing of ours (DESIGN §6: a stranger's bus is hostile too).

Orphans, alarms and refusals of unknown orders cost their sender nothing, and stay here until a person looks at them.
After so many the person knows enough; the rest is only logged and counted.
"""

from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

ROWS = 1000
"""Rows of one kind and provider."""
CLAIMS = 64
"""Claims of one attempt: each worker of a pool may claim it after a lost connection, not each of them all day."""
FACTS = 2000
"""Usage facts of one attempt: interim ones of the longest job, every minute."""


async def is_room(
    session: AsyncSession, table: type[Any], *which: ColumnElement[bool], rows: int | None = None
) -> bool:
    """Whether fewer than `rows` rows of this kind are there, `ROWS` unless said otherwise."""
    most = ROWS if rows is None else rows
    found = select(1).select_from(table).where(*which).limit(most).subquery()
    return (await session.scalar(select(func.count()).select_from(found)) or 0) < most
