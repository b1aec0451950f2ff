"""What the API answers with: the shapes that pages, command line and other programs read.

Instants are ISO 8601 in UTC, money and quantities are strings of digits, states are the words of `schemas.life`.
"""

from datetime import datetime
from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from broker.decisions.graph import RunState
from schemas.life import AttemptState, JobState


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


class ReasonView(View):
    """One reason why a job does not run; `provider` is empty where it is not about one."""

    provider: str
    obstacle: str
    detail: str


class ProjectView(View):
    name: str
    providers: tuple[str, ...]
    added_at: datetime


class SecretView(View):
    name: str
    set_at: datetime


class PoolView(View):
    name: str
    workers: tuple[str, ...]
    slots: int
    labels: tuple[str, ...]
    toolchains: tuple[str, ...]
    is_network_allowed: bool


class ProviderView(View):
    """A provider: its pinned root, what its card says, and how our session there is (`trouble` empty: it is up)."""

    name: str
    url: str
    root_fingerprint: str
    card_serial: int
    card_expires_at: datetime
    issuers: tuple[str, ...]
    pools: tuple[PoolView, ...]
    store_url: str | None
    rate_card: str
    is_session_up: bool
    trouble: str
    alarm: str | None


class IntroductionView(View):
    """Who a desk says it is, before anything is pinned."""

    name: str
    url: str
    root_fingerprint: str


class CostView(View):
    """What usage comes to, by the rate cards of its providers; events without one at hand are counted apart."""

    currency: str
    total: Decimal
    unpriced_events: int


class LogView(View):
    """What is here of a log. It is whole when its worker's report of length and SHA-256 was met."""

    bytes: int
    reported_bytes: int | None
    sha256: str | None
    is_whole: bool
    gap: str | None


class AttemptView(View):
    id: str
    number: int
    provider: str
    pool: str
    worker: str | None
    state: AttemptState
    reason: str | None
    detail: str | None
    made_at: datetime
    granted_at: datetime | None
    ended_at: datetime | None
    seconds: float | None
    reserved: str | None
    """What it may cost at most by time: amount and currency, as of its grant."""
    log: LogView | None


class JobView(View):
    """A job; provider, worker and log are those of its newest attempt."""

    name: str
    needs: tuple[str, ...]
    state: JobState
    reason: str | None
    detail: str | None
    waiting_for: tuple[ReasonView, ...]
    provider: str | None
    worker: str | None
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float | None
    log: LogView | None
    attempts: tuple[AttemptView, ...]


class RunSummary(View):
    id: str
    project: str
    number: int
    pipeline: str
    revision: str
    state: RunState
    is_cancelled: bool
    submitted_at: datetime
    ended_at: datetime | None
    jobs: dict[JobState, int]


class RunView(RunSummary):
    store: str | None
    source_sha256: str
    source_bytes: int
    graph: tuple[JobView, ...]
    costs: tuple[CostView, ...]


class ArtifactView(View):
    id: int
    job: str
    artifact: str
    path: str
    provider: str
    sha256: str
    size_bytes: int


class UsageView(View):
    """A usage event as its provider stated it, and what we answered."""

    provider: str
    agent: str
    meter: str
    subject: str
    attempt: str | None
    quantity: Decimal
    is_estimate: bool
    reason: str | None
    started_at: datetime
    ended_at: datetime
    sha256: str
    verdict: str | None
    verdict_reason: str | None


class UsageOfProvider(View):
    """All that one provider stated, and what it comes to by its own rate cards: what its invoice must say."""

    provider: str
    cost: tuple[CostView, ...]
    events: tuple[UsageView, ...]


class AlarmView(View):
    provider: str
    kind: str
    about: str
    detail: str
    raised_at: datetime


class RefusalView(View):
    """A refusal that our work met."""

    provider: str
    agent: str
    reason: str
    scope: str
    detail: str
    attempt: str | None
    received_at: datetime


class OrphanView(View):
    claim: str
    attempt: str
    provider: str
    worker: str
    seen_at: datetime


class StatusView(View):
    """The controller as a whole."""

    tenant: str
    issuer: str
    account: str
    issuer_trouble: str | None
    jobs: dict[JobState, int]
    outbox_waiting: int
    alarms: tuple[AlarmView, ...]
    orphans: tuple[OrphanView, ...]
    refusals: tuple[RefusalView, ...]


class SnapshotView(View):
    sha256: str
    size_bytes: int


class SubmittedView(View):
    run: str
    number: int
    project: str


class CancelledView(View):
    run: str
    state: RunState
