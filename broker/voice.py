"""Signs this controller's orders, and remembers until when each is good."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from identity.speech import Speaker
from runtime.clock import Clock
from runtime.errors import OurFault
from schemas import frame, ids
from schemas.orders import Order
from schemas.refusals import Refusal


@dataclass(frozen=True, slots=True)
class Signed:
    """An order as bytes; it is never signed again."""

    raw: bytes
    digest: str
    expires_at: datetime


class Voice:
    """One principal, at one issuer."""

    def __init__(self, speaker: Speaker, *, issuer: str, sub: str, key: bytes, clock: Clock) -> None:
        self.speaker = speaker
        self.issuer = issuer
        self.sub = sub
        self.key = key
        self.tenant = ids.tenant_id(issuer, sub)
        self.audience = ids.controller_audience(self.tenant)
        self._clock = clock

    async def order(
        self, provider: str, model: type[Order], *, good_for_seconds: float | None = None, **fields: Any
    ) -> Signed:
        """Sign an order to `provider`, good for so long, or as long as its token.

        Raises WorldFault when the issuer is away, PeerFault when it refuses us a token, OurFault when what is to be
        signed is larger than an order may be.
        """
        expires_at = None if good_for_seconds is None else self._clock.now() + timedelta(seconds=good_for_seconds)
        try:
            raw = await self.speaker.order(provider, model, expires_at=expires_at, **fields)
        except ValueError as error:
            raise OurFault(f"an order that cannot be signed: {error}") from error
        return Signed(raw, ids.sha256_hex(raw), _expiry(raw, model))


def _expiry(raw: bytes, model: type[Order]) -> datetime:
    opened = frame.split(raw)
    order = opened if isinstance(opened, Refusal) else model.from_payload(opened.payload)
    if isinstance(order, Refusal):
        raise OurFault(f"an order of our own cannot be read: {order}")
    return order.expires_at
