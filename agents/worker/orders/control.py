"""Orders about claims: grant, stand down, cancel, resend, settled (DESIGN §5, §7).

Each is verified, must come through the exchange of its own principal, and counts only for a claim of that principal's
job. The same bytes again are settled quietly; other bytes under the same key are an alarm. An order about a claim that
is not here (any more) has no effect: a claim that was released never starts, whatever comes later.

What an order does is durable, or harmless to lose, before it is remembered; and it is remembered before the delivery
is settled. One about a claim that is not here is not remembered, having no effect: a flood of them fills no disk.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from agents.sandbox.causes import Cause
from agents.worker.counts import Counts
from agents.worker.journal.claims import ClaimEntry, ClaimState, Journal, OrderMark, Outgoing
from agents.worker.orders.handle import Answer, Handle, Handles
from agents.worker.orders.origins import Origins
from agents.worker.ports import Delivery
from agents.worker.speech.logs import Logs
from agents.worker.speech.post import Post
from agents.worker.speech.voice import ClaimRef
from bus.delivery import Fate
from identity.trust import Seen, Trust, Verified
from runtime.clock import Clock
from runtime.logging import get_logger
from schemas.orders import Cancel, Grant, Order, Resend, Settled, StandDown
from schemas.refusals import Reason, Refusal

_log = get_logger(__name__)


class Control:
    """Takes one control delivery after the other, for all tenants."""

    def __init__(
        self,
        *,
        trust: Trust,
        origins: Origins,
        journal: Journal,
        handles: Handles,
        logs: Logs,
        post: Post,
        counts: Counts,
        clock: Clock,
    ) -> None:
        self._trust = trust
        self._origins = origins
        self._journal = journal
        self._handles = handles
        self._logs = logs
        self._post = post
        self._counts = counts
        self._clock = clock
        self._effects: dict[type[Order], Callable[[Any, str], Awaitable[None]]] = {
            Grant: self._answer,
            StandDown: self._answer,
            Cancel: self._cancel,
            Resend: self._resend,
            Settled: self._settle,
        }

    async def handle(self, delivery: Delivery) -> Fate:
        """Decide one delivery. Raises WorldFault where the journal cannot: then it should come again."""
        order = await self._trust.order(delivery.body, audience=self._origins.audience)
        if isinstance(order, Refusal):
            return self._refuse(delivery, order)
        refusal = await self._check(order, delivery)
        if refusal is not None:
            return self._refuse(delivery, refusal)
        mark = OrderMark.of(order.message, order.digest)
        seen = await self._journal.look_up(mark)
        if isinstance(seen, Refusal):
            self._counts.alarms.inc()
            _log.error("equivocation", order=order.message.TYPE, tenant=order.principal.tenant, digest=order.digest)
            return self._refuse(delivery, seen)
        if seen is Seen.NEW:
            await self._effects[type(order.message)](order.message, order.digest)
            await self._remember(order.message, mark)
        return Fate.SETTLED

    async def _remember(self, order: Order, mark: OrderMark) -> None:
        """A grant is remembered by the start that it gives."""
        if isinstance(order, StandDown | Cancel | Resend | Settled) and await self._owner(order.claim) is not None:
            await self._journal.remember(mark)

    async def _check(self, order: Verified[Order], delivery: Delivery) -> Refusal | None:
        message, tenant = order.message, order.principal.tenant
        self._origins.learn(order.principal)
        if not isinstance(message, Grant | StandDown | Cancel | Resend | Settled):
            return Refusal(Reason.WRONG_KIND, f"{message.TYPE} is no order about a claim")
        if self._origins.tenant_of(delivery.exchange) != tenant:
            return Refusal(Reason.WRONG_ORIGIN, "the order came through another tenant's exchange")
        owner = await self._owner(message.claim)
        if owner is not None and owner != (tenant, message.attempt):
            return Refusal(Reason.WRONG_ORIGIN, "the claim is of another tenant or another attempt")
        return None

    async def _owner(self, claim: str) -> tuple[str, str] | None:
        handle = self._handles.find(claim)
        if handle is not None:
            return handle.ref.tenant, handle.ref.attempt
        entry = await self._journal.find(claim)
        return None if entry is None else (entry.tenant, entry.attempt)

    def _refuse(self, delivery: Delivery, refusal: Refusal) -> Fate:
        self._counts.refused.labels(refusal.reason.value).inc()
        _log.warning("order_refused", exchange=delivery.exchange, reason=refusal.reason, detail=refusal.detail)
        return Fate.DEAD

    # -- effects

    async def _answer(self, order: Grant | StandDown, digest: str) -> None:
        handle = self._handles.find(order.claim)
        if handle is None:
            _log.info("answer_ignored", order=order.TYPE, attempt=order.attempt, claim=order.claim)
        elif not handle.give_answer(Answer(order, digest, self._clock.boottime())):
            self._note_second_answer(handle, order, digest)

    def _note_second_answer(self, handle: Handle, order: Grant | StandDown, digest: str) -> None:
        first = handle.answer
        if first is None or first.digest == digest:
            return
        # Two grants, or a grant and its opposite, under one claim: the first one stands.
        self._counts.alarms.inc()
        _log.error("equivocation", order=order.TYPE, attempt=order.attempt, claim=order.claim, digest=digest)

    async def _cancel(self, order: Cancel, _digest: str) -> None:
        handle = self._handles.find(order.claim)
        if handle is not None:
            handle.stop(Cause.CANCELLED)
        _log.info("job_cancelled", attempt=order.attempt, claim=order.claim, cause=order.cause, is_live=bool(handle))

    async def _resend(self, order: Resend, _digest: str) -> None:
        entry = await self._journal.find(order.claim)
        if entry is None:
            _log.warning("resend_of_unknown_claim", attempt=order.attempt, claim=order.claim)
            return
        if order.log_from < order.log_to:
            self._logs.resend(_ref(entry), order.log_from, order.log_to)
        reports = await self._journal.kept_reports(entry.claim, order.sequences)
        await self._journal.enqueue_once([self._outgoing(entry, body) for body in reports])
        _log.info("resent", attempt=order.attempt, claim=order.claim, log_from=order.log_from, log_to=order.log_to)

    def _outgoing(self, entry: ClaimEntry, body: bytes) -> Outgoing:
        return self._post.to_tenant(entry.tenant, body, attempt=entry.attempt, now=self._clock.now())

    async def _settle(self, order: Settled, _digest: str) -> None:
        entry = await self._journal.find(order.claim)
        if entry is None:
            return
        if entry.state is not ClaimState.OVER:
            _log.warning("settled_while_live", attempt=order.attempt, claim=order.claim, state=entry.state)
            return
        # The log first: were the claim forgotten first, a crash in between would leave its log for ever.
        await self._logs.forget(order.claim)
        await self._journal.forget(order.claim)
        _log.info("claim_settled", attempt=order.attempt, claim=order.claim)


def _ref(entry: ClaimEntry) -> ClaimRef:
    return ClaimRef(entry.tenant, entry.attempt, entry.claim)
