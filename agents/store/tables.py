"""What a store keeps beside the blobs: tenants, tabs, uploads, what is stored and what it is called, and its outbox."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, LargeBinary, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from runtime.database import COLUMN_TYPES, new_metadata
from runtime.outbox_table import OutboxColumns


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = COLUMN_TYPES


class TenantRow(Base):
    """A principal that ever opened a tab here: who pays."""

    __tablename__ = "tenants"

    tenant: Mapped[str] = mapped_column(String(27), primary_key=True)
    iss: Mapped[str]
    sub: Mapped[str]
    first_seen_at: Mapped[datetime]


class TabRow(Base):
    """What one ticket allows its holder, what went through so far, and how it ended.

    A tab is closed by its holder or by its end; it is settled when its use has been stated. The token is the one that
    the ticket came with: when that is revoked, the tab is refused.
    """

    __tablename__ = "tabs"

    tab: Mapped[str] = mapped_column(String(27), primary_key=True)
    ticket_id: Mapped[str] = mapped_column(String(27), unique=True)
    ticket_digest: Mapped[str] = mapped_column(String(64))
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.tenant"))
    holder_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    attempt: Mapped[str | None] = mapped_column(String(27))
    project: Mapped[str | None] = mapped_column(String(40))
    reads_all: Mapped[bool]
    write_prefix: Mapped[str | None] = mapped_column(String(300))
    write_bytes: Mapped[int] = mapped_column(BigInteger)
    bytes_in: Mapped[int] = mapped_column(BigInteger)
    bytes_out: Mapped[int] = mapped_column(BigInteger)
    token_id: Mapped[str]
    token_issued_at: Mapped[datetime]
    opened_at: Mapped[datetime]
    ends_at: Mapped[datetime] = mapped_column(index=True)
    closed_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None] = mapped_column(index=True)


class ReadableRow(Base):
    """A digest that a tab may read: its ticket says so, or it was uploaded through this tab."""

    __tablename__ = "readable"

    tab: Mapped[str] = mapped_column(ForeignKey("tabs.tab", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)


class UploadRow(Base):
    """Room kept for an upload under way; its bytes so far are in a file of the same tab and digest."""

    __tablename__ = "uploads"

    tab: Mapped[str] = mapped_column(ForeignKey("tabs.tab", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(27), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    begun_at: Mapped[datetime]


class BlobRow(Base):
    """A stored blob of a tenant: metered from `metered_until` on, kept until `expires_at`.

    A damaged one (its file is gone, or other than its digest) is not served and not metered until uploaded again.
    """

    __tablename__ = "blobs"

    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.tenant"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    project: Mapped[str | None] = mapped_column(String(40))
    stored_at: Mapped[datetime]
    metered_until: Mapped[datetime] = mapped_column(index=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    damaged_at: Mapped[datetime | None]

    __table_args__ = (CheckConstraint("size_bytes >= 0", name="size"),)


class NameRow(Base):
    """A name of a blob, `project/run/job/attempt/path`; it never means another one, and goes with it."""

    __tablename__ = "names"

    tenant: Mapped[str] = mapped_column(String(27), primary_key=True)
    name: Mapped[str] = mapped_column(String(700), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    named_at: Mapped[datetime]

    __table_args__ = (
        ForeignKeyConstraint(["tenant", "digest"], ["blobs.tenant", "blobs.digest"], ondelete="CASCADE"),
        Index("ix_names_blob", "tenant", "digest"),
    )


class OutboxRow(OutboxColumns, Base):
    """Usage statements on their way to the billing exchange and to the customer."""

    __tablename__ = "outbox"
