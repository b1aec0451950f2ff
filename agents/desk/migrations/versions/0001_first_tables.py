"""The first tables."""

import sqlalchemy as sa
from alembic import op

from runtime.database import Instant

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "agents",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("enrolled_at", Instant(), nullable=False),
        sa.Column("last_seen_at", Instant(), nullable=True),
        sa.Column("offer", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint("length(key) = 32", name=op.f("ck_agents_key_length")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_agents")),
        sa.UniqueConstraint("key", name=op.f("uq_agents_key")),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("act", sa.String(length=40), nullable=False),
        sa.Column("about", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_table(
        "sessions",
        sa.Column("holder", sa.String(length=40), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("ends_at", Instant(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("token_id", sa.String(), nullable=True),
        sa.Column("token_issued_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("holder", name=op.f("pk_sessions")),
    )
    op.create_table(
        "statements",
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("signed_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("type", "serial", name=op.f("pk_statements")),
        sa.UniqueConstraint("digest", name=op.f("uq_statements_digest")),
    )
    op.create_table(
        "tenants",
        sa.Column("tenant", sa.String(length=27), nullable=False),
        sa.Column("iss", sa.String(), nullable=False),
        sa.Column("sub", sa.String(), nullable=False),
        sa.Column("standing", sa.String(length=20), nullable=False),
        sa.Column("is_provisioned", sa.Boolean(), nullable=False),
        sa.Column("first_seen_at", Instant(), nullable=False),
        sa.Column("last_seen_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_tenants")),
    )
    with op.batch_alter_table("tenants", schema=None) as batch_op:
        batch_op.create_index("ix_tenants_iss", ["iss"], unique=False)

    op.create_table(
        "tickets",
        sa.Column("id", sa.String(length=27), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tickets")),
    )
    with op.batch_alter_table("tickets", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tickets_expires_at"), ["expires_at"], unique=False)

    op.create_table(
        "agent_accounts",
        sa.Column("agent", sa.String(length=40), nullable=False),
        sa.Column("iss", sa.String(), nullable=False),
        sa.Column("sub", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["agent"], ["agents.name"], name=op.f("fk_agent_accounts_agent_agents"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("agent", "iss", name=op.f("pk_agent_accounts")),
    )


def downgrade() -> None:

    op.drop_table("agent_accounts")
    with op.batch_alter_table("tickets", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tickets_expires_at"))

    op.drop_table("tickets")
    with op.batch_alter_table("tenants", schema=None) as batch_op:
        batch_op.drop_index("ix_tenants_iss")

    op.drop_table("tenants")
    op.drop_table("statements")
    op.drop_table("sessions")
    op.drop_table("audit")
    op.drop_table("agents")
