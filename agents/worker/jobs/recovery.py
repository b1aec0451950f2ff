"""What a new start does with the claims of the life before it (DESIGN §7.5, §13).

| the journal says | then |
|---|---|
| `claiming`, `claimed`: it never ran | released; if its job comes again, it is claimed anew |
| `granted`: it ran when the worker died | what is left of it is killed; `finished`, worker-restarted, at once |
| `over`: reported, not settled | the rest of its log is sent; the outbox sends the rest |
| a log without a claim | deleted |

Runs before anything is taken from the bus, and needs neither bus nor issuer: reports carry no token.
"""

from datetime import datetime, timedelta

from agents.sandbox.causes import Cause
from agents.sandbox.executor import Executor
from agents.worker.jobs.ending import KILLED
from agents.worker.jobs.farewell import Farewell, LogEnd
from agents.worker.jobs.metering import measure
from agents.worker.jobs.work import Done
from agents.worker.journal.claims import ClaimEntry, ClaimState, Journal
from agents.worker.orders.claims import Claims
from agents.worker.speech.logs import Logs
from agents.worker.speech.post import KEEP_DAYS, Post
from agents.worker.speech.voice import ClaimRef
from runtime.logging import get_logger
from schemas.refusals import Reason

REMIND_AFTER = timedelta(minutes=15)
"""Three times as long as an order waits at the bus for a worker that is away."""
_log = get_logger(__name__)


async def recover(*, executor: Executor, claims: Claims, farewell: Farewell, journal: Journal, logs: Logs) -> None:
    """Bring the journal's claims to where this life can go on from."""
    for job_id in await executor.reap():
        _log.warning("sandbox_reaped", job_id=job_id)
    for entry in await journal.claims((ClaimState.CLAIMING, ClaimState.CLAIMED)):
        await claims.release(_ref(entry), Reason.DRAINING)
    for entry in await journal.claims((ClaimState.OVER,)):
        if not entry.is_log_whole:
            await logs.resume(entry)
    for entry in await journal.claims((ClaimState.GRANTED,)):
        await _report_interrupted(entry, farewell, logs)
    known = frozenset(entry.claim for entry in await journal.claims())
    for claim in logs.orphans(known):
        await logs.forget(claim)


async def forget_the_old(journal: Journal, logs: Logs, now: datetime) -> None:
    """Give up what no controller has settled for `KEEP_DAYS`: its messages have expired too, and the disk is finite."""
    for entry in await journal.claims((ClaimState.OVER,)):
        if entry.over_at is not None and now - entry.over_at > timedelta(days=KEEP_DAYS):
            await logs.forget(entry.claim)
            await journal.forget(entry.claim)
            _log.warning("unsettled_claim_forgotten", attempt=entry.attempt, claim=entry.claim, tenant=entry.tenant)
    await journal.prune(now)


async def remind_of_ends(journal: Journal, post: Post, now: datetime) -> None:
    """Say again the ends that nobody has settled for a while: `settled` lives minutes, and may have been lost."""
    for entry in await journal.claims((ClaimState.OVER,)):
        is_due = entry.over_at is not None and now - entry.over_at > REMIND_AFTER
        if is_due and not await journal.has_unsent(entry.attempt):
            reports = await journal.kept_reports(entry.claim)
            await journal.enqueue(
                [post.to_tenant(entry.tenant, body, attempt=entry.attempt, now=now) for body in reports]
            )


async def _report_interrupted(entry: ClaimEntry, farewell: Farewell, logs: Logs) -> None:
    stream = await logs.open(_ref(entry), entry.log_acknowledged)
    log = LogEnd(stream.length, await stream.close())
    started_at = entry.granted_at or entry.claimed_at
    # It was seen alive last when it took its last report number; what came after is nobody's to bill.
    measured = measure(started_at, entry.alive_at or started_at, None, log.length)
    await farewell.say(_ref(entry), entry.job, Done(KILLED[Cause.WORKER_GONE]), measured, log)


def _ref(entry: ClaimEntry) -> ClaimRef:
    return ClaimRef(entry.tenant, entry.attempt, entry.claim)
