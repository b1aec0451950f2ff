"""The clock: against the kernel's own doubt, and against the Date header of each issuer (RFC 9110 §6.6.1).

Tokens, tickets and orders are refused beyond `limits.CLOCK_SKEW_SECONDS`; well before that somebody should know.
"""

import ctypes
import os
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from fedci.doctor.findings import Finding, ok, warn, wrong
from schemas import limits

WARN_SECONDS = limits.CLOCK_SKEW_SECONDS / 6
SET_THE_CLOCK = "Set this machine's clock by NTP (on Debian: apt-get install systemd-timesyncd)."
_TIME_ERROR = 5
_TIMEX_BYTES = 512  # struct timex has 208 on 64-bit Linux; only its first word, `modes`, is written: 0 reads


def look_at_ntp() -> Finding:
    """Whether the kernel believes that its clock is set by somebody (adjtimex(2); reading needs no rights)."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    return judge_ntp(state, ctypes.get_errno() if state < 0 else 0)


def judge_ntp(state: int, error_number: int = 0) -> Finding:
    if state < 0:
        return warn("clock: ntp", f"cannot be read ({os.strerror(error_number)})", "See the clock of the host.")
    if state == _TIME_ERROR:
        return warn("clock: ntp", "the kernel's clock is not synchronised", SET_THE_CLOCK)
    return ok("clock: ntp", "synchronised")


def judge_skew(url: str, date: str | None, asked_at: datetime, answered_at: datetime) -> Finding:
    """Compare our clock with the Date of an answer, which is whole seconds somewhere between asking and answering."""
    name = f"clock: {url}"
    theirs = _read_date(date)
    if theirs is None:
        return warn(name, "tells no time in its answers", "Ask whoever runs it to send a Date header.")
    middle = asked_at + (answered_at - asked_at) / 2
    seconds = (middle - theirs - timedelta(seconds=0.5)).total_seconds()
    seen = f"ours is {abs(seconds):.1f} s {'ahead' if seconds > 0 else 'behind'}"
    if abs(seconds) > limits.CLOCK_SKEW_SECONDS:
        return wrong(name, f"{seen}; at most {limits.CLOCK_SKEW_SECONDS} s are tolerated", SET_THE_CLOCK)
    if abs(seconds) > WARN_SECONDS:
        return warn(name, seen, SET_THE_CLOCK)
    return ok(name, seen)


def _read_date(date: str | None) -> datetime | None:
    try:
        theirs = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
