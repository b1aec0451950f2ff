"""The tables of the first version."""
# ruff: noqa: INP001

import sqlalchemy as sa
from alembic import op

from runtime.database import Instant, SerialId

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "alarms",
        sa.Column("id", SerialId, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("about", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("raised_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarms")),
        sa.UniqueConstraint("provider", "kind", "about", name=op.f("uq_alarms_provider_kind_about")),
    )
    op.create_table(
        "orphans",
        sa.Column("claim_id", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("seen_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("claim_id", name=op.f("pk_orphans")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", SerialId, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("correlation_id", sa.Text(), nullable=False),
        sa.Column("expires_at", Instant, nullable=True),
        sa.Column("sent_at", Instant, nullable=True),
        sa.Column("gave_up_at", Instant, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_outbox_pending",
        "outbox",
        ["id"],
        unique=False,
        sqlite_where=sa.text("sent_at IS NULL AND gave_up_at IS NULL"),
        postgresql_where=sa.text("sent_at IS NULL AND gave_up_at IS NULL"),
    )

    op.create_table(
        "projects",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("providers", sa.JSON(), nullable=False),
        sa.Column("added_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_projects")),
    )
    op.create_table(
        "providers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("root_key", sa.LargeBinary(), nullable=False),
        sa.Column("card", sa.LargeBinary(), nullable=False),
        sa.Column("card_serial", SerialId, nullable=False),
        sa.Column("card_seen_at", Instant, nullable=False),
        sa.Column("alarm", sa.Text(), nullable=True),
        sa.Column("added_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_providers")),
        sa.UniqueConstraint("url", name=op.f("uq_providers_url")),
    )
    op.create_table(
        "receipts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receipts")),
    )
    op.create_table(
        "uploaded_blobs",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("uploaded_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("provider", "digest", name=op.f("pk_uploaded_blobs")),
    )
    op.create_table(
        "rate_cards",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", Instant, nullable=False),
        sa.ForeignKeyConstraint(["provider"], ["providers.name"], name=op.f("fk_rate_cards_provider_providers")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_rate_cards")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("pipeline_name", sa.Text(), nullable=False),
        sa.Column("pipeline", sa.LargeBinary(), nullable=False),
        sa.Column("store", sa.Text(), nullable=True),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("source_digest", sa.Text(), nullable=False),
        sa.Column("source_bytes", SerialId, nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("submitted_at", Instant, nullable=False),
        sa.Column("ended_at", Instant, nullable=True),
        sa.Column("cancelled_at", Instant, nullable=True),
        sa.ForeignKeyConstraint(["project"], ["projects.name"], name=op.f("fk_runs_project_projects")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("project", "number", name=op.f("uq_runs_project_number")),
    )
    op.create_index(op.f("ix_runs_state"), "runs", ["state"], unique=False)
    op.create_index(op.f("ix_runs_submitted_at"), "runs", ["submitted_at"], unique=False)

    op.create_table(
        "secrets",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("box", sa.LargeBinary(), nullable=False),
        sa.Column("set_at", Instant, nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.name"], name=op.f("fk_secrets_project_projects")),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_secrets")),
    )
    op.create_table(
        "usage_events",
        sa.Column("position", SerialId, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=True),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("received_at", Instant, nullable=False),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("verdict_reason", sa.Text(), nullable=True),
        sa.Column("receipt_id", sa.Text(), nullable=True),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["receipt_id"], ["receipts.id"], name=op.f("fk_usage_events_receipt_id_receipts")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_usage_events")),
        sa.UniqueConstraint("digest", name=op.f("uq_usage_events_digest")),
        sa.UniqueConstraint("provider", "id", name=op.f("uq_usage_events_provider_id")),
    )
    op.create_index(op.f("ix_usage_events_attempt_id"), "usage_events", ["attempt_id"], unique=False)
    op.create_index(op.f("ix_usage_events_receipt_id"), "usage_events", ["receipt_id"], unique=False)

    op.create_table(
        "jobs",
        sa.Column("id", SerialId, nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("needs", sa.JSON(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("waiting_for", sa.JSON(), nullable=False),
        sa.Column("started_at", Instant, nullable=True),
        sa.Column("ended_at", Instant, nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_jobs_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("run_id", "name", name=op.f("uq_jobs_run_id_name")),
    )
    op.create_index(op.f("ix_jobs_state"), "jobs", ["state"], unique=False)

    op.create_table(
        "attempts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", SerialId, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("store", sa.Text(), nullable=True),
        sa.Column("rate_card", sa.Text(), nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("order_digest", sa.Text(), nullable=False),
        sa.Column("made_at", Instant, nullable=False),
        sa.Column("expires_at", Instant, nullable=False),
        sa.Column("sent_at", Instant, nullable=True),
        sa.Column("granted_at", Instant, nullable=True),
        sa.Column("reserved", sa.Text(), nullable=True),
        sa.Column("ended_at", Instant, nullable=True),
        sa.Column("end_reason", sa.String(40), nullable=True),
        sa.Column("why", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id_jobs")),
        sa.ForeignKeyConstraint(["provider"], ["providers.name"], name=op.f("fk_attempts_provider_providers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("job_id", "number", name=op.f("uq_attempts_job_id_number")),
    )
    op.create_index(op.f("ix_attempts_state"), "attempts", ["state"], unique=False)
    op.create_index(
        "uq_attempts_one_current",
        "attempts",
        ["job_id"],
        unique=True,
        sqlite_where=sa.text("is_current"),
        postgresql_where=sa.text("is_current"),
    )

    op.create_table(
        "refusals",
        sa.Column("id", SerialId, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=True),
        sa.Column("job_id", SerialId, nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("received_at", Instant, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_refusals_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refusals")),
        sa.UniqueConstraint("provider", "agent", "subject", name=op.f("uq_refusals_provider_agent_subject")),
    )
    op.create_index(op.f("ix_refusals_job_id"), "refusals", ["job_id"], unique=False)

    op.create_table(
        "artifacts",
        sa.Column("id", SerialId, nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("job_id", SerialId, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("artifact", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size_bytes", SerialId, nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_artifacts_attempt_id_attempts")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_artifacts_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        sa.UniqueConstraint("attempt_id", "artifact", "path", name=op.f("uq_artifacts_attempt_id_artifact_path")),
    )
    op.create_index(op.f("ix_artifacts_job_id"), "artifacts", ["job_id"], unique=False)

    op.create_table(
        "claims",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("iss", sa.Text(), nullable=False),
        sa.Column("sub", sa.Text(), nullable=False),
        sa.Column("token_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.String(40), nullable=True),
        sa.Column("answer_reason", sa.Text(), nullable=True),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("claimed_at", Instant, nullable=False),
        sa.Column("heard_at", Instant, nullable=False),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("log_ranges", sa.JSON(), nullable=False),
        sa.Column("log_bytes", SerialId, nullable=True),
        sa.Column("log_sha256", sa.Text(), nullable=True),
        sa.Column("log_gap", sa.Text(), nullable=True),
        sa.Column("resends", sa.Integer(), nullable=False),
        sa.Column("resent_at", Instant, nullable=True),
        sa.Column("ended_raw", sa.LargeBinary(), nullable=True),
        sa.Column("is_cancel_sent", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_claims_attempt_id_attempts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_claims")),
    )
    op.create_index(op.f("ix_claims_attempt_id"), "claims", ["attempt_id"], unique=False)
    op.create_index(op.f("ix_claims_state"), "claims", ["state"], unique=False)
    op.create_index(
        "uq_claims_one_grant",
        "claims",
        ["attempt_id"],
        unique=True,
        sqlite_where=sa.text("answer = 'grant'"),
        postgresql_where=sa.text("answer = 'grant'"),
    )

    op.create_table(
        "reports",
        sa.Column("claim_id", sa.Text(), nullable=False),
        sa.Column("sequence", SerialId, autoincrement=False, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("received_at", Instant, nullable=False),
        sa.Column("fenced", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["claim_id"], ["claims.id"], name=op.f("fk_reports_claim_id_claims")),
        sa.PrimaryKeyConstraint("claim_id", "sequence", name=op.f("pk_reports")),
    )
