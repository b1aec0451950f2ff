"""Every way in which a job can end, whose fault it is, and so whether it is retried and paid for.

One table for all houses: a worker reports a reason, the controller derives the job's state and the retry from it, and
ledger and customer derive from the same row who pays (DESIGN §7, §9).
"""

from dataclasses import dataclass
from enum import StrEnum


class EndReason(StrEnum):
    SUCCEEDED = "succeeded"
    # the job's own doing
    EXIT_CODE = "exit-code"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out-of-memory"
    LOG_LIMIT = "log-limit"
    WORKSPACE_FULL = "workspace-full"
    ARTIFACT_MISSING = "artifact-missing"
    ARTIFACT_REFUSED = "artifact-refused"
    # what the customer brought along
    SOURCE_UNAVAILABLE = "source-unavailable"
    SOURCE_REFUSED = "source-refused"
    INPUT_UNAVAILABLE = "input-unavailable"
    SECRET_MISSING = "secret-missing"
    TICKET_REFUSED = "ticket-refused"
    STORE_UNAVAILABLE = "store-unavailable"
    # the customer's or the owner's wish
    CANCELLED = "cancelled"
    # the provider's side
    SANDBOX_FAILED = "sandbox-failed"
    WORKER_SHUTDOWN = "worker-shutdown"
    WORKER_RESTARTED = "worker-restarted"
    LEASE_LOST = "lease-lost"
    WORKER_LOST = "worker-lost"


class Outcome(StrEnum):
    """The final states of an attempt's job; `skipped` jobs never have an attempt."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ERRORED = "errored"
    CANCELLED = "cancelled"


class Side(StrEnum):
    """Whose side an end is on; what is on the provider's side is never billed."""

    CUSTOMER = "customer"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class End:
    outcome: Outcome
    side: Side

    @property
    def is_billable(self) -> bool:
        return self.side is Side.CUSTOMER

    @property
    def is_retried(self) -> bool:
        """Only `errored` retries by itself: a failure would only fail again (DESIGN §7)."""
        return self.outcome is Outcome.ERRORED


_OK = End(Outcome.SUCCEEDED, Side.CUSTOMER)
_FAILED = End(Outcome.FAILED, Side.CUSTOMER)
_THEIR_ERROR = End(Outcome.ERRORED, Side.CUSTOMER)
_OUR_ERROR = End(Outcome.ERRORED, Side.PROVIDER)

ENDS: dict[EndReason, End] = {
    EndReason.SUCCEEDED: _OK,
    EndReason.EXIT_CODE: _FAILED,
    EndReason.SIGNAL: _FAILED,
    EndReason.TIMEOUT: _FAILED,
    EndReason.OUT_OF_MEMORY: _FAILED,
    EndReason.LOG_LIMIT: _FAILED,
    EndReason.WORKSPACE_FULL: _FAILED,
    EndReason.ARTIFACT_MISSING: _FAILED,
    EndReason.ARTIFACT_REFUSED: _FAILED,
    EndReason.SOURCE_UNAVAILABLE: _THEIR_ERROR,
    EndReason.SOURCE_REFUSED: _THEIR_ERROR,
    EndReason.INPUT_UNAVAILABLE: _THEIR_ERROR,
    EndReason.SECRET_MISSING: _THEIR_ERROR,
    EndReason.TICKET_REFUSED: _THEIR_ERROR,
    EndReason.STORE_UNAVAILABLE: _THEIR_ERROR,
    EndReason.CANCELLED: End(Outcome.CANCELLED, Side.CUSTOMER),
    EndReason.SANDBOX_FAILED: _OUR_ERROR,
    EndReason.WORKER_SHUTDOWN: _OUR_ERROR,
    EndReason.WORKER_RESTARTED: _OUR_ERROR,
    EndReason.LEASE_LOST: _OUR_ERROR,
    EndReason.WORKER_LOST: _OUR_ERROR,
}
