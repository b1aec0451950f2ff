"""Every reason why a message, a request or a job is turned away.

A refusal is a value, not an exception: it is expected, counted by its reason, logged, and shown to the person who can
do something about it. `detail` is one sentence for that person and never holds a secret.
"""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why; grouped in the fixed order in which a verifier asks (DESIGN §5)."""

    # frame
    TOO_LARGE = "too-large"
    MALFORMED_FRAME = "malformed-frame"
    UNKNOWN_TYPE = "unknown-type"
    UNKNOWN_VERSION = "unknown-version"
    WRONG_KIND = "wrong-kind"
    # token
    TOKEN_MISSING = "token-missing"
    TOKEN_UNEXPECTED = "token-unexpected"
    TOKEN_MALFORMED = "token-malformed"
    ISSUER_UNTRUSTED = "issuer-untrusted"
    ISSUER_UNREACHABLE = "issuer-unreachable"
    KEY_UNKNOWN = "key-unknown"
    ALGORITHM_FORBIDDEN = "algorithm-forbidden"
    TOKEN_SIGNATURE = "token-signature"
    CLAIMS_MALFORMED = "claims-malformed"
    AUDIENCE = "audience"
    TOKEN_EXPIRED = "token-expired"
    TOKEN_NOT_YET_VALID = "token-not-yet-valid"
    TOKEN_TOO_LONG_LIVED = "token-too-long-lived"
    REVOKED = "revoked"
    REVOCATION_STALE = "revocation-stale"
    KEY_UNBOUND = "key-unbound"
    # envelope
    ENVELOPE_SIGNATURE = "envelope-signature"
    MALFORMED_PAYLOAD = "malformed-payload"
    IDENTITY_MISMATCH = "identity-mismatch"
    TOKEN_HASH_MISMATCH = "token-hash-mismatch"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    OUTLIVES_TOKEN = "outlives-token"
    REPLAYED = "replayed"
    EQUIVOCATION = "equivocation"
    # who and where
    WRONG_ORIGIN = "wrong-origin"
    UNKNOWN_AGENT = "unknown-agent"
    NOT_IN_CARD = "not-in-card"
    NOT_ADMITTED = "not-admitted"
    HELD_FOR_APPROVAL = "held-for-approval"
    SUSPENDED = "suspended"
    TOO_MANY_TENANTS = "too-many-tenants"
    CARD_SIGNATURE = "card-signature"
    CARD_ROLLED_BACK = "card-rolled-back"
    CARD_EXPIRED = "card-expired"
    ROOT_CHANGED = "root-changed"
    # work
    POOL_UNKNOWN = "pool-unknown"
    LABELS_NOT_OFFERED = "labels-not-offered"
    TOOLCHAIN_NOT_OFFERED = "toolchain-not-offered"
    STORE_NOT_REACHABLE = "store-not-reachable"
    NETWORK_NOT_ALLOWED = "network-not-allowed"
    RESOURCES_TOO_LARGE = "resources-too-large"
    RATE_CARD_UNKNOWN = "rate-card-unknown"
    QUEUE_FULL = "queue-full"
    UNROUTABLE = "unroutable"
    UNDELIVERED = "undelivered"
    DRAINING = "draining"
    # claim and grant
    UNKNOWN_ATTEMPT = "unknown-attempt"
    ATTEMPT_NOT_CURRENT = "attempt-not-current"
    ALREADY_GRANTED = "already-granted"
    CANCELLED = "cancelled"
    GRANT_TOO_LATE = "grant-too-late"
    UNKNOWN_CLAIM = "unknown-claim"
    BUDGET_EXHAUSTED = "budget-exhausted"
    # store
    TAB_UNKNOWN = "tab-unknown"
    TAB_ENDED = "tab-ended"
    REQUEST_SIGNATURE = "request-signature"
    REQUEST_EXPIRED = "request-expired"
    OUTSIDE_TICKET = "outside-ticket"
    QUOTA_EXCEEDED = "quota-exceeded"
    DIGEST_MISMATCH = "digest-mismatch"
    NOT_FOUND = "not-found"
    STORE_FULL = "store-full"
    # requests of people
    UNAUTHENTICATED = "unauthenticated"
    INVALID_REQUEST = "invalid-request"
    RATE_LIMITED = "rate-limited"
    CONFLICT = "conflict"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something was turned away: why, and one sentence that helps."""

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)
