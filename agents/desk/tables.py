"""What a desk keeps: tenants, agents, sessions, tickets that were used, the cards it signed, and an audit log."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from agents.desk.policy import Standing
from runtime.database import COLUMN_TYPES, SerialId, new_metadata
from schemas.tickets import AgentRole


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = COLUMN_TYPES


class TenantRow(Base):
    """A principal that came here. Its exchanges and queues exist while `is_provisioned`."""

    __tablename__ = "tenants"

    tenant: Mapped[str] = mapped_column(String(27), primary_key=True)
    iss: Mapped[str]
    sub: Mapped[str]
    standing: Mapped[Standing] = mapped_column(String(20))
    is_provisioned: Mapped[bool]
    first_seen_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]

    __table_args__ = (Index("ix_tenants_iss", "iss"),)


class AgentRow(Base):
    """One of the provider's own daemons; `offer` is a worker's last one, as payload bytes."""

    __tablename__ = "agents"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    role: Mapped[AgentRole] = mapped_column(String(20))
    key: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    enrolled_at: Mapped[datetime]
    last_seen_at: Mapped[datetime | None]
    offer: Mapped[bytes | None]

    __table_args__ = (CheckConstraint("length(key) = 32", name="key_length"),)


class AgentAccountRow(Base):
    """An account under which an agent introduces itself to controllers."""

    __tablename__ = "agent_accounts"

    agent: Mapped[str] = mapped_column(ForeignKey("agents.name", ondelete="CASCADE"), primary_key=True)
    iss: Mapped[str] = mapped_column(primary_key=True)
    sub: Mapped[str]


class SessionRow(Base):
    """A RabbitMQ user that this desk made. `holder` is a tenant id or an agent's name; it has one session at a time.

    `epoch` counts the holder's sessions and is part of the user's name, so that a removed user never comes back. The
    token is the one that a tenant's session was last opened or extended with; when it is revoked, the session ends.
    """

    __tablename__ = "sessions"

    holder: Mapped[str] = mapped_column(String(40), primary_key=True)
    epoch: Mapped[int]
    ends_at: Mapped[datetime]
    is_open: Mapped[bool]
    token_id: Mapped[str | None]
    token_issued_at: Mapped[datetime | None]


class TicketRow(Base):
    """A ticket that was used, kept until no clock within the allowed skew would take it any more."""

    __tablename__ = "tickets"

    id: Mapped[str] = mapped_column(String(27), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime] = mapped_column(index=True)


class StatementRow(Base):
    """A card or rate card that this desk signed, byte for byte."""

    __tablename__ = "statements"

    type: Mapped[str] = mapped_column(String(64), primary_key=True)
    serial: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    raw: Mapped[bytes]
    signed_at: Mapped[datetime]


class AuditRow(Base):
    """What the owner did, and what the desk did on its own; rows are only added."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(SerialId, primary_key=True)
    at: Mapped[datetime]
    act: Mapped[str] = mapped_column(String(40))
    about: Mapped[str]
    detail: Mapped[str]
