"""The same message again: redelivery, replay or equivocation (DESIGN §5).

Decided from what is stored, never from memory: the receiver looks up the digest that it keeps under the message's
`duplicate_key`, asks here, and stores the new digest in the same transaction as the message's effect. So there is no
moment in which a message is marked as seen and its effect is not there, or the other way round.
"""

from enum import StrEnum

from schemas.refusals import Reason, Refusal


class Seen(StrEnum):
    """Where the same key was seen before, or not."""

    NEW = "new"
    REDELIVERY = "redelivery"


def settle_duplicate(known_digest: str | None, digest: str) -> Seen | Refusal:
    """For messages that may come again: the same bytes are settled quietly, other bytes are an alarm.

    `known_digest` is the SHA-256 of the envelope stored under this `duplicate_key`, or None.
    """
    if known_digest is None:
        return Seen.NEW
    if known_digest == digest:
        return Seen.REDELIVERY
    return Refusal(Reason.EQUIVOCATION, "two different messages were signed under one key of identity")


def spend_ticket(known_digest: str | None, digest: str) -> Seen | Refusal:
    """For tickets: good once, so the same bytes again are a replay."""
    seen = settle_duplicate(known_digest, digest)
    if seen is Seen.REDELIVERY:
        return Refusal(Reason.REPLAYED, "this ticket was used before; sign a new one")
    return seen
