"""What follows when the bus does not take a job: known at once, shown as the reason, and asked elsewhere (DESIGN §7.1).

The order is withdrawn, its attempt ends as refused by the bus, and this provider is barred from the job for a short
while. Other messages simply wait in the outbox for the bus to take them.
"""

from broker.bells import Bells
from broker.dispatch.outgoing import Destination, Publisher
from broker.ingest.outcomes import end_unstarted
from broker.store import attempts as attempt_store
from broker.tables import RefusalRow
from runtime.clock import Clock
from runtime.database import Database
from runtime.logging import get_logger
from runtime.outbox import OutboxMessage, PublishResult, Rejected, Unroutable
from runtime.outbox_table import OutboxTable
from schemas.ids import sha256_hex
from schemas.life import AttemptState
from schemas.refusals import Reason

_log = get_logger(__name__)
BUS_AGENT = "bus"


class JobPublisher:
    """Publishes for the outbox, and gives up job orders that the bus refuses."""

    def __init__(
        self, publisher: Publisher, *, outbox: OutboxTable, database: Database, bells: Bells, clock: Clock
    ) -> None:
        self._publisher = publisher
        self._outbox = outbox
        self._database = database
        self._bells = bells
        self._clock = clock

    async def publish(self, message: OutboxMessage) -> PublishResult:
        """Publish one message; what the bus said is returned, and for a refused job acted on first."""
        answer = await self._publisher.publish(message)
        to = Destination.parse(message.destination)
        if to.lane == "jobs" and isinstance(answer, Unroutable | Rejected):
            await self._give_up(message, to, answer)
        return answer

    async def _give_up(self, message: OutboxMessage, to: Destination, answer: Unroutable | Rejected) -> None:
        reason = Reason.UNROUTABLE if isinstance(answer, Unroutable) else Reason.QUEUE_FULL
        why = f"{to.provider}'s bus did not take it for the pool {to.key}: {answer.reason}"
        now = self._clock.now()
        async with self._database.write() as session:
            await self._outbox.give_up_in(session, [message.id], why)
            attempt = await attempt_store.attempt(session, message.correlation_id)
            if attempt is None:
                return
            row = RefusalRow(
                provider=to.provider,
                agent=BUS_AGENT,
                subject=attempt.order_digest,
                attempt_id=attempt.id,
                job_id=attempt.job_id,
                reason=str(reason),
                scope="final",
                detail=why,
                digest=sha256_hex(why.encode("utf-8")),
                received_at=now,
            )
            await attempt_store.add_refusal(session, row)
            run_id = await end_unstarted(session, attempt, AttemptState.REFUSED, why, now)
        _log.warning("job_not_taken", attempt=message.correlation_id, provider=to.provider, reason=reason)
        if run_id is not None:
            self._bells.run_changed(run_id)
