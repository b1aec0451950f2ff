"""When silence shows that a run is over (DESIGN §7.3, §7.5).

Rules:
1. Silence counts only while our own session is up and the reply queue was read to its end since: what the worker said
   in time may still lie in the queue, and then it is we who are deaf.
2. After every interruption of ours the count begins anew. So the controller always waits at least as long as the worker
   that holds its own lease shorter (`limits.LEASE_HELD_FRACTION`).
3. An order that nobody claimed is given up when its envelope has expired, a claim that got no answer when its worker
   must have let go of it; both by the same count.

All instants here are seconds of CLOCK_BOOTTIME: wall clocks jump.
"""

from dataclasses import dataclass

from schemas import limits


@dataclass(frozen=True, slots=True)
class Hearing:
    """Since when we hear a provider without a break: session up, replies read to the end; None while we do not."""

    since: float | None


@dataclass(frozen=True, slots=True)
class Listening:
    """One running claim: its lease, and when we last heard of it (None: not since we started)."""

    lease_seconds: float
    heard_at: float | None


def expires_at(listening: Listening, hearing: Hearing) -> float | None:
    """The instant at which silence becomes proof, if nothing is heard until then; None while we are deaf."""
    if hearing.since is None:
        return None
    return max(hearing.since, listening.heard_at or hearing.since) + listening.lease_seconds


def is_expired(listening: Listening, hearing: Hearing, now: float) -> bool:
    at = expires_at(listening, hearing)
    return at is not None and now >= at


def unclaimed_expires_at(order_expires_at: float, hearing: Hearing) -> float | None:
    """When an unclaimed order may be given up: expired for everybody, and a claim in time would have been read."""
    if hearing.since is None:
        return None
    return max(order_expires_at + limits.CLOCK_SKEW_SECONDS, hearing.since + limits.CLOCK_SKEW_SECONDS)


def unanswered_expires_at(claimed_at: float, hearing: Hearing) -> float | None:
    """When a claim that was never answered may be given up: its worker has released it long ago."""
    if hearing.since is None:
        return None
    return max(claimed_at, hearing.since) + 2 * limits.GRANT_SECONDS
