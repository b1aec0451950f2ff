"""What a worker's claim is answered with: grant, or stand down and why (DESIGN §7.2).

Grant asks, in this order: do we know the attempt; does the claim come from the provider that was asked; is the attempt
still the current one of its job; is it unwanted (cancelled); was it granted before. The answer to a claim is given
once: the same claim again is a redelivery and changes nothing. That no attempt is granted twice, whatever happens
here, is also a constraint of the database.
"""

from collections.abc import Callable
from dataclasses import dataclass

from schemas.life import AttemptState, can_attempt_become
from schemas.refusals import Reason


@dataclass(frozen=True, slots=True)
class ClaimedAttempt:
    """The attempt as its row says when the claim is decided."""

    attempt: str
    provider: str
    state: AttemptState
    is_current: bool
    is_cancelled: bool
    granted_claim: str | None


@dataclass(frozen=True, slots=True)
class GrantIt:
    """The claim gets the attempt."""


@dataclass(frozen=True, slots=True)
class StandDownIt:
    """The claim does not get the attempt, and why."""

    reason: Reason


_CHECKS: tuple[tuple[Callable[[ClaimedAttempt, str], bool], Reason], ...] = (
    (lambda attempt, provider: attempt.provider != provider, Reason.WRONG_ORIGIN),
    (lambda attempt, _: attempt.is_cancelled, Reason.CANCELLED),
    (lambda attempt, _: attempt.granted_claim is not None, Reason.ALREADY_GRANTED),
    (lambda attempt, _: not attempt.is_current, Reason.ATTEMPT_NOT_CURRENT),
    (lambda attempt, _: not can_attempt_become(attempt.state, AttemptState.CLAIMED), Reason.ATTEMPT_NOT_CURRENT),
)


def decide_claim(attempt: ClaimedAttempt | None, provider: str) -> GrantIt | StandDownIt:
    """Answer a claim by an agent of `provider`; `attempt` is None when there is no such row."""
    if attempt is None:
        return StandDownIt(Reason.UNKNOWN_ATTEMPT)
    reason = next((reason for is_hit, reason in _CHECKS if is_hit(attempt, provider)), None)
    return GrantIt() if reason is None else StandDownIt(reason)
