"""Says no: to the owner of the exchange that a message came through, whoever signed it, with a signed reason.

Where we cannot speak to that owner (nobody knows its issuer, or we have no account there), the message is rejected: the
desk reads the dead letters and answers. While issuer or bus are away, it is given back. Nothing is acknowledged before
the bus has the refusal.
"""

import asyncio

from agents.worker.counts import Counts
from agents.worker.orders.admission import Refused
from agents.worker.orders.origins import Origins, UnverifiedOrder
from agents.worker.ports import Delivery
from agents.worker.speech.post import Patience, Post, publish_until
from agents.worker.speech.voice import Voice
from runtime.clock import Clock
from runtime.logging import get_logger

_log = get_logger(__name__)


class Refuser:
    def __init__(
        self, *, origins: Origins, voice: Voice, post: Post, counts: Counts, clock: Clock, patience: Patience
    ) -> None:
        self._origins = origins
        self._voice = voice
        self._post = post
        self._counts = counts
        self._clock = clock
        self._patience = patience

    async def refuse(self, delivery: Delivery, verdict: Refused) -> None:
        """Settle a delivery with a refusal; raises WorldFault or PeerFault where no token is to be had."""
        origin = self._origins.tenant_of(delivery.exchange)
        order = UnverifiedOrder.read(delivery.body)
        self._note(delivery, verdict, order)
        iss = None if origin is None else self._origins.issuer_of(origin, order)
        if origin is None or iss is None or not self._voice.can_speak_to(iss):
            await delivery.reject()
        elif await self._say(origin, iss, order, verdict):
            await delivery.ack()
        else:
            await delivery.requeue()
            await asyncio.sleep(self._patience.pause_seconds)

    async def _say(self, origin: str, iss: str, order: UnverifiedOrder, verdict: Refused) -> bool:
        body = await self._voice.refused(
            origin,
            iss,
            subject=order.digest,
            attempt=order.attempt,
            reason=verdict.reason,
            scope=verdict.scope,
            detail=verdict.detail,
        )
        until = self._clock.boottime() + self._patience.publish_seconds
        about = order.attempt or order.digest
        return await publish_until(
            lambda: self._post.reply(origin, body, attempt=about), until, self._clock, self._patience
        )

    def _note(self, delivery: Delivery, verdict: Refused, order: UnverifiedOrder) -> None:
        self._counts.refused.labels(verdict.reason.value).inc()
        fields = {"reason": verdict.reason, "scope": verdict.scope, "detail": verdict.detail}
        _log.info("order_refused", exchange=delivery.exchange, attempt=order.attempt, **fields)
