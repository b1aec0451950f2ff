"""Whether a provider's card replaces the one at hand (DESIGN §4).

That the pinned root key signed it was verified before. Here is asked, in this order: is it about the same provider, is
it not older than what was seen (a serial never goes back), does one serial have one content, has it expired.
"""

from dataclasses import dataclass
from datetime import datetime

from schemas.refusals import Reason, Refusal
from schemas.statements import Card


@dataclass(frozen=True, slots=True)
class SeenCard:
    """The newest card seen so far."""

    provider: str
    serial: int
    digest: str


def check_card(card: Card, digest: str, seen: SeenCard, now: datetime) -> bool | Refusal:
    """True: it is newer; False: it is the one at hand; or why it is refused."""
    if card.provider != seen.provider:
        return Refusal(Reason.ROOT_CHANGED, f"the card at this address is now {card.provider}'s, not {seen.provider}'s")
    if card.serial < seen.serial:
        return Refusal(
            Reason.CARD_ROLLED_BACK, f"the desk shows card {card.serial}, but card {seen.serial} was seen before"
        )
    if card.serial == seen.serial and digest != seen.digest:
        return Refusal(Reason.EQUIVOCATION, f"two different cards were signed with the serial {card.serial}")
    if card.expires_at <= now:
        return Refusal(Reason.CARD_EXPIRED, f"the card expired at {card.expires_at:%Y-%m-%d %H:%M} UTC")
    return card.serial > seen.serial
