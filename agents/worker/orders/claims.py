"""From a delivery to a claim: verify, admit or refuse, journal, publish, acknowledge (DESIGN §7.2).

Every delivery has one fate:

| what came | fate |
|---|---|
| a job that this worker takes | journalled, claim confirmed by the bus, then acknowledged |
| a job whose attempt the journal holds a claim of | acknowledged: a redelivery |
| anything else: not admitted, unreadable, unverified, another's | `refuser` |
| anything, while bus or issuer are away | given back |

So a crash at any point costs a redelivery, never a job and never a second run.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agents.worker.counts import Counts
from agents.worker.jobs.lease import GrantWindow
from agents.worker.journal.claims import Journal, NewClaim, OrderMark
from agents.worker.orders.admission import Admitted, Asked, Lent, Refused, admit, refuse
from agents.worker.orders.handle import Handle, Handles
from agents.worker.orders.origins import Origins
from agents.worker.orders.refuser import Refuser
from agents.worker.ports import Delivery
from agents.worker.speech.post import Patience, Post, publish_until
from agents.worker.speech.voice import ClaimRef, Voice
from identity.trust import Seen, Trust, Verified
from runtime.clock import Clock
from runtime.errors import PeerFault, WorldFault
from runtime.logging import get_logger
from schemas import ids
from schemas.orders import Job, Order
from schemas.refusals import Reason, Refusal
from schemas.reports import Released

UNSETTLED_PER_TENANT = 200
"""Logs and results wait on this disk until they are settled; a tenant that never settles gets no more of it."""
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim that the bus has, waiting for its grant."""

    handle: Handle
    job: Job
    grant_key: X25519PrivateKey
    window: GrantWindow


class Claims:
    """Takes deliveries in, for all slots."""

    def __init__(
        self,
        *,
        trust: Trust,
        origins: Origins,
        lent: Callable[[Job], Awaitable[Lent]],
        is_draining: Callable[[], bool],
        refuser: Refuser,
        journal: Journal,
        voice: Voice,
        post: Post,
        handles: Handles,
        counts: Counts,
        clock: Clock,
        patience: Patience,
    ) -> None:
        self._trust = trust
        self._origins = origins
        self._lent = lent
        self._is_draining = is_draining
        self._refuser = refuser
        self._journal = journal
        self._voice = voice
        self._post = post
        self._handles = handles
        self._counts = counts
        self._clock = clock
        self._patience = patience

    async def take_in(self, delivery: Delivery) -> Claimed | None:
        """Settle one delivery; the claim, if there is one. The caller owns the claim's handle from then on."""
        try:
            return await self._take_in(delivery)
        except (WorldFault, PeerFault) as error:
            _log.warning("delivery_given_back", exchange=delivery.exchange, reason=str(error))
            await delivery.requeue()
            await asyncio.sleep(self._patience.pause_seconds)
            return None

    async def release(self, ref: ClaimRef, reason: Reason) -> None:
        """Say that a claim will not start, and forget it."""
        now = self._clock.now()
        sequence = await self._journal.next_sequence(ref.claim, now)
        body = self._voice.report(Released, ref, sequence, reason=reason)
        await self._journal.release(ref.claim, self._post.to_tenant(ref.tenant, body, attempt=ref.attempt, now=now))
        self._counts.released.labels(reason.value).inc()
        _log.info("claim_released", attempt=ref.attempt, claim=ref.claim, tenant=ref.tenant, reason=reason)

    async def _take_in(self, delivery: Delivery) -> Claimed | None:
        order = await self._trust.order(delivery.body, audience=self._origins.audience)
        if isinstance(order, Refusal):
            # Another worker of ours would say the same, but time may heal it: the next order will tell.
            await self._refuser.refuse(delivery, Refused(order.reason, "here", order.detail))
            return None
        self._origins.learn(order.principal)
        verdict = await self._decide(delivery, order)
        if isinstance(verdict, Refused):
            await self._refuser.refuse(delivery, verdict)
            return None
        return await self._claim(delivery, verdict, order)

    async def _decide(self, delivery: Delivery, order: Verified[Order]) -> Admitted | Refused:
        if not isinstance(order.message, Job):
            return Refused(Reason.WRONG_KIND, "final", "only jobs are taken from this queue")
        tenant, origin = order.principal.tenant, self._origins.tenant_of(delivery.exchange)
        lent = await self._lent(order.message)
        verdict = admit(Asked(order.message, tenant, origin or ""), lent, is_draining=self._is_draining())
        if isinstance(verdict, Admitted) and await self._journal.count_unsettled(tenant) >= UNSETTLED_PER_TENANT:
            return refuse(Reason.QUEUE_FULL, f"{UNSETTLED_PER_TENANT} results of yours wait here to be settled")
        return verdict

    async def _claim(self, delivery: Delivery, admitted: Admitted, order: Verified[Order]) -> Claimed | None:
        ref = ClaimRef(admitted.tenant, admitted.job.attempt, ids.new_claim_id())
        new = NewClaim(ref.claim, ref.tenant, admitted.job, delivery.body, self._clock.now())
        seen = await self._journal.add_claim(new, OrderMark.of(order.message, order.digest))
        if isinstance(seen, Refusal):
            self._counts.alarms.inc()
            _log.error("equivocation", attempt=ref.attempt, tenant=ref.tenant, digest=order.digest)
            await self._refuser.refuse(delivery, Refused(seen.reason, "final", seen.detail))
            return None
        if seen is Seen.REDELIVERY:
            _log.info("job_redelivered", attempt=ref.attempt, tenant=ref.tenant)
            await delivery.ack()
            return None
        return await self._announce(delivery, ref, admitted.job)

    async def _announce(self, delivery: Delivery, ref: ClaimRef, job: Job) -> Claimed | None:
        """Publish the claim; when the bus has it, acknowledge the delivery."""
        key = X25519PrivateKey.generate()
        try:
            body = await self._voice.claim(ref, job.iss, key.public_key().public_bytes_raw())
        except (WorldFault, PeerFault):
            await self._journal.drop(ref.claim)
            raise
        handle = Handle(ref)
        window = GrantWindow(self._clock.boottime(), self._patience.publish_seconds)
        self._handles.add(handle)  # before the claim is out: its grant may be here before its confirm
        is_out = False
        try:
            is_out = await self._publish(ref, body, window)
            if is_out:
                await self._journal.confirm_claim(ref.claim)
                await delivery.ack()
                self._counts.claims.inc()
                _log.info("job_claimed", attempt=ref.attempt, claim=ref.claim, tenant=ref.tenant, job=job.name)
                return Claimed(handle, job, key, window)
        except BaseException:
            self._handles.remove(handle)  # nobody lives this claim: the next start releases it
            raise
        self._handles.remove(handle)
        await self.release(ref, Reason.UNDELIVERED)  # it may have arrived, after all
        await delivery.requeue()
        return None

    async def _publish(self, ref: ClaimRef, body: bytes, window: GrantWindow) -> bool:
        return await publish_until(
            lambda: self._post.reply(ref.tenant, body, attempt=ref.attempt),
            window.ends_at,
            self._clock,
            self._patience,
        )
