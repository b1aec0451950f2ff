"""Until when a claim may still be granted, and until when a job may still run. Pure; all instants are CLOCK_BOOTTIME.

Rules (DESIGN §7.2, §7.3):

1. A grant counts only within `limits.GRANT_SECONDS` of the *sending* of its claim.
2. The worker holds its lease for `limits.LEASE_HELD_FRACTION` of the granted time, counted from the *sending* of the
   last message that the bus confirmed. The controller counts the whole lease from its *arrival*, which is later: when
   its lease has run out, ours has, and the warden has killed the tree.
3. A lease only moves forward. A message that is confirmed late extends by when it was sent, not by when it was heard.
"""

from dataclasses import dataclass, replace

from schemas import limits

HEARTBEATS_PER_LEASE = 6
"""So that some may fail while the bus reconnects: three quarters of the lease hold four of them."""


@dataclass(frozen=True, slots=True)
class GrantWindow:
    """How long a claim waits for its grant."""

    claim_sent_at: float
    seconds: float = limits.GRANT_SECONDS

    @property
    def ends_at(self) -> float:
        return self.claim_sent_at + self.seconds

    def is_open(self, now: float) -> bool:
        return self.claim_sent_at <= now < self.ends_at


@dataclass(frozen=True, slots=True)
class Lease:
    """A job's right to run; `until` is what the warden is told."""

    seconds: float
    confirmed_at: float

    @property
    def until(self) -> float:
        return self.confirmed_at + self.seconds * limits.LEASE_HELD_FRACTION

    @property
    def heartbeat_seconds(self) -> float:
        return self.seconds / HEARTBEATS_PER_LEASE

    def confirmed(self, sent_at: float) -> "Lease":
        """The lease after the bus confirmed what was sent at `sent_at`."""
        return replace(self, confirmed_at=max(self.confirmed_at, sent_at))
