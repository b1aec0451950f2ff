"""Every query of the artifact store. Each function works inside the caller's transaction."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from agents.store.tables import BlobRow, NameRow, ReadableRow, TabRow, TenantRow, UploadRow

# -- tenants and tabs


async def tenant(session: AsyncSession, tenant_id: str) -> TenantRow | None:
    return await session.get(TenantRow, tenant_id)


async def tab(session: AsyncSession, tab_id: str) -> TabRow | None:
    return await session.get(TabRow, tab_id)


async def tab_of_ticket(session: AsyncSession, ticket_id: str) -> TabRow | None:
    return await session.scalar(select(TabRow).where(TabRow.ticket_id == ticket_id))


async def add_tab(session: AsyncSession, row: TabRow, reads: Iterable[str]) -> None:
    session.add(row)
    await session.flush()
    session.add_all(ReadableRow(tab=row.tab, digest=digest) for digest in dict.fromkeys(reads))


async def tabs_to_settle(session: AsyncSession, now: datetime, limit: int) -> list[str]:
    """Tabs that are over and whose use has not been stated."""
    is_over = or_(TabRow.closed_at.is_not(None), TabRow.ends_at <= now)
    query = select(TabRow.tab).where(TabRow.settled_at.is_(None), is_over).order_by(TabRow.ends_at).limit(limit)
    return list(await session.scalars(query))


async def forget_tabs(session: AsyncSession, settled_before: datetime) -> None:
    """Delete tabs settled before this time; their tickets have expired long ago."""
    await session.execute(delete(TabRow).where(TabRow.settled_at < settled_before))


async def count_bytes_out(session: AsyncSession, tab_id: str, size_bytes: int) -> None:
    change = update(TabRow).where(TabRow.tab == tab_id).values(bytes_out=TabRow.bytes_out + size_bytes)
    await session.execute(change)


# -- what a tab may read


async def is_readable(session: AsyncSession, row: TabRow, digest: str) -> bool:
    return row.reads_all or await session.get(ReadableRow, (row.tab, digest)) is not None


async def make_readable(session: AsyncSession, tab_id: str, digest: str) -> None:
    if await session.get(ReadableRow, (tab_id, digest)) is None:
        session.add(ReadableRow(tab=tab_id, digest=digest))


# -- uploads


async def upload(session: AsyncSession, tab_id: str, digest: str) -> UploadRow | None:
    return await session.get(UploadRow, (tab_id, digest))


async def end_uploads(session: AsyncSession, tab_id: str) -> None:
    await session.execute(delete(UploadRow).where(UploadRow.tab == tab_id))


async def end_upload(session: AsyncSession, tab_id: str, digest: str) -> None:
    await session.execute(delete(UploadRow).where(UploadRow.tab == tab_id, UploadRow.digest == digest))


async def reserved_by_tab(session: AsyncSession, tab_id: str) -> int:
    return await _sum_of_uploads(session, UploadRow.tab == tab_id)


async def used_by_tenant(session: AsyncSession, tenant_id: str) -> int:
    """Bytes stored and reserved."""
    stored = await session.scalar(select(func.sum(BlobRow.size_bytes)).where(BlobRow.tenant == tenant_id))
    return (stored or 0) + await _sum_of_uploads(session, UploadRow.tenant == tenant_id)


async def open_uploads(session: AsyncSession) -> set[tuple[str, str]]:
    """All uploads under way, as (tab, digest)."""
    rows = await session.execute(select(UploadRow.tab, UploadRow.digest))
    return {(tab_id, digest) for tab_id, digest in rows}


async def _sum_of_uploads(session: AsyncSession, condition: object) -> int:
    return await session.scalar(select(func.sum(UploadRow.size_bytes)).where(condition)) or 0  # type: ignore[arg-type]


# -- blobs and names


async def blob(session: AsyncSession, tenant_id: str, digest: str) -> BlobRow | None:
    """A blob that can be served; a damaged one is not there."""
    row = await session.get(BlobRow, (tenant_id, digest))
    return row if row is not None and row.damaged_at is None else None


async def any_blob(session: AsyncSession, tenant_id: str, digest: str) -> BlobRow | None:
    """A blob, damaged or not."""
    return await session.get(BlobRow, (tenant_id, digest))


async def blobs_to_meter(session: AsyncSession, until: datetime, limit: int) -> list[BlobRow]:
    query = (
        select(BlobRow)
        .where(BlobRow.metered_until < until, BlobRow.damaged_at.is_(None))
        .order_by(BlobRow.metered_until, BlobRow.tenant, BlobRow.digest)
        .limit(limit)
    )
    return list(await session.scalars(query))


async def expired_blobs(session: AsyncSession, now: datetime, metered_until: datetime, limit: int) -> list[BlobRow]:
    """Blobs whose time is over and whose storage has been stated up to `metered_until`; or that are damaged."""
    is_stated = or_(BlobRow.metered_until >= metered_until, BlobRow.damaged_at.is_not(None))
    query = select(BlobRow).where(BlobRow.expires_at <= now, is_stated).order_by(BlobRow.expires_at).limit(limit)
    return list(await session.scalars(query))


async def known_digests(session: AsyncSession, tenant_id: str, digests: Iterable[str]) -> set[str]:
    query = select(BlobRow.digest).where(BlobRow.tenant == tenant_id, BlobRow.digest.in_(list(digests)))
    return set(await session.scalars(query))


async def named(session: AsyncSession, tenant_id: str, name: str) -> NameRow | None:
    return await session.get(NameRow, (tenant_id, name))


async def totals(session: AsyncSession) -> tuple[int, int]:
    """How many blobs there are, and their bytes."""
    row = (await session.execute(select(func.count(), func.sum(BlobRow.size_bytes)).select_from(BlobRow))).one()
    return row[0], row[1] or 0
