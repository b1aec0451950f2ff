"""`Trust`: the pure decisions of `verify`, with the issuers' keys and revocations looked up for them.

A decision is made from what is known. Only where that is why it refuses (a key never seen, keys or revocations not
read or too old), the issuer is asked, as rarely as `watch` allows, and the decision is made once more. A message whose
key is known never waits for another one's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import TypeVar

import httpx

from identity.trust.anchor import Anchor
from identity.trust.checks import Principal
from identity.trust.profiles import IssuerProfile, by_issuer
from identity.trust.revocation import check_revocation
from identity.trust.tokens import SignatureMemory
from identity.trust.verify import (
    Verified,
    unverified_issuer,
    verify_introduction,
    verify_order,
    verify_receipt,
    verify_ticket,
)
from identity.trust.watch import IssuerWatch
from runtime.clock import Clock
from schemas.orders import Order
from schemas.refusals import Reason, Refusal
from schemas.reports import Introduced
from schemas.statements import Receipt
from schemas.tickets import SessionTicket, StoreTicket

_RENEWALS = 2  # keys, then revocations: each can be what is missing, once
T = TypeVar("T")
_Decision = Callable[[Mapping[str, Anchor], datetime], T | Refusal]


class Trust:
    """What one component believes of messages with a token. Share one: it holds the caches."""

    def __init__(
        self,
        profiles: Iterable[IssuerProfile],
        *,
        client: httpx.AsyncClient,
        clock: Clock,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Raises `ValueError` where an issuer is listed twice."""
        self._watches = {
            iss: IssuerWatch(profile, client=client, clock=clock) for iss, profile in by_issuer(profiles).items()
        }
        self._clock = clock
        self._sleep = sleep
        self._memory = SignatureMemory()

    # -- Keeping fresh

    async def prime(self) -> None:
        """Read keys and revocations of all issuers once; one that is away delays, but stops nothing."""
        async with asyncio.TaskGroup() as group:
            for watch in self._watches.values():
                group.create_task(watch.renew())

    async def run(self) -> None:
        """Keep them fresh until cancelled."""
        async with asyncio.TaskGroup() as group:
            for watch in self._watches.values():
                group.create_task(self._keep_fresh(watch))

    async def _keep_fresh(self, watch: IssuerWatch) -> None:
        while True:
            await watch.renew()
            await self._sleep(watch.pause_seconds)

    # -- Deciding

    async def order(self, raw: bytes, *, audience: str) -> Verified[Order] | Refusal:
        """What a controller tells a worker; `audience` is `fedci:provider:<own name>`."""
        return await self._decide(
            raw,
            lambda anchors, now: verify_order(raw, anchors=anchors, audience=audience, now=now, memory=self._memory),
        )

    async def introduction(self, raw: bytes, *, audience: str) -> Verified[Introduced] | Refusal:
        """A worker's claim or refusal; `audience` is `fedci:controller:<own tenant id>`."""
        return await self._decide(
            raw,
            lambda anchors, now: verify_introduction(
                raw, anchors=anchors, audience=audience, now=now, memory=self._memory
            ),
        )

    async def ticket(self, raw: bytes, *, audience: str) -> Verified[SessionTicket | StoreTicket] | Refusal:
        """A controller's ticket for a session at the desk, or for a tab at the store."""
        return await self._decide(
            raw,
            lambda anchors, now: verify_ticket(raw, anchors=anchors, audience=audience, now=now, memory=self._memory),
        )

    async def receipt(self, raw: bytes, *, provider: str) -> Verified[Receipt] | Refusal:
        """A customer's receipt, as of now: call this when it comes in."""
        return await self._decide(
            raw,
            lambda anchors, now: verify_receipt(raw, anchors=anchors, provider=provider, now=now, memory=self._memory),
        )

    # -- Asking

    def trusts(self, iss: str) -> bool:
        return iss in self._watches

    def revocation_of(self, principal: Principal, *, token_id: str, issued_at: datetime) -> Refusal | None:
        """Whether a token that was accepted earlier would still be: `REVOKED`, `REVOCATION_STALE` or None.

        New work needs None; running work ends only at `REVOKED` (DESIGN §4).
        """
        watch = self._watches.get(principal.iss)
        if watch is None:
            return Refusal(Reason.ISSUER_UNTRUSTED, "the issuer is no longer among those trusted here")
        return check_revocation(
            watch.anchor.revocations,
            watch.anchor.profile,
            self._clock.now(),
            sub=principal.sub,
            token_id=token_id,
            issued_at=issued_at,
        )

    def troubles(self) -> Mapping[str, str]:
        """Why each issuer that could not be read lately could not, for status pages."""
        return {iss: watch.trouble for iss, watch in self._watches.items() if watch.trouble is not None}

    async def _decide(self, raw: bytes, decide: _Decision[T]) -> T | Refusal:
        verdict = decide(self._anchors(), self._clock.now())
        for _ in range(_RENEWALS):
            if not isinstance(verdict, Refusal) or not await self._learn_for(raw, verdict):
                break
            verdict = decide(self._anchors(), self._clock.now())
        return verdict

    async def _learn_for(self, raw: bytes, refusal: Refusal) -> bool:
        if refusal.reason not in (Reason.KEY_UNKNOWN, Reason.ISSUER_UNREACHABLE, Reason.REVOCATION_STALE):
            return False
        watch = self._watches.get(unverified_issuer(raw) or "")
        return watch is not None and await watch.renew_for(refusal)

    def _anchors(self) -> Mapping[str, Anchor]:
        return {iss: watch.anchor for iss, watch in self._watches.items()}
