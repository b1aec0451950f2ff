"""The first tables, and an audit log that cannot be rewritten."""
# ruff: noqa: INP001

import sqlalchemy as sa
from alembic import op

from runtime.database import Instant, SerialId

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("disabled_at", Instant(), nullable=True),
        sa.Column("revoked_at", Instant(), nullable=True),
        sa.Column("key", sa.LargeBinary(length=32), nullable=True),
        sa.Column("key_since", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_account")),
    )
    op.create_table(
        "audit",
        sa.Column("id", SerialId, nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("event", sa.String(length=40), nullable=False),
        sa.Column("account", sa.String(length=40), nullable=True),
        sa.Column("actor", sa.String(length=100), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_account", "audit", ["account"])
    op.create_table(
        "seen_proof",
        sa.Column("thumbprint", sa.String(length=43), nullable=False),
        sa.Column("jti", sa.String(length=200), nullable=False),
        sa.Column("forget_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("thumbprint", "jti", name=op.f("pk_seen_proof")),
    )
    op.create_index("ix_seen_proof_forget_at", "seen_proof", ["forget_at"])
    op.create_table(
        "signing_key",
        sa.Column("kid", sa.String(length=43), nullable=False),
        sa.Column("public", sa.LargeBinary(length=32), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("published_at", Instant(), nullable=False),
        sa.Column("active_from", Instant(), nullable=True),
        sa.Column("active_until", Instant(), nullable=True),
        sa.Column("published_until", Instant(), nullable=True),
        sa.CheckConstraint("state IN ('next', 'active', 'retired', 'compromised')", name=op.f("ck_signing_key_state")),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_signing_key")),
    )
    op.create_index(
        "uq_signing_key_active", "signing_key", ["state"], unique=True, sqlite_where=sa.text("state = 'active'")
    )
    op.create_index(
        "uq_signing_key_next", "signing_key", ["state"], unique=True, sqlite_where=sa.text("state = 'next'")
    )
    op.create_table(
        "api_token",
        sa.Column("id", SerialId, nullable=False),
        sa.Column("account", sa.String(length=40), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("revoked_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(["account"], ["account.name"], name=op.f("fk_api_token_account_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_token")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_token_digest")),
    )
    op.create_index("ix_api_token_account", "api_token", ["account"])
    op.create_table(
        "issued_token",
        sa.Column("jti", sa.String(length=40), nullable=False),
        sa.Column("sub", sa.String(length=40), nullable=False),
        sa.Column("aud", sa.String(length=200), nullable=False),
        sa.Column("kid", sa.String(length=43), nullable=False),
        sa.Column("api_token", SerialId, nullable=False),
        sa.Column("holder_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("issued_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.Column("revoked_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(["api_token"], ["api_token.id"], name=op.f("fk_issued_token_api_token_api_token")),
        sa.ForeignKeyConstraint(["kid"], ["signing_key.kid"], name=op.f("fk_issued_token_kid_signing_key")),
        sa.ForeignKeyConstraint(["sub"], ["account.name"], name=op.f("fk_issued_token_sub_account")),
        sa.PrimaryKeyConstraint("jti", name=op.f("pk_issued_token")),
    )
    op.create_index("ix_issued_token_api_token", "issued_token", ["api_token"])
    op.create_index("ix_issued_token_expires_at", "issued_token", ["expires_at"])
    op.create_index("ix_issued_token_kid", "issued_token", ["kid"])
    op.create_index("ix_issued_token_sub", "issued_token", ["sub"])
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_refuses_{change.lower()} BEFORE {change} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )


def downgrade() -> None:
    for table in ("issued_token", "api_token", "signing_key", "seen_proof", "audit", "account"):
        op.drop_table(table)
