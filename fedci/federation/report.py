"""What the demo has to show: runs, artifacts, refusals, invoices, and what was expected of them.

The same facts make the JSON of `--report` and the summary on the terminal. An expectation is a sentence and whether it
held; the demo succeeds only if every one did.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class JobReport:
    """One job of a run, with the provider and worker of its last attempt."""

    name: str
    state: str
    provider: str | None
    worker: str | None
    seconds: float | None
    log_bytes: int
    log_sha256: str | None
    why: str = ""
    started_at: str | None = None
    ended_at: str | None = None

    def overlaps(self, other: "JobReport") -> bool:
        """Whether both ran at one moment; instants are ISO 8601 in UTC."""
        if not (self.started_at and self.ended_at and other.started_at and other.ended_at):
            return False
        return self.started_at < other.ended_at and other.started_at < self.ended_at


@dataclass(frozen=True, slots=True)
class RunReport:
    controller: str
    run: str
    state: str
    jobs: tuple[JobReport, ...]


@dataclass(frozen=True, slots=True)
class ArtifactReport:
    """An artifact that was fetched back; `file` is where it lies now."""

    controller: str
    job: str
    path: str
    bytes: int
    sha256: str
    file: str


@dataclass(frozen=True, slots=True)
class RefusalReport:
    """An attempt to trespass: who tried what at whom, and the reason it was refused with (empty: it was not)."""

    who: str
    at: str
    attempt: str
    reason: str
    detail: str
    expected: str


@dataclass(frozen=True, slots=True)
class LineReport:
    meter: str
    quantity: str
    unit: str
    price: str
    """Of the rate card: so much for so many units."""
    amount: str
    events: int


@dataclass(frozen=True, slots=True)
class InvoiceReport:
    provider: str
    issuer: str
    customer: str
    currency: str
    lines: tuple[LineReport, ...]
    total: str
    file: str
    is_right: bool
    """Whether the customer computed the same from its own copies of the events."""


@dataclass(frozen=True, slots=True)
class Expectation:
    sentence: str
    held: bool


@dataclass
class Report:
    runs: Sequence[RunReport] = ()
    artifacts: Sequence[ArtifactReport] = ()
    refusals: Sequence[RefusalReport] = ()
    invoices: Sequence[InvoiceReport] = ()
    expectations: list[Expectation] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return bool(self.expectations) and all(expectation.held for expectation in self.expectations)

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
