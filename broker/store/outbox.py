"""Queries on the outbox beyond those of `runtime.outbox_table`."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from broker.tables import OutboxRow

_IS_WAITING = (OutboxRow.sent_at.is_(None), OutboxRow.gave_up_at.is_(None))


async def waiting_about(session: AsyncSession, correlation_id: str) -> list[int]:
    """The messages about this attempt that have not left yet."""
    return list(
        await session.scalars(select(OutboxRow.id).where(OutboxRow.correlation_id == correlation_id, *_IS_WAITING))
    )


async def troubles(session: AsyncSession, correlation_ids: list[str]) -> dict[str, str]:
    """Why messages that wait could not be sent the last time, by what they are about."""
    query = select(OutboxRow.correlation_id, OutboxRow.last_error).where(
        OutboxRow.correlation_id.in_(correlation_ids), OutboxRow.last_error.is_not(None), *_IS_WAITING
    )
    return {about: error for about, error in await session.execute(query) if error is not None}


async def count_waiting(session: AsyncSession) -> int:
    return await session.scalar(select(func.count()).select_from(OutboxRow).where(*_IS_WAITING)) or 0
