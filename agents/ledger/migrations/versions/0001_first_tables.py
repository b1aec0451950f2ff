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
        "alarms",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarms")),
    )
    op.create_table(
        "answers",
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("receipt", sa.String(length=27), nullable=False),
        sa.Column("verdict", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("event", "receipt", name=op.f("pk_answers")),
    )
    op.create_table(
        "facts",
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("agent_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("link", sa.String(length=64), nullable=False),
        sa.Column("received_at", Instant(), nullable=False),
        sa.Column("iss", sa.String(), nullable=False),
        sa.Column("sub", sa.String(), nullable=False),
        sa.Column("ended_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_facts")),
        sa.UniqueConstraint("digest", name=op.f("uq_facts_digest")),
        sa.UniqueConstraint("id", name=op.f("uq_facts_id")),
    )
    with op.batch_alter_table("facts", schema=None) as batch_op:
        batch_op.create_index("ix_facts_customer", ["iss", "sub", "ended_at"], unique=False)

    op.create_table(
        "invoices",
        sa.Column("number", sa.String(length=61), nullable=False),
        sa.Column("iss", sa.String(), nullable=False),
        sa.Column("sub", sa.String(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("issued_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_invoices")),
        sa.UniqueConstraint("digest", name=op.f("uq_invoices_digest")),
    )
    op.create_table(
        "rate_cards",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_rate_cards")),
    )
    op.create_table(
        "receipts",
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(length=27), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("customer_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("received_at", Instant(), nullable=False),
        sa.Column("iss", sa.String(), nullable=False),
        sa.Column("sub", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_receipts")),
        sa.UniqueConstraint("id", name=op.f("uq_receipts_id")),
    )
    op.create_table(
        "invoiced",
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("invoice", sa.String(length=61), nullable=False),
        sa.ForeignKeyConstraint(["invoice"], ["invoices.number"], name=op.f("fk_invoiced_invoice_invoices")),
        sa.PrimaryKeyConstraint("event", name=op.f("pk_invoiced")),
    )
    with op.batch_alter_table("invoiced", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_invoiced_invoice"), ["invoice"], unique=False)


def downgrade() -> None:

    with op.batch_alter_table("invoiced", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_invoiced_invoice"))

    op.drop_table("invoiced")
    op.drop_table("receipts")
    op.drop_table("rate_cards")
    op.drop_table("invoices")
    with op.batch_alter_table("facts", schema=None) as batch_op:
        batch_op.drop_index("ix_facts_customer")

    op.drop_table("facts")
    op.drop_table("answers")
    op.drop_table("alarms")
