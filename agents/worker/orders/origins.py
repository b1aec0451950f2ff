"""Whose exchange a message came through, and at which issuer that owner can be spoken to.

The exchange is the origin: RabbitMQ lets only its tenant write there (DESIGN §6). A tenant id is a hash, so the issuer
of its owner is known from an order that was verified before, or from an envelope whose unverified `iss` and `sub` hash
to exactly this tenant: nobody can make up a principal that does.
"""

import re
from dataclasses import dataclass

from bus.topology import ProviderNames
from identity.trust import Principal
from schemas import frame, ids, wire
from schemas.frame import UnverifiedFrame

_ATTEMPT = re.compile("a[a-z2-7]{26}")


@dataclass(frozen=True, slots=True)
class UnverifiedOrder:
    """What an envelope says of itself. Good for answering it, never for believing it."""

    digest: str
    attempt: str | None = None
    iss: str | None = None
    sub: str | None = None

    @classmethod
    def read(cls, raw: bytes) -> "UnverifiedOrder":
        digest = ids.sha256_hex(raw)
        parts = frame.split(raw)
        try:
            said = wire.unpack_map(parts.payload) if isinstance(parts, UnverifiedFrame) else {}
        except ValueError:
            said = {}
        attempt, iss, sub = (said.get(name) for name in ("attempt", "iss", "sub"))
        return cls(
            digest,
            attempt if isinstance(attempt, str) and _ATTEMPT.fullmatch(attempt) else None,
            iss if isinstance(iss, str) and "\n" not in iss else None,
            sub if isinstance(sub, str) else None,
        )


class Origins:
    def __init__(self, names: ProviderNames) -> None:
        self._names = names
        self._issuers: dict[str, str] = {}

    @property
    def audience(self) -> str:
        """To whom an order must be addressed that is meant for us."""
        return ids.provider_audience(self._names.provider)

    def tenant_of(self, exchange: str) -> str | None:
        return self._names.tenant_of(exchange)

    def learn(self, principal: Principal) -> None:
        """Remember the issuer of a principal that was verified."""
        self._issuers[principal.tenant] = principal.iss

    def issuer_of(self, tenant: str, order: UnverifiedOrder) -> str | None:
        """The issuer of a tenant's principal, or None where there is no evidence of it."""
        if order.iss is not None and order.sub is not None and ids.tenant_id(order.iss, order.sub) == tenant:
            return order.iss
        return self._issuers.get(tenant)
