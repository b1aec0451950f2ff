"""The controller's database (DESIGN §2, §5, §7, §9).

Rules that the database keeps, whatever the code does:
- an attempt is numbered once within its job, and at most one attempt of a job is current;
- at most one claim of an attempt is granted;
- a report is known by (claim, sequence), a refusal by (provider, agent, subject), a usage fact by (provider, id); the
  digest beside it tells a redelivery from an equivocation;
- a name stands once: project, provider, secret in its project, job in its run, artifact file in its attempt.

Evidence (cards, claims, ends, usage, receipts, rate cards) is kept as the bytes that came. Logs and snapshots are
files. All queries are in `broker.store` and its neighbours.
"""

from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from sqlalchemy import JSON, Dialect, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from broker.decisions.graph import RunState
from runtime.database import COLUMN_TYPES, SerialId, new_metadata
from runtime.outbox_table import OutboxColumns
from schemas.ends import EndReason
from schemas.life import AttemptState, JobState

Member = TypeVar("Member", bound=StrEnum)


class ClaimState(StrEnum):
    """How far we are with a claim: its job runs, its end was told, all of it is here, or it stays incomplete."""

    OPEN = "open"
    ENDED = "ended"
    SETTLED = "settled"
    INCOMPLETE = "incomplete"


class Answer(StrEnum):
    """What a claim was answered with."""

    GRANT = "grant"
    STAND_DOWN = "stand-down"


class Word(TypeDecorator[Member]):
    """A member of an enumeration, stored as its text: new members need no migration."""

    impl = String(40)
    cache_ok = True

    def __init__(self, kind: type[Member]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: Member | None, dialect: Dialect) -> str | None:  # noqa: ARG002  # as the base has it
        return None if value is None else self.kind(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> Member | None:  # noqa: ARG002  # likewise
        return None if value is None else self.kind(value)


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = COLUMN_TYPES | {
        str: Text,
        bytes: LargeBinary,
        JobState: Word(JobState),
        AttemptState: Word(AttemptState),
        RunState: Word(RunState),
        ClaimState: Word(ClaimState),
        Answer: Word(Answer),
        EndReason: Word(EndReason),
        list[str]: JSON,
        list[list[int]]: JSON,
        list[dict[str, str]]: JSON,
    }


class ProjectRow(Base):
    """A project. Empty `providers` means any provider that this controller knows."""

    __tablename__ = "projects"

    name: Mapped[str] = mapped_column(primary_key=True)
    providers: Mapped[list[str]]
    added_at: Mapped[datetime]


class SecretRow(Base):
    """A project's secret, encrypted by the controller's key file."""

    __tablename__ = "secrets"

    project: Mapped[str] = mapped_column(ForeignKey("projects.name"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    box: Mapped[bytes]
    set_at: Mapped[datetime]


class ProviderRow(Base):
    """A provider: its root key, pinned when it was added, and the newest card that this key signed."""

    __tablename__ = "providers"

    name: Mapped[str] = mapped_column(primary_key=True)
    url: Mapped[str] = mapped_column(unique=True)
    root_key: Mapped[bytes]
    card: Mapped[bytes]
    card_serial: Mapped[int] = mapped_column(SerialId)
    card_seen_at: Mapped[datetime]
    alarm: Mapped[str | None]
    added_at: Mapped[datetime]


class RateCardRow(Base):
    """A rate card as its provider's root key signed it; orders and usage cite it by digest."""

    __tablename__ = "rate_cards"

    digest: Mapped[str] = mapped_column(primary_key=True)
    provider: Mapped[str] = mapped_column(ForeignKey("providers.name"))
    raw: Mapped[bytes]
    received_at: Mapped[datetime]


class RunRow(Base):
    """One execution of a pipeline over one snapshot of sources."""

    __tablename__ = "runs"
    __table_args__ = (UniqueConstraint("project", "number"), Index(None, "state"), Index(None, "submitted_at"))

    id: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(ForeignKey("projects.name"))
    number: Mapped[int]
    pipeline_name: Mapped[str]
    pipeline: Mapped[bytes]
    store: Mapped[str | None]
    revision: Mapped[str]
    source_digest: Mapped[str]
    source_bytes: Mapped[int] = mapped_column(SerialId)
    state: Mapped[RunState]
    submitted_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]


class JobRow(Base):
    """A node of a run's graph. `spec` is its part of the pipeline; `waiting_for` says why it does not run."""

    __tablename__ = "jobs"
    __table_args__ = (UniqueConstraint("run_id", "name"), Index(None, "state"))

    id: Mapped[int] = mapped_column(SerialId, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    name: Mapped[str]
    position: Mapped[int]
    needs: Mapped[list[str]]
    spec: Mapped[str]
    state: Mapped[JobState]
    reason: Mapped[str | None]
    detail: Mapped[str | None]
    waiting_for: Mapped[list[dict[str, str]]]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class AttemptRow(Base):
    """One try of a job at one provider."""

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("job_id", "number"),
        Index(
            "uq_attempts_one_current",
            "job_id",
            unique=True,
            sqlite_where=text("is_current"),
            postgresql_where=text("is_current"),
        ),
        Index(None, "state"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    provider: Mapped[str] = mapped_column(ForeignKey("providers.name"))
    pool: Mapped[str]
    store: Mapped[str | None]
    rate_card: Mapped[str]
    state: Mapped[AttemptState]
    is_current: Mapped[bool]
    order_digest: Mapped[str]
    made_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    granted_at: Mapped[datetime | None]
    reserved: Mapped[str | None]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[EndReason | None]
    why: Mapped[str | None]


class ClaimRow(Base):
    """A worker's claim of an attempt, what it was answered, and what came of its log."""

    __tablename__ = "claims"
    __table_args__ = (
        Index(
            "uq_claims_one_grant",
            "attempt_id",
            unique=True,
            sqlite_where=text("answer = 'grant'"),
            postgresql_where=text("answer = 'grant'"),
        ),
        Index(None, "attempt_id"),
        Index(None, "state"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id"))
    provider: Mapped[str]
    worker: Mapped[str]
    key: Mapped[bytes]
    iss: Mapped[str]
    sub: Mapped[str]
    token_id: Mapped[str]
    digest: Mapped[str]
    raw: Mapped[bytes]
    answer: Mapped[Answer | None]
    answer_reason: Mapped[str | None]
    state: Mapped[ClaimState]
    claimed_at: Mapped[datetime]
    heard_at: Mapped[datetime]
    step: Mapped[int | None]
    log_ranges: Mapped[list[list[int]]]
    log_bytes: Mapped[int | None] = mapped_column(SerialId)
    log_sha256: Mapped[str | None]
    log_gap: Mapped[str | None]
    resends: Mapped[int]
    resent_at: Mapped[datetime | None]
    ended_raw: Mapped[bytes | None]
    is_cancel_sent: Mapped[bool]


class ReportRow(Base):
    """A report that was taken in: its place in its claim, its digest, and whether it was fenced."""

    __tablename__ = "reports"

    claim_id: Mapped[str] = mapped_column(ForeignKey("claims.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(SerialId, primary_key=True, autoincrement=False)
    type: Mapped[str]
    digest: Mapped[str]
    received_at: Mapped[datetime]
    fenced: Mapped[str | None]


class RefusalRow(Base):
    """A refusal: a worker's, a desk's, or (agent `bus`) what the bus said when we published."""

    __tablename__ = "refusals"
    __table_args__ = (UniqueConstraint("provider", "agent", "subject"), Index(None, "job_id"))

    id: Mapped[int] = mapped_column(SerialId, primary_key=True)
    provider: Mapped[str]
    agent: Mapped[str]
    subject: Mapped[str]
    attempt_id: Mapped[str | None]
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"))
    reason: Mapped[str]
    scope: Mapped[str]
    detail: Mapped[str]
    digest: Mapped[str]
    received_at: Mapped[datetime]


class OrphanRow(Base):
    """A claim of an attempt that we do not know (after a restore): shown, and cancelled once."""

    __tablename__ = "orphans"

    claim_id: Mapped[str] = mapped_column(primary_key=True)
    attempt_id: Mapped[str]
    provider: Mapped[str]
    worker: Mapped[str]
    raw: Mapped[bytes]
    seen_at: Mapped[datetime]


class AlarmRow(Base):
    """Something that must not happen: another root key, equivocation. Shown until a person has seen it."""

    __tablename__ = "alarms"
    __table_args__ = (UniqueConstraint("provider", "kind", "about"),)

    id: Mapped[int] = mapped_column(SerialId, primary_key=True)
    provider: Mapped[str]
    kind: Mapped[str]
    about: Mapped[str]
    detail: Mapped[str]
    raised_at: Mapped[datetime]


class UsageRow(Base):
    """A usage fact as its provider's agent signed it; rows are chained by hash in the order in which they came."""

    __tablename__ = "usage_events"
    __table_args__ = (UniqueConstraint("provider", "id"), Index(None, "attempt_id"), Index(None, "receipt_id"))

    position: Mapped[int] = mapped_column(SerialId, primary_key=True)
    provider: Mapped[str]
    id: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    raw: Mapped[bytes]
    attempt_id: Mapped[str | None]
    meter: Mapped[str]
    received_at: Mapped[datetime]
    verdict: Mapped[str | None]
    verdict_reason: Mapped[str | None]
    receipt_id: Mapped[str | None] = mapped_column(ForeignKey("receipts.id"))
    chain: Mapped[str]


class ReceiptRow(Base):
    """A receipt that we signed."""

    __tablename__ = "receipts"

    id: Mapped[str] = mapped_column(primary_key=True)
    provider: Mapped[str]
    raw: Mapped[bytes]
    made_at: Mapped[datetime]


class ArtifactRow(Base):
    """A file of an accepted result, in the store of `provider`."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("attempt_id", "artifact", "path"), Index(None, "job_id"))

    id: Mapped[int] = mapped_column(SerialId, primary_key=True)
    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id"))
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    provider: Mapped[str]
    artifact: Mapped[str]
    path: Mapped[str]
    digest: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(SerialId)


class BlobRow(Base):
    """A snapshot that we uploaded to a store."""

    __tablename__ = "uploaded_blobs"

    provider: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)
    uploaded_at: Mapped[datetime]


class OutboxRow(OutboxColumns, Base):
    """What is to be published, committed together with the effect that it tells of."""

    __tablename__ = "outbox"
