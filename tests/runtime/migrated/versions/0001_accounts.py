"""Accounts and visits."""
# ruff: noqa: INP001

import sqlalchemy as sa
from alembic import op

from runtime.database import Instant, SerialId

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", SerialId, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("made_at", Instant, nullable=False),
    )
    op.create_table(
        "visit",
        sa.Column("id", SerialId, primary_key=True),
        sa.Column("account_id", SerialId, sa.ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    )
