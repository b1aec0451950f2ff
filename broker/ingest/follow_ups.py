"""Orders that follow from what was taken in: cancel, settled, resend (DESIGN §7.4).

They are signed after the transaction of their cause and stored in one of their own. A crash in between loses nothing:
the deliveries that caused them are not acknowledged yet and come again, and each of these orders may be said twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from broker.dispatch.outgoing import Outgoing
from broker.voice import Signed, Voice
from runtime.database import Database
from runtime.errors import PeerFault, WorldFault
from runtime.logging import get_logger
from schemas.orders import Cancel, Resend, Settled, StandDown

_log = get_logger(__name__)
FollowUpModel = type[Cancel] | type[Resend] | type[Settled] | type[StandDown]
GOOD_FOR_SECONDS = 300.0
"""As long as a control queue keeps its messages; what is lost is said again when the worker speaks next."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """One order to one worker about one claim."""

    provider: str
    worker: str
    model: FollowUpModel
    attempt: str
    claim: str
    fields: tuple[tuple[str, Any], ...] = ()


class FollowUps:
    """Signs and stores follow-ups."""

    def __init__(self, *, voice: Voice, outgoing: Outgoing, database: Database) -> None:
        self._voice = voice
        self._outgoing = outgoing
        self._database = database

    async def send(self, follow_ups: Iterable[FollowUp]) -> bool:
        """Put them into the outbox; False when some could not be signed, and so were left out."""
        signed: list[tuple[FollowUp, Signed]] = []
        wanted = list(dict.fromkeys(follow_ups))
        for each in wanted:
            try:
                signed.append((each, await self._sign(each)))
            except (WorldFault, PeerFault) as error:
                _log.warning("follow_up_unsigned", order=each.model.TYPE, claim=each.claim, reason=str(error))
        if not signed:
            return not wanted
        async with self._database.write() as session:
            for each, order in signed:
                self._outgoing.order(session, each.provider, each.worker, order.raw, each.attempt, order.expires_at)
        return len(signed) == len(wanted)

    async def _sign(self, each: FollowUp) -> Signed:
        return await self._voice.order(
            each.provider,
            each.model,
            good_for_seconds=GOOD_FOR_SECONDS,
            attempt=each.attempt,
            claim=each.claim,
            **dict(each.fields),
        )
