"""A balance for each account, which rebuilds a table that others refer to."""
# ruff: noqa: INP001

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("account") as account:
        account.add_column(sa.Column("balance", sa.Integer, nullable=False, server_default="0"))
        account.create_unique_constraint("uq_account_name", ["name"])
        account.create_check_constraint("balance_positive", "balance >= 0")
