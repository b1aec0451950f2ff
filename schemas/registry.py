"""Every message type, by its name on the wire.

Peers list what they speak (`Card.speaks`). A receiver reads the current version of a type and the one before it; a
type that is known in another version is told from one that is not known at all, because the remedies differ.
"""

from schemas import orders, reports, statements, tickets
from schemas.refusals import Reason, Refusal
from schemas.wire import Message

MESSAGES: tuple[type[Message], ...] = (
    orders.Job,
    orders.Grant,
    orders.StandDown,
    orders.Cancel,
    orders.Resend,
    orders.Settled,
    reports.Claim,
    reports.Refused,
    reports.Log,
    reports.Heartbeat,
    reports.Finished,
    reports.Released,
    tickets.SessionTicket,
    tickets.AgentTicket,
    tickets.StoreTicket,
    statements.Usage,
    statements.Receipt,
    statements.RateCard,
    statements.Card,
    statements.Invoice,
)

BY_TYPE: dict[str, type[Message]] = {message.TYPE: message for message in MESSAGES}
SPEAKS: tuple[str, ...] = tuple(sorted(BY_TYPE))
_FAMILIES = frozenset(message.TYPE.rpartition("/")[0] for message in MESSAGES)


def find(message_type: str) -> type[Message] | Refusal:
    """The model of a wire type, or the reason why there is none here."""
    model = BY_TYPE.get(message_type)
    if model is not None:
        return model
    family, _, version = message_type.rpartition("/")
    if family in _FAMILIES:
        return Refusal(Reason.UNKNOWN_VERSION, f"{family}/{version[:10]} is not spoken here")
    return Refusal(Reason.UNKNOWN_TYPE, "no such message type")
