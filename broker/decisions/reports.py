"""What a worker's report does to its claim and attempt (DESIGN §7.3–§7.4).

Rules:
1. A report counts only for the claim that was granted, and only while its attempt is `granted`.
2. A report of another claim, or one that comes after the attempt was given up, is recorded and fenced: it changes
   neither attempt nor job, and its artifacts stay invisible. The worker is still told when to forget it.
3. `released` of a claim that got no grant ends the attempt if that claim was its last hope; of a granted claim, it ends
   the attempt as released, and the job goes on with another.
4. What a granted job reports about its end is believed in substance (exit, steps), for only it was there; what we can
   see ourselves (log, times) is checked elsewhere.
"""

from dataclasses import dataclass

from schemas.ends import EndReason
from schemas.life import AttemptState
from schemas.refusals import Reason
from schemas.reports import ClaimReport, Finished, Heartbeat, Released


@dataclass(frozen=True, slots=True)
class ClaimStanding:
    """A claim beside its attempt, as the rows say."""

    claim: str
    is_granted: bool
    is_latest: bool
    attempt_state: AttemptState


@dataclass(frozen=True, slots=True)
class Progressed:
    """The job runs: the lease is renewed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The granted job is over, for this reason."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class Unstarted:
    """The attempt ended without having run."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Fenced:
    """Recorded and without effect; `detail` says why, for the page."""

    detail: str


Effect = Progressed | Ended | Unstarted | Fenced


def decide_report(report: ClaimReport, standing: ClaimStanding) -> Effect:
    """What follows from a verified report of a known claim."""
    match report:
        case Released():
            return _released(report, standing)
        case Heartbeat() | Finished() if not standing.is_granted:
            return Fenced("this claim was not granted")
        case Heartbeat() | Finished() if standing.attempt_state is not AttemptState.GRANTED:
            return Fenced(f"the attempt was already {standing.attempt_state}")
        case Finished():
            return Ended(report.reason)
        case _:
            return Progressed()


def _released(report: Released, standing: ClaimStanding) -> Effect:
    if standing.is_granted and standing.attempt_state is AttemptState.GRANTED:
        return Unstarted(report.reason)
    if standing.is_latest and standing.attempt_state is AttemptState.CLAIMED:
        return Unstarted(report.reason)
    return Fenced(f"released, and the attempt is {standing.attempt_state}")
