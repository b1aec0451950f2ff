"""The book: usage facts and receipts byte for byte, alarms, the rate cards that facts cite, and invoices."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from runtime.database import COLUMN_TYPES, SerialId, new_metadata


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = COLUMN_TYPES


class FactRow(Base):
    """A usage fact as stated; what is beside `raw` is read from it and serves queries only."""

    __tablename__ = "facts"

    position: Mapped[int] = mapped_column(SerialId, primary_key=True)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    raw: Mapped[bytes]
    agent_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    link: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[datetime]
    iss: Mapped[str]
    sub: Mapped[str]
    ended_at: Mapped[datetime]

    __table_args__ = (Index("ix_facts_customer", "iss", "sub", "ended_at"),)


class ReceiptRow(Base):
    """A customer's answer, with the token and the key under which it was believed."""

    __tablename__ = "receipts"

    position: Mapped[int] = mapped_column(SerialId, primary_key=True)
    id: Mapped[str] = mapped_column(String(27), unique=True)
    digest: Mapped[str] = mapped_column(String(64))
    raw: Mapped[bytes]
    customer_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    received_at: Mapped[datetime]
    iss: Mapped[str]
    sub: Mapped[str]


class AnswerRow(Base):
    """What a receipt says of one event; the first answer counts, a later other one is kept beside it."""

    __tablename__ = "answers"

    event: Mapped[str] = mapped_column(String(64), primary_key=True)
    receipt: Mapped[str] = mapped_column(String(27), primary_key=True)
    verdict: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str]


class AlarmRow(Base):
    """Something that an honest party does not send: kept whole, for a person to look at."""

    __tablename__ = "alarms"

    id: Mapped[int] = mapped_column(SerialId, primary_key=True)
    at: Mapped[datetime]
    queue: Mapped[str]
    reason: Mapped[str] = mapped_column(String(40))
    detail: Mapped[str]
    raw: Mapped[bytes]


class RateCardRow(Base):
    __tablename__ = "rate_cards"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    raw: Mapped[bytes]


class InvoiceRow(Base):
    """An invoice as signed."""

    __tablename__ = "invoices"

    number: Mapped[str] = mapped_column(String(61), primary_key=True)
    iss: Mapped[str]
    sub: Mapped[str]
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    raw: Mapped[bytes]
    issued_at: Mapped[datetime]


class InvoicedRow(Base):
    """On which invoice a fact was considered, billed or free; the key sees to it that it is one at most."""

    __tablename__ = "invoiced"

    event: Mapped[str] = mapped_column(String(64), primary_key=True)
    invoice: Mapped[str] = mapped_column(ForeignKey("invoices.number"), index=True)
