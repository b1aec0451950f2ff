"""Every query of the desk. Each function works inside the caller's transaction."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from agents.desk.policy import Standing
from agents.desk.tables import (
    AgentAccountRow,
    AgentRow,
    AuditRow,
    SessionRow,
    StatementRow,
    TenantRow,
    TicketRow,
)
from schemas.statements import Agent, AgentAccount
from schemas.tickets import AgentRole, WorkerOffer


@dataclass(frozen=True, slots=True)
class OpenSession:
    holder: str
    epoch: int
    ends_at: datetime
    token: "SessionToken | None" = None


@dataclass(frozen=True, slots=True)
class SessionToken:
    """The ID token that a tenant's session stands on."""

    id: str
    issued_at: datetime


# -- tenants


async def tenant(session: AsyncSession, tenant_id: str) -> TenantRow | None:
    return await session.get(TenantRow, tenant_id)


async def tenants(session: AsyncSession) -> list[TenantRow]:
    return list(await session.scalars(select(TenantRow).order_by(TenantRow.first_seen_at)))


async def provisioned_tenants(session: AsyncSession) -> tuple[str, ...]:
    """The tenants whose queues exist, in the order of their coming."""
    query = select(TenantRow.tenant).where(TenantRow.is_provisioned).order_by(TenantRow.first_seen_at, TenantRow.tenant)
    return tuple(await session.scalars(query))


async def count_tenants(session: AsyncSession, iss: str) -> int:
    """How many principals of the issuer hold a place: all but those denied."""
    query = select(func.count()).where(TenantRow.iss == iss, TenantRow.standing != Standing.DENIED)
    return await session.scalar(query) or 0


async def idle_tenants(session: AsyncSession, before: datetime) -> tuple[str, ...]:
    """Provisioned tenants without a session that were last seen before this time."""
    with_session = select(SessionRow.holder).where(SessionRow.is_open)
    query = select(TenantRow.tenant).where(
        TenantRow.is_provisioned, TenantRow.last_seen_at < before, TenantRow.tenant.not_in(with_session)
    )
    return tuple(await session.scalars(query))


async def set_standing(session: AsyncSession, tenant_id: str, standing: Standing) -> bool:
    """Whether there is such a tenant; its standing is what was said."""
    row = await session.get(TenantRow, tenant_id)
    if row is not None:
        row.standing = standing
    return row is not None


async def count_provisioned(session: AsyncSession) -> int:
    """How many tenants have queues."""
    return await session.scalar(select(func.count()).where(TenantRow.is_provisioned)) or 0


async def mark_provisioned(session: AsyncSession, tenant_id: str, is_provisioned: bool) -> None:
    await session.execute(update(TenantRow).where(TenantRow.tenant == tenant_id).values(is_provisioned=is_provisioned))


# -- agents


async def agent(session: AsyncSession, name: str) -> AgentRow | None:
    return await session.get(AgentRow, name)


async def agent_keys(session: AsyncSession) -> dict[str, bytes]:
    return {row.name: row.key for row in await session.scalars(select(AgentRow))}


async def agent_roles(session: AsyncSession) -> dict[str, AgentRole]:
    return {row.name: row.role for row in await session.scalars(select(AgentRow).order_by(AgentRow.name))}


async def agents(session: AsyncSession) -> tuple[Agent, ...]:
    """All enrolled agents as the card shows them, by name."""
    accounts: dict[str, list[AgentAccount]] = {}
    for row in await session.scalars(select(AgentAccountRow).order_by(AgentAccountRow.iss)):
        accounts.setdefault(row.agent, []).append(AgentAccount(iss=row.iss, sub=row.sub))
    rows = await session.scalars(select(AgentRow).order_by(AgentRow.name))
    return tuple(
        Agent(name=row.name, role=row.role, key=row.key, accounts=tuple(accounts.get(row.name, ()))) for row in rows
    )


async def enrol(session: AsyncSession, agent_: Agent, now: datetime) -> None:
    """Add an agent, or give a known one its new key, role and accounts.

    With a new key or role it needs a new session: whoever holds the old key knows the old one's password.
    """
    row = await session.get(AgentRow, agent_.name)
    if row is None or (row.role, row.key) != (agent_.role, agent_.key):
        await session.execute(update(SessionRow).where(SessionRow.holder == agent_.name).values(is_open=False))
    if row is None:
        row = AgentRow(
            name=agent_.name, role=agent_.role, key=agent_.key, enrolled_at=now, last_seen_at=None, offer=None
        )
        session.add(row)
    row.role, row.key = agent_.role, agent_.key
    await session.flush()
    await session.execute(delete(AgentAccountRow).where(AgentAccountRow.agent == agent_.name))
    session.add_all(AgentAccountRow(agent=agent_.name, iss=account.iss, sub=account.sub) for account in agent_.accounts)


async def remove_agent(session: AsyncSession, name: str) -> bool:
    row = await session.get(AgentRow, name)
    if row is not None:
        await session.delete(row)
    return row is not None


async def offers(session: AsyncSession) -> dict[str, WorkerOffer]:
    """The offers of the workers that have an open session, by worker."""
    query = (
        select(AgentRow.name, AgentRow.offer)
        .join(SessionRow, SessionRow.holder == AgentRow.name)
        .where(SessionRow.is_open, AgentRow.offer.is_not(None))
    )
    found = {name: WorkerOffer.model_validate_json(raw or b"") for name, raw in await session.execute(query)}
    return dict(sorted(found.items()))


# -- sessions and tickets


async def open_session(session: AsyncSession, holder: str) -> OpenSession | None:
    row = await session.get(SessionRow, holder)
    return _as_open(row) if row is not None and row.is_open else None


async def open_sessions(session: AsyncSession) -> tuple[OpenSession, ...]:
    rows = await session.scalars(select(SessionRow).where(SessionRow.is_open).order_by(SessionRow.holder))
    return tuple(_as_open(row) for row in rows)


async def extend_session(
    session: AsyncSession, holder: str, ends_at: datetime, token: SessionToken | None = None
) -> OpenSession:
    """The holder's open session with this end and token, or a new one under the next epoch."""
    row = await session.get(SessionRow, holder)
    if row is None:
        row = SessionRow(holder=holder, epoch=0, ends_at=ends_at, is_open=False)
        session.add(row)
    if not row.is_open:
        row.epoch += 1
        row.is_open = True
    row.ends_at = ends_at
    row.token_id, row.token_issued_at = (token.id, token.issued_at) if token else (None, None)
    return _as_open(row)


def _as_open(row: SessionRow) -> OpenSession:
    has_token = row.token_id is not None and row.token_issued_at is not None
    token = SessionToken(row.token_id or "", row.token_issued_at or row.ends_at) if has_token else None
    return OpenSession(row.holder, row.epoch, row.ends_at, token)


async def close_session(session: AsyncSession, holder: str, epoch: int) -> None:
    await session.execute(
        update(SessionRow).where(SessionRow.holder == holder, SessionRow.epoch == epoch).values(is_open=False)
    )


async def use_ticket(session: AsyncSession, ticket_id: str, digest: str, expires_at: datetime) -> str | None:
    """Note that a ticket is used now; the digest of the earlier use where there was one."""
    row = await session.get(TicketRow, ticket_id)
    if row is not None:
        return row.digest
    session.add(TicketRow(id=ticket_id, digest=digest, expires_at=expires_at))
    await session.flush()
    return None


async def forget_tickets(session: AsyncSession, before: datetime) -> None:
    await session.execute(delete(TicketRow).where(TicketRow.expires_at < before))


# -- statements and audit


async def last_statement(session: AsyncSession, type_: str) -> StatementRow | None:
    query = select(StatementRow).where(StatementRow.type == type_).order_by(StatementRow.serial.desc()).limit(1)
    return (await session.scalars(query)).first()


async def statement_by_digest(session: AsyncSession, digest: str) -> StatementRow | None:
    return (await session.scalars(select(StatementRow).where(StatementRow.digest == digest))).first()


def add_statement(session: AsyncSession, type_: str, serial: int, digest: str, raw: bytes, now: datetime) -> None:
    session.add(StatementRow(type=type_, serial=serial, digest=digest, raw=raw, signed_at=now))


def audit(session: AsyncSession, now: datetime, act: str, about: str, detail: str = "") -> None:
    session.add(AuditRow(at=now, act=act, about=about, detail=detail))


async def audit_log(session: AsyncSession, limit: int) -> list[AuditRow]:
    return list(await session.scalars(select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)))
