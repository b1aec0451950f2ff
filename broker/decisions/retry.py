"""Whether a job gets another attempt, where not to ask again, and when it is given up (DESIGN §7.5).

Rules:
1. What a person cancelled stays cancelled.
2. Only `errored` is retried; a failure would only fail again.
3. Errors on the way (`schemas.ends`) count against the job's `retries`; a refusal or an unclaimed order does not, for
   nothing ran, but all attempts together are capped, so that no job circles for ever.
4. A refusal bars whom it speaks for: the provider (`final`) or the worker (`here`), for good or, where time heals it,
   for a while. An error merely puts its provider at the end of the list: elsewhere, if there is an elsewhere.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from schemas.ends import ENDS, EndReason, Outcome
from schemas.refusals import Reason

ATTEMPTS_MAX = 50
"""All attempts of one job together, refusals included."""

_LONGEST_BAR_SECONDS = 600.0
_HEALING_SECONDS: dict[Reason, float] = {
    Reason.EXPIRED: 0,
    Reason.TOKEN_EXPIRED: 0,
    Reason.OUTLIVES_TOKEN: 0,
    Reason.DRAINING: 15,
    Reason.UNDELIVERED: 15,
    Reason.UNROUTABLE: 15,
    Reason.QUEUE_FULL: 15,
    Reason.GRANT_TOO_LATE: 5,
    Reason.ISSUER_UNREACHABLE: 30,
    Reason.REVOCATION_STALE: 30,
    Reason.KEY_UNKNOWN: 60,
    Reason.RATE_CARD_UNKNOWN: 30,
    Reason.TOKEN_NOT_YET_VALID: 30,
    Reason.NOT_YET_VALID: 30,
    Reason.HELD_FOR_APPROVAL: 60,
    Reason.BUDGET_EXHAUSTED: 300,
}


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt."""


@dataclass(frozen=True, slots=True)
class Final:
    """No further attempt: the job's final state."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class History:
    """A job's attempts so far, the one that just ended included."""

    attempts: int
    errors: int
    retries: int
    is_cancelled: bool


def decide_after_end(reason: EndReason, history: History) -> Again | Final:
    """What follows for the job when a granted attempt ended like this."""
    end = ENDS[reason]
    if not end.is_retried:
        return Final(end.outcome)
    if history.is_cancelled:
        return Final(Outcome.CANCELLED)
    if history.errors > history.retries or history.attempts >= ATTEMPTS_MAX:
        return Final(Outcome.ERRORED)
    return Again()


def decide_unstarted(history: History) -> Again | Final:
    """What follows when an attempt ended before anything ran: refused, released, expired or not delivered."""
    if history.is_cancelled:
        return Final(Outcome.CANCELLED)
    return Again() if history.attempts < ATTEMPTS_MAX else Final(Outcome.ERRORED)


@dataclass(frozen=True, slots=True)
class PastRefusal:
    """A refusal that one job met."""

    provider: str
    agent: str
    reason: Reason
    scope: Literal["final", "here"]
    at: datetime


@dataclass(frozen=True, slots=True)
class Bars:
    """Whom this job does not ask at the moment, and why; `until` is when the first of these bars falls."""

    providers: dict[str, PastRefusal]
    workers: dict[tuple[str, str], PastRefusal]
    until: datetime | None


def bars_of(refusals: Iterable[PastRefusal], now: datetime) -> Bars:
    """Reduce a job's refusals to those that still hold. Said again, the same refusal holds twice as long."""
    providers: dict[str, PastRefusal] = {}
    workers: dict[tuple[str, str], PastRefusal] = {}
    ends: list[datetime] = []
    times: Counter[tuple[str, str, Reason]] = Counter()
    for refusal in refusals:
        who = (refusal.provider, refusal.agent, refusal.reason)
        times[who] += 1
        healed_at = _healed_at(refusal, times[who])
        if healed_at is not None and healed_at <= now:
            continue
        ends.extend([] if healed_at is None else [healed_at])
        if refusal.scope == "final":
            providers[refusal.provider] = refusal
        else:
            workers[(refusal.provider, refusal.agent)] = refusal
    return Bars(providers, workers, min(ends, default=None))


def _healed_at(refusal: PastRefusal, times: int) -> datetime | None:
    seconds = _HEALING_SECONDS.get(refusal.reason)
    if seconds is None:
        return None
    return refusal.at + timedelta(seconds=min(seconds * 2.0 ** min(times - 1, 20), _LONGEST_BAR_SECONDS))
