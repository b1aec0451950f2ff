"""Queries on usage facts and receipts. A fact's row is chained to the one before it by hash."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from broker.decisions.witness import Verdict
from broker.store import room
from broker.store.attempts import UNFINISHED
from broker.tables import Answer, AttemptRow, ClaimRow, ClaimState, JobRow, ReceiptRow, RunRow, UsageRow
from schemas.ids import sha256_hex
from schemas.statements import Usage
from schemas.wire import to_milliseconds

_CHAIN_START = "0" * 64


async def fact(session: AsyncSession, provider: str, usage_id: str) -> UsageRow | None:
    return await session.scalar(select(UsageRow).where(UsageRow.provider == provider, UsageRow.id == usage_id))


async def add_fact(session: AsyncSession, usage: Usage, digest: str, raw: bytes, now: datetime) -> None:
    """Append a usage fact to the chain: SHA-256 over the previous link, the envelope's digest, and the time."""
    query = select(UsageRow.chain).order_by(UsageRow.position.desc()).limit(1).with_for_update()
    previous = await session.scalar(query) or _CHAIN_START
    session.add(
        UsageRow(
            provider=usage.provider,
            id=usage.id,
            digest=digest,
            raw=raw,
            attempt_id=usage.attempt,
            meter=usage.meter,
            received_at=now,
            chain=link(previous, digest, now),
        )
    )
    await session.flush()


async def is_room_for(session: AsyncSession, usage: Usage) -> bool:
    """Whether a further fact of this attempt is recorded: more than so many are nobody's honest account."""
    where = (UsageRow.provider == usage.provider, UsageRow.attempt_id == usage.attempt)
    return usage.attempt is None or await room.is_room(session, UsageRow, *where, rows=room.FACTS)


async def earlier(session: AsyncSession, row: UsageRow) -> list[UsageRow]:
    """The facts of the same provider, attempt and meter that came before this one and were not disputed."""
    query = select(UsageRow).where(
        UsageRow.provider == row.provider,
        UsageRow.attempt_id == row.attempt_id,
        UsageRow.meter == row.meter,
        UsageRow.position < row.position,
        UsageRow.verdict.is_distinct_from("disputed"),
    )
    return list(await session.scalars(query))


def link(previous: str, digest: str, received_at: datetime) -> str:
    return sha256_hex(f"{previous}\n{digest}\n{to_milliseconds(received_at)}".encode())


async def unanswered(session: AsyncSession, limit: int) -> list[UsageRow]:
    """Facts without a receipt that can be judged by now: those of attempts that go on, or whose log does, wait."""
    unfinished = select(AttemptRow.id).where(AttemptRow.state.in_(UNFINISHED))
    unsettled = select(ClaimRow.attempt_id).where(
        ClaimRow.answer == Answer.GRANT, ClaimRow.state.in_((ClaimState.OPEN, ClaimState.ENDED))
    )
    is_closed = and_(UsageRow.attempt_id.not_in(unfinished), UsageRow.attempt_id.not_in(unsettled))
    query = (
        select(UsageRow)
        .where(UsageRow.receipt_id.is_(None))
        .where(or_(UsageRow.attempt_id.is_(None), is_closed))
        .order_by(UsageRow.position)
        .limit(limit)
    )
    return list(await session.scalars(query))


async def add_receipt(session: AsyncSession, receipt: ReceiptRow, positions: Collection[int], verdict: Verdict) -> None:
    session.add(receipt)
    await session.flush()
    await session.execute(
        update(UsageRow)
        .where(UsageRow.position.in_(positions))
        .values(receipt_id=receipt.id, verdict=verdict.verdict, verdict_reason=verdict.reason)
    )


async def facts(session: AsyncSession, *, provider: str | None = None, run_id: str | None = None) -> list[UsageRow]:
    query = select(UsageRow).order_by(UsageRow.position)
    if provider is not None:
        query = query.where(UsageRow.provider == provider)
    if run_id is not None:
        query = (
            query.join(AttemptRow, AttemptRow.id == UsageRow.attempt_id)
            .join(JobRow, JobRow.id == AttemptRow.job_id)
            .where(JobRow.run_id == run_id)
        )
    return list(await session.scalars(query))


async def projects_of(session: AsyncSession, attempts: Collection[str]) -> dict[str, str]:
    """The project of each of these attempts."""
    query = (
        select(AttemptRow.id, RunRow.project)
        .join(JobRow, JobRow.id == AttemptRow.job_id)
        .join(RunRow, RunRow.id == JobRow.run_id)
        .where(AttemptRow.id.in_(attempts))
    )
    return {attempt: project for attempt, project in await session.execute(query)}  # noqa: C416
