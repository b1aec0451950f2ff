"""When an attempt is over because of what was not heard of it (DESIGN §7.3, §7.5).

Rules:
1. Silence counts only while our own session is up, and only up to the instant as of which the reply queue is known to
   have been read to its end: what the worker said in time may still lie in the queue, and then it is we who are deaf.
2. After every interruption of ours the count begins anew. So the controller always waits at least as long as the worker
   that holds its own lease shorter (`limits.LEASE_HELD_FRACTION`).
3. An order that nobody claimed is given up when its envelope has expired, a claim that got no answer when its worker
   must have let go of it; heard or not, for without a grant nothing runs: giving up too early costs a claim.
4. A granted job is over when its own time is, with all that it may take to fetch and to store; heard or not, for its
   worker stops it by then and its store's tab has ended. So a provider that never comes back holds no job for ever.

All instants here are seconds of CLOCK_BOOTTIME: wall clocks jump.
"""

from dataclasses import dataclass

from schemas import limits


@dataclass(frozen=True, slots=True)
class Hearing:
    """How well we hear a provider: without a break since when, and up to when all that it said was read.

    Both None while the session is down, and until the reply queue was read to its end for the first time since.
    """

    since: float | None = None
    read_to: float | None = None

    def has_heard_all_until(self, at: float) -> bool:
        return self.read_to is not None and self.read_to >= at


@dataclass(frozen=True, slots=True)
class Line:
    """A session as it is now: since when it is up (None: down), and up to when its replies were read to the end."""

    up_since: float | None
    caught_up_at: float | None


def hear(line: Line, before: Hearing) -> Hearing:
    """How well we hear, given how well we heard `before`: whoever was deaf in between begins to listen anew."""
    if line.up_since is None or line.caught_up_at is None or line.caught_up_at < line.up_since:
        return Hearing()
    is_unbroken = before.since is not None and before.since >= line.up_since
    return Hearing(before.since if is_unbroken else line.caught_up_at, line.caught_up_at)


@dataclass(frozen=True, slots=True)
class Listening:
    """One running claim: its lease, and when we last heard of it."""

    lease_seconds: float
    heard_at: float


def lease_ends_at(listening: Listening, hearing: Hearing) -> float | None:
    """The instant up to which silence must be heard to be proof; None while we are deaf."""
    if hearing.since is None:
        return None
    return max(hearing.since, listening.heard_at) + listening.lease_seconds


def unclaimed_ends_at(order_expires_at: float) -> float:
    """When an unclaimed order is given up: expired for everybody, and a claim in time would wait no longer."""
    return order_expires_at + limits.CLOCK_SKEW_SECONDS


def unanswered_ends_at(claimed_at: float) -> float:
    """When a claim that was never answered is given up: its worker has released it long ago."""
    return claimed_at + 2 * limits.GRANT_SECONDS


def job_ends_at(granted_at: float, timeout_seconds: float) -> float:
    """When a granted job is over, whatever is heard of it: nothing that it does counts any more."""
    return granted_at + timeout_seconds + limits.STORE_TAB_GRACE_SECONDS + limits.CLOCK_SKEW_SECONDS


def is_over(ends_at: float | None, hearing: Hearing) -> bool:
    """Whether the silence lasted to that instant, as far as we have heard."""
    return ends_at is not None and hearing.has_heard_all_until(ends_at)
