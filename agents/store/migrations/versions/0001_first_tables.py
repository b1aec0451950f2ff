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
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("correlation_id", sa.Text(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=True),
        sa.Column("sent_at", Instant(), nullable=True),
        sa.Column("gave_up_at", Instant(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index(
            "ix_outbox_pending",
            ["id"],
            unique=False,
            sqlite_where=sa.text("sent_at IS NULL AND gave_up_at IS NULL"),
            postgresql_where=sa.text("sent_at IS NULL AND gave_up_at IS NULL"),
        )

    op.create_table(
        "tenants",
        sa.Column("tenant", sa.String(length=27), nullable=False),
        sa.Column("iss", sa.String(), nullable=False),
        sa.Column("sub", sa.String(), nullable=False),
        sa.Column("first_seen_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_tenants")),
    )
    op.create_table(
        "blobs",
        sa.Column("tenant", sa.String(length=27), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("project", sa.String(length=40), nullable=True),
        sa.Column("stored_at", Instant(), nullable=False),
        sa.Column("metered_until", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.Column("damaged_at", Instant(), nullable=True),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_blobs_size")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.tenant"], name=op.f("fk_blobs_tenant_tenants")),
        sa.PrimaryKeyConstraint("tenant", "digest", name=op.f("pk_blobs")),
    )
    with op.batch_alter_table("blobs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_blobs_expires_at"), ["expires_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_blobs_metered_until"), ["metered_until"], unique=False)

    op.create_table(
        "tabs",
        sa.Column("tab", sa.String(length=27), nullable=False),
        sa.Column("ticket_id", sa.String(length=27), nullable=False),
        sa.Column("ticket_digest", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=27), nullable=False),
        sa.Column("holder_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("attempt", sa.String(length=27), nullable=True),
        sa.Column("project", sa.String(length=40), nullable=True),
        sa.Column("reads_all", sa.Boolean(), nullable=False),
        sa.Column("write_prefix", sa.String(length=300), nullable=True),
        sa.Column("write_bytes", sa.BigInteger(), nullable=False),
        sa.Column("bytes_in", sa.BigInteger(), nullable=False),
        sa.Column("bytes_out", sa.BigInteger(), nullable=False),
        sa.Column("token_id", sa.String(), nullable=False),
        sa.Column("token_issued_at", Instant(), nullable=False),
        sa.Column("opened_at", Instant(), nullable=False),
        sa.Column("ends_at", Instant(), nullable=False),
        sa.Column("closed_at", Instant(), nullable=True),
        sa.Column("settled_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.tenant"], name=op.f("fk_tabs_tenant_tenants")),
        sa.PrimaryKeyConstraint("tab", name=op.f("pk_tabs")),
        sa.UniqueConstraint("ticket_id", name=op.f("uq_tabs_ticket_id")),
    )
    with op.batch_alter_table("tabs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tabs_ends_at"), ["ends_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_tabs_settled_at"), ["settled_at"], unique=False)

    op.create_table(
        "names",
        sa.Column("tenant", sa.String(length=27), nullable=False),
        sa.Column("name", sa.String(length=700), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("named_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "digest"],
            ["blobs.tenant", "blobs.digest"],
            name=op.f("fk_names_tenant_digest_blobs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_names")),
    )
    with op.batch_alter_table("names", schema=None) as batch_op:
        batch_op.create_index("ix_names_blob", ["tenant", "digest"], unique=False)

    op.create_table(
        "readable",
        sa.Column("tab", sa.String(length=27), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["tab"], ["tabs.tab"], name=op.f("fk_readable_tab_tabs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tab", "digest", name=op.f("pk_readable")),
    )
    op.create_table(
        "uploads",
        sa.Column("tab", sa.String(length=27), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=27), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("begun_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(["tab"], ["tabs.tab"], name=op.f("fk_uploads_tab_tabs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tab", "digest", name=op.f("pk_uploads")),
    )
    with op.batch_alter_table("uploads", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_uploads_tenant"), ["tenant"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("uploads", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_uploads_tenant"))

    op.drop_table("uploads")
    op.drop_table("readable")
    with op.batch_alter_table("names", schema=None) as batch_op:
        batch_op.drop_index("ix_names_blob")

    op.drop_table("names")
    with op.batch_alter_table("tabs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tabs_settled_at"))
        batch_op.drop_index(batch_op.f("ix_tabs_ends_at"))

    op.drop_table("tabs")
    with op.batch_alter_table("blobs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_blobs_metered_until"))
        batch_op.drop_index(batch_op.f("ix_blobs_expires_at"))

    op.drop_table("blobs")
    op.drop_table("tenants")
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_outbox_pending",
            sqlite_where=sa.text("sent_at IS NULL AND gave_up_at IS NULL"),
            postgresql_where=sa.text("sent_at IS NULL AND gave_up_at IS NULL"),
        )

    op.drop_table("outbox")
