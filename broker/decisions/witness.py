"""Whether the customer signs for a usage event, and what it says against one that it does not (DESIGN §9).

A customer witnesses only what it read live. Of an attempt it knows: who was granted it, when the claim and the last
report came, how many log bytes, how it ended, and the rate card that its order named. Against that the event is held,
with the slack that clocks and travel deserve. Of a store it knows whether it uses it at all and for which attempts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from schemas.ends import ENDS, EndReason
from schemas.statements import Usage

SLACK_SECONDS = 60
LOG_SLACK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Witnessed:
    """What we know of the attempt that an event is about."""

    provider: str
    store: str | None
    claim: str | None
    rate_card: str
    seconds: float
    log_bytes: int
    end: EndReason | None
    was_lost: bool
    cores: int = 1
    before: Decimal = Decimal(0)
    """What earlier events of this meter say that it used, unless they were disputed: intervals add up."""


@dataclass(frozen=True, slots=True)
class Verdict:
    verdict: Literal["accepted", "disputed"]
    reason: str = ""


_ACCEPTED = Verdict("accepted")


def judge_usage(usage: Usage, witnessed: Witnessed | None, *, is_our_store: bool) -> Verdict:
    """Accept the event or say what is wrong with it; `witnessed` is None where the attempt is not known here."""
    if usage.attempt is None:
        return _ACCEPTED if is_our_store else Verdict("disputed", "we have no dealings with this provider's store")
    if witnessed is None:
        return Verdict("disputed", "we know no such attempt")
    return next((Verdict("disputed", reason) for is_hit, reason in _OBJECTIONS if is_hit(usage, witnessed)), _ACCEPTED)


def _is_store_event(usage: Usage) -> bool:
    return usage.meter.startswith("store-")


def _is_stranger(usage: Usage, witnessed: Witnessed) -> bool:
    return usage.provider != (witnessed.store if _is_store_event(usage) else witnessed.provider)


def _is_other_claim(usage: Usage, witnessed: Witnessed) -> bool:
    return not _is_store_event(usage) and usage.claim != witnessed.claim


def _is_other_rate_card(usage: Usage, witnessed: Witnessed) -> bool:
    return not _is_store_event(usage) and usage.rate_card != witnessed.rate_card


def _is_counted_twice(usage: Usage, witnessed: Witnessed) -> bool:
    return usage.meter == "attempts" and usage.quantity + witnessed.before > 1


def _is_longer_than_seen(usage: Usage, witnessed: Witnessed) -> bool:
    """Each core that was reserved counts (DESIGN §9)."""
    most = Decimal(witnessed.seconds + SLACK_SECONDS) * witnessed.cores
    return usage.meter == "wall-seconds" and usage.quantity + witnessed.before > most


def _is_more_log_than_seen(usage: Usage, witnessed: Witnessed) -> bool:
    most = witnessed.log_bytes + LOG_SLACK_BYTES
    return usage.meter == "log-bytes" and usage.quantity + witnessed.before > most


def _contradicts_loss(usage: Usage, witnessed: Witnessed) -> bool:
    return witnessed.was_lost and not _is_store_event(usage) and _is_billed(usage)


def _contradicts_end(usage: Usage, witnessed: Witnessed) -> bool:
    return witnessed.end is not None and usage.reason is not None and usage.reason is not witnessed.end


def _is_billed(usage: Usage) -> bool:
    return usage.reason is None or ENDS[usage.reason].is_billable


_OBJECTIONS: tuple[tuple[Callable[[Usage, Witnessed], bool], str], ...] = (
    (_is_stranger, "the attempt was not given to this provider"),
    (_is_other_claim, "this claim was not granted the attempt"),
    (_is_other_rate_card, "the order named another rate card"),
    (_contradicts_loss, "the attempt was lost for us: its lease had expired"),
    (_contradicts_end, "the attempt ended for another reason"),
    (_is_counted_twice, "more than the one attempt that it was"),
    (_is_longer_than_seen, "longer than from our grant to the report of its end"),
    (_is_more_log_than_seen, "more log than arrived here"),
)
