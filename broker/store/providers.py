"""Queries on providers: their pinned roots, cards and rate cards, and alarms."""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from broker.store import room
from broker.tables import AlarmRow, ProviderRow, RateCardRow


async def provider(session: AsyncSession, name: str) -> ProviderRow | None:
    return await session.get(ProviderRow, name)


async def provider_at(session: AsyncSession, url: str) -> ProviderRow | None:
    return await session.scalar(select(ProviderRow).where(ProviderRow.url == url))


async def providers(session: AsyncSession) -> list[ProviderRow]:
    return list(await session.scalars(select(ProviderRow).order_by(ProviderRow.name)))


async def add_provider(session: AsyncSession, row: ProviderRow) -> None:
    session.add(row)
    await session.flush()


async def save_card(session: AsyncSession, name: str, card: bytes, serial: int, now: datetime) -> bool:
    """Keep a newer card; False when one with at least this serial is there already."""
    query = (
        update(ProviderRow)
        .where(ProviderRow.name == name, ProviderRow.card_serial < serial)
        .values(card=card, card_serial=serial, card_seen_at=now)
        .returning(ProviderRow.name)
    )
    return (await session.scalar(query)) is not None


async def set_alarm(session: AsyncSession, name: str, alarm: str | None) -> None:
    await session.execute(update(ProviderRow).where(ProviderRow.name == name).values(alarm=alarm))


async def rate_card(session: AsyncSession, digest: str) -> RateCardRow | None:
    return await session.get(RateCardRow, digest)


async def rate_cards(session: AsyncSession) -> list[RateCardRow]:
    return list(await session.scalars(select(RateCardRow)))


async def save_rate_card(session: AsyncSession, provider_name: str, digest: str, raw: bytes, now: datetime) -> None:
    if await session.get(RateCardRow, digest) is None:
        session.add(RateCardRow(digest=digest, provider=provider_name, raw=raw, received_at=now))
        await session.flush()


async def raise_alarm(
    session: AsyncSession, provider_name: str, kind: str, about: str, detail: str, now: datetime
) -> bool:
    """Record an alarm once; False when it stands already, or too many of this provider do."""
    known = select(AlarmRow).where(AlarmRow.provider == provider_name, AlarmRow.kind == kind, AlarmRow.about == about)
    if await session.scalar(known) is not None:
        return False
    if not await room.is_room(session, AlarmRow, AlarmRow.provider == provider_name):
        return False
    session.add(AlarmRow(provider=provider_name, kind=kind, about=about, detail=detail, raised_at=now))
    await session.flush()
    return True


async def alarms(session: AsyncSession, limit: int) -> list[AlarmRow]:
    return list(await session.scalars(select(AlarmRow).order_by(AlarmRow.id.desc()).limit(limit)))
