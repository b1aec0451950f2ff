"""The tables of an identity server. Queries are in `store`; SQLite only, one file in the data directory."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from runtime.database import COLUMN_TYPES, SerialId, new_metadata


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = COLUMN_TYPES


class Account(Base):
    """A subject of this issuer, by the name that is its `client_id` and `sub`. Never deleted: a name is one person's.

    `revoked_at`: of the ID tokens issued up to then (in whole seconds, as in their `iat`) none is good any more.
    """

    __tablename__ = "account"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    key: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    key_since: Mapped[datetime | None]


class ApiToken(Base):
    """A long-lived secret of an account: only its digest is kept. `id` names it to people."""

    __tablename__ = "api_token"

    id: Mapped[int] = mapped_column(SerialId, primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("account.name"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class IssuedToken(Base):
    """An ID token that may still be good; forgotten some time after its end, the audit log keeps that it was."""

    __tablename__ = "issued_token"

    jti: Mapped[str] = mapped_column(String(40), primary_key=True)
    sub: Mapped[str] = mapped_column(ForeignKey("account.name"), index=True)
    aud: Mapped[str] = mapped_column(String(200))
    kid: Mapped[str] = mapped_column(ForeignKey("signing_key.kid"), index=True)
    api_token: Mapped[int] = mapped_column(ForeignKey("api_token.id"), index=True)
    holder_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]


class SeenProof(Base):
    """A DPoP proof that was used: kept until its time window is over, so that it is good once."""

    __tablename__ = "seen_proof"

    thumbprint: Mapped[str] = mapped_column(String(43), primary_key=True)
    jti: Mapped[str] = mapped_column(String(200), primary_key=True)
    forget_at: Mapped[datetime] = mapped_column(index=True)


class KeyState(StrEnum):
    """The life of a signing key: published as `next`, then `active`, then `retired`; or `compromised`, and gone."""

    NEXT = "next"
    ACTIVE = "active"
    RETIRED = "retired"
    COMPROMISED = "compromised"


class IssuerKey(Base):
    """A key of this issuer; the private half is in a file until it retires. Rows stay for ever."""

    __tablename__ = "signing_key"
    __table_args__ = (
        CheckConstraint("state IN ('next', 'active', 'retired', 'compromised')", name="state"),
        Index("uq_signing_key_next", "state", unique=True, sqlite_where=text("state = 'next'")),
        Index("uq_signing_key_active", "state", unique=True, sqlite_where=text("state = 'active'")),
    )

    kid: Mapped[str] = mapped_column(String(43), primary_key=True)
    public: Mapped[bytes] = mapped_column(LargeBinary(32))
    state: Mapped[str] = mapped_column(String(12))
    published_at: Mapped[datetime]
    active_from: Mapped[datetime | None]
    active_until: Mapped[datetime | None]
    published_until: Mapped[datetime | None]


class AuditEntry(Base):
    """What happened, who did it, from where. Triggers of the database refuse every change and deletion."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(SerialId, primary_key=True)
    at: Mapped[datetime]
    event: Mapped[str] = mapped_column(String(40))
    account: Mapped[str | None] = mapped_column(String(40), index=True)
    actor: Mapped[str] = mapped_column(String(100))
    detail: Mapped[str]
