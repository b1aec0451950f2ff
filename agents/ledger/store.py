"""Every query of the ledger. Each function works inside the caller's transaction."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from agents.ledger import chain
from agents.ledger.tables import AlarmRow, AnswerRow, FactRow, InvoicedRow, InvoiceRow, RateCardRow, ReceiptRow
from identity.trust import SignedBy, Verified
from schemas.refusals import Refusal
from schemas.statements import Receipt, Usage


async def known_digests(session: AsyncSession, ids: Iterable[str]) -> dict[str, str]:
    """The digests under which these fact ids are in the book."""
    rows = await session.execute(select(FactRow.id, FactRow.digest).where(FactRow.id.in_(list(ids))))
    return {row.id: row.digest for row in rows}


async def last_link(session: AsyncSession) -> str:
    link = await session.scalar(select(FactRow.link).order_by(FactRow.position.desc()).limit(1))
    return link or chain.BEGINNING


def add_fact(session: AsyncSession, fact: SignedBy[Usage], link: str, received_at: datetime) -> None:
    session.add(
        FactRow(
            id=fact.message.id,
            digest=fact.digest,
            raw=fact.raw,
            agent_key=fact.key,
            link=link,
            received_at=received_at,
            iss=fact.message.iss,
            sub=fact.message.sub,
            ended_at=fact.message.ended_at,
        )
    )


async def chain_rows(session: AsyncSession) -> list[tuple[str, str]]:
    rows = await session.execute(select(FactRow.digest, FactRow.link).order_by(FactRow.position))
    return [(digest, link) for digest, link in rows]


async def receipt_digest(session: AsyncSession, receipt_id: str) -> str | None:
    return await session.scalar(select(ReceiptRow.digest).where(ReceiptRow.id == receipt_id))


def add_receipt(session: AsyncSession, receipt: Verified[Receipt], received_at: datetime) -> None:
    """Keep a receipt, and its answer for each event that it cites."""
    said = receipt.message
    session.add(
        ReceiptRow(
            id=said.id,
            digest=receipt.digest,
            raw=receipt.raw,
            customer_key=receipt.key,
            received_at=received_at,
            iss=said.iss,
            sub=said.sub,
        )
    )
    session.add_all(
        AnswerRow(event=event, receipt=said.id, verdict=said.verdict, reason=said.reason)
        for event in dict.fromkeys(said.events)
    )


def add_alarm(session: AsyncSession, at: datetime, queue: str, refusal: Refusal, raw: bytes) -> None:
    session.add(AlarmRow(at=at, queue=queue, reason=refusal.reason, detail=refusal.detail, raw=raw))


async def alarms(session: AsyncSession) -> list[AlarmRow]:
    return list(await session.scalars(select(AlarmRow).order_by(AlarmRow.id)))


async def customers(session: AsyncSession) -> list[tuple[str, str]]:
    """The principals `(iss, sub)` that used anything."""
    rows = await session.execute(select(FactRow.iss, FactRow.sub).distinct().order_by(FactRow.iss, FactRow.sub))
    return [(iss, sub) for iss, sub in rows]


async def uninvoiced(session: AsyncSession, iss: str, sub: str, before: datetime) -> list[FactRow]:
    """A customer's facts that no invoice has considered yet and that ended before this time."""
    query = (
        select(FactRow)
        .outerjoin(InvoicedRow, InvoicedRow.event == FactRow.digest)
        .where(FactRow.iss == iss, FactRow.sub == sub, FactRow.ended_at < before, InvoicedRow.event.is_(None))
        .order_by(FactRow.position)
    )
    return list(await session.scalars(query))


async def rate_card(session: AsyncSession, digest: str) -> bytes | None:
    return await session.scalar(select(RateCardRow.raw).where(RateCardRow.digest == digest))


def add_rate_card(session: AsyncSession, digest: str, raw: bytes) -> None:
    session.add(RateCardRow(digest=digest, raw=raw))


async def add_invoice(session: AsyncSession, row: InvoiceRow, events: Iterable[str]) -> None:
    session.add(row)
    await session.flush()
    session.add_all(InvoicedRow(event=event, invoice=row.number) for event in events)


async def invoices(session: AsyncSession) -> list[InvoiceRow]:
    return list(await session.scalars(select(InvoiceRow).order_by(InvoiceRow.issued_at, InvoiceRow.number)))


async def count_invoices(session: AsyncSession) -> int:
    return await session.scalar(select(func.count()).select_from(InvoiceRow)) or 0


async def answers(session: AsyncSession, events: Iterable[str]) -> dict[str, list[AnswerRow]]:
    """What customers said of these events, by the events' digests."""
    found: dict[str, list[AnswerRow]] = {}
    query = select(AnswerRow).where(AnswerRow.event.in_(list(events))).order_by(AnswerRow.receipt)
    for row in await session.scalars(query):
        found.setdefault(row.event, []).append(row)
    return found
