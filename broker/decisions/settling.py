"""When all of a claim is here, what to ask for again, and when to stop asking (DESIGN §7.4).

A claim is settled when its end was reported and its log is complete: as long as reported, without a gap, and with the
reported SHA-256. Until then the missing range is asked for again, a bounded number of times; then the job is shown
with its gap, never silently short. A wrong digest of a complete log asks for all of it once more, for one of the
chunks must have changed on the way.
"""

from dataclasses import dataclass

RESENDS_MAX = 8
RESEND_SECONDS = 15

Ranges = tuple[tuple[int, int], ...]
"""Half-open byte ranges `[from, to)`, sorted, disjoint and not touching."""


@dataclass(frozen=True, slots=True)
class LogReceived:
    """What arrived of a log; `sha256` is known once it has no gap up to the reported end."""

    ranges: Ranges
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Complete:
    """Everything is here: the worker may forget it."""


@dataclass(frozen=True, slots=True)
class AskAgain:
    """Ask for the bytes `[log_from, log_to)`."""

    log_from: int
    log_to: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It will not come any more; `detail` says what is missing."""

    detail: str


def resend_seconds(resends: int) -> float:
    """How long to wait for what was asked for so many times: twice as long each time, an hour in all.

    The worker may be restarting, or its machine; whatever it still has, it sends when it is back.
    """
    return RESEND_SECONDS * 2.0 ** (resends - 1)


def add_range(ranges: Ranges, start: int, end: int) -> Ranges:
    """The ranges with `[start, end)` joined in."""
    kept = [part for part in ranges if part[1] < start or part[0] > end]
    touched = [part for part in ranges if not (part[1] < start or part[0] > end)]
    joined = (min([start, *(part[0] for part in touched)]), max([end, *(part[1] for part in touched)]))
    return tuple(sorted([*kept, joined]))


def covers(ranges: Ranges, start: int, end: int) -> bool:
    return any(part[0] <= start and end <= part[1] for part in ranges)


def contiguous(ranges: Ranges) -> int:
    """How many bytes are there from the beginning on without a gap."""
    return ranges[0][1] if ranges and ranges[0][0] == 0 else 0


def first_gap(ranges: Ranges, length: int) -> tuple[int, int] | None:
    """The first range missing of a log of this length."""
    start = contiguous(ranges)
    if start >= length:
        return None
    following = next((part[0] for part in ranges if part[0] > start), length)
    return (start, min(following, length))


def decide_settling(
    received: LogReceived, *, log_bytes: int, log_sha256: str, resends: int
) -> Complete | AskAgain | GiveUp:
    """What to tell the worker of a claim whose end has been reported."""
    gap = first_gap(received.ranges, log_bytes)
    if gap is None and received.sha256 == log_sha256:
        return Complete()
    if resends >= RESENDS_MAX:
        missing = "its SHA-256 differs" if gap is None else f"bytes {gap[0]} to {gap[1]} never came"
        return GiveUp(f"the log is not complete: {missing}")
    return AskAgain(*gap) if gap is not None else AskAgain(0, log_bytes)
