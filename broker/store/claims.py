"""Queries on claims, their reports and logs, and on orphans."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from broker.decisions.settling import Ranges
from broker.store import room
from broker.tables import Answer, AttemptRow, ClaimRow, ClaimState, OrphanRow, ReportRow
from schemas.life import AttemptState


async def claim(session: AsyncSession, claim_id: str) -> ClaimRow | None:
    return await session.get(ClaimRow, claim_id)


async def add_claim(session: AsyncSession, row: ClaimRow) -> None:
    session.add(row)
    await session.flush()


async def may_be_claimed(session: AsyncSession, attempt_id: str) -> bool:
    """Whether a further claim of this attempt is recorded: there are never many, unless somebody floods us."""
    return await room.is_room(session, ClaimRow, ClaimRow.attempt_id == attempt_id, rows=room.CLAIMS)


async def claims_by_ids(session: AsyncSession, claim_ids: Collection[str]) -> list[ClaimRow]:
    return list(await session.scalars(select(ClaimRow).where(ClaimRow.id.in_(claim_ids))))


async def claims_of(session: AsyncSession, attempt_ids: Collection[str]) -> list[ClaimRow]:
    query = select(ClaimRow).where(ClaimRow.attempt_id.in_(attempt_ids)).order_by(ClaimRow.claimed_at)
    return list(await session.scalars(query))


async def granted_claim(session: AsyncSession, attempt_id: str) -> ClaimRow | None:
    return await session.scalar(
        select(ClaimRow).where(ClaimRow.attempt_id == attempt_id, ClaimRow.answer == Answer.GRANT)
    )


async def latest_claim_id(session: AsyncSession, attempt_id: str) -> str | None:
    query = select(ClaimRow.id).where(ClaimRow.attempt_id == attempt_id)
    return await session.scalar(query.order_by(ClaimRow.claimed_at.desc(), ClaimRow.id.desc()).limit(1))


async def running_claims(session: AsyncSession) -> list[tuple[AttemptRow, ClaimRow]]:
    """The granted claims of attempts that are granted: what holds a lease."""
    query = (
        select(AttemptRow, ClaimRow)
        .join(ClaimRow, ClaimRow.attempt_id == AttemptRow.id)
        .where(AttemptRow.state == AttemptState.GRANTED, ClaimRow.answer == Answer.GRANT)
    )
    return [(attempt, row) for attempt, row in await session.execute(query)]


async def ended_claims(session: AsyncSession) -> list[ClaimRow]:
    """The claims whose end was told and whose log is still to be completed."""
    return list(await session.scalars(select(ClaimRow).where(ClaimRow.state == ClaimState.ENDED)))


async def report(session: AsyncSession, claim_id: str, sequence: int) -> ReportRow | None:
    return await session.get(ReportRow, (claim_id, sequence))


async def add_report(session: AsyncSession, row: ReportRow) -> None:
    session.add(row)
    await session.flush()


async def save_ranges(session: AsyncSession, claim_id: str, ranges: Ranges) -> None:
    values = {"log_ranges": [list(part) for part in ranges]}
    await session.execute(update(ClaimRow).where(ClaimRow.id == claim_id).values(**values))


def ranges_of(row: ClaimRow) -> Ranges:
    return tuple((part[0], part[1]) for part in row.log_ranges)


async def add_orphan(session: AsyncSession, row: OrphanRow) -> bool:
    """Record an orphan once; False when it is known, or its provider has left more of them than anybody looks at."""
    if await session.get(OrphanRow, row.claim_id) is not None:
        return False
    if not await room.is_room(session, OrphanRow, OrphanRow.provider == row.provider):
        return False
    session.add(row)
    await session.flush()
    return True


async def orphans(session: AsyncSession, limit: int) -> list[OrphanRow]:
    return list(await session.scalars(select(OrphanRow).order_by(OrphanRow.seen_at.desc()).limit(limit)))


async def note_resend(session: AsyncSession, claim_id: str, now: datetime) -> None:
    query = update(ClaimRow).where(ClaimRow.id == claim_id).values(resends=ClaimRow.resends + 1, resent_at=now)
    await session.execute(query)


async def close(session: AsyncSession, claim_id: str, state: ClaimState, gap: str | None) -> None:
    """Say that all of an ended claim is here, or what will not come any more."""
    query = update(ClaimRow).where(ClaimRow.id == claim_id, ClaimRow.state == ClaimState.ENDED)
    await session.execute(query.values(state=state, log_gap=gap))
