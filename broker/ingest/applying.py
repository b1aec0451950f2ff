"""Applies what an agent reported to the rows, inside the intake's transaction: refusals, reports, strays, usage.

What follows for the worker (cancel, settled) is only noted here; `broker.ingest.follow_ups` says it afterwards.
"""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from broker.decisions.reports import ClaimStanding, Effect, Ended, Fenced, Progressed, Unstarted, decide_report
from broker.ingest.follow_ups import FollowUp
from broker.ingest.outcomes import end_ran, end_unstarted
from broker.ingest.reading import RefusedCame, ReportCame, StrayCame, UsageCame, check_claim
from broker.store import attempts as attempt_store
from broker.store import claims as claim_store
from broker.store import providers as provider_store
from broker.store import runs as run_store
from broker.store import usage as usage_store
from broker.tables import Answer, AttemptRow, ClaimRow, ClaimState, OrphanRow, RefusalRow, ReportRow
from identity.trust import Seen, SignedBy, settle_duplicate
from runtime.logging import get_logger
from schemas.life import AttemptState
from schemas.orders import Cancel, Settled
from schemas.refusals import Refusal
from schemas.reports import ClaimReport, Finished, Heartbeat, Released

_log = get_logger(__name__)


@dataclass
class Applied:
    """What a batch changed: for the bells, the leases, and the worker."""

    runs: set[str] = field(default_factory=set)
    progressed: set[str] = field(default_factory=set)
    """Runs of which a job began or is further: something to look at, nothing to dispatch."""
    has_claims: bool = False
    heard: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    follow_ups: list[FollowUp] = field(default_factory=list)
    is_usage_new: bool = False


async def raise_equivocation(session: AsyncSession, provider: str, about: str, kind: str, now: datetime) -> None:
    """Two different messages under one key of identity: recorded, shown, and the first one stays."""
    detail = f"two different {kind}s were signed under {about}; the first one counts"
    if await provider_store.raise_alarm(session, provider, f"equivocation-{kind}", about, detail, now):
        _log.error("equivocation", provider=provider, kind=kind, about=about)


# -- Refusals


async def apply_refused(
    session: AsyncSession, provider: str, item: RefusedCame, applied: Applied, now: datetime
) -> None:
    """Record a refusal; it ends its attempt if it is about the very order that we sent there, and nobody claimed it."""
    said = item.refused
    attempt = await attempt_store.attempt(session, said.attempt) if said.attempt is not None else None
    is_ours = attempt is not None and attempt.provider == provider and attempt.order_digest == said.subject
    row = RefusalRow(
        provider=provider,
        agent=said.agent,
        subject=said.subject,
        attempt_id=said.attempt,
        job_id=attempt.job_id if attempt is not None and is_ours else None,
        reason=str(said.reason),
        scope=said.scope,
        detail=said.detail,
        digest=item.verified.digest,
        received_at=now,
    )
    known = await attempt_store.add_refusal(session, row)
    if known is not None:
        # An agent that refuses twice says it in other bytes (another time); what it refuses is the same.
        return
    _log.info("refused", provider=provider, agent=said.agent, reason=said.reason, attempt=said.attempt)
    if attempt is None or not is_ours:
        return
    why = f"{said.agent} at {provider} refused it: {said.reason}{f' ({said.detail})' if said.detail else ''}"
    run_id = await end_unstarted(session, attempt, AttemptState.REFUSED, why, now)
    if run_id is not None:
        applied.runs.add(run_id)


# -- Reports of recorded claims


async def apply_report(session: AsyncSession, provider: str, item: ReportCame, applied: Applied, now: datetime) -> None:
    """Record a report and carry out its effect, once."""
    said = item.signed.message
    claim = await claim_store.claim(session, said.claim) or item.claim
    known = await claim_store.report(session, said.claim, said.sequence)
    seen = settle_duplicate(known.digest if known else None, item.signed.digest)
    if isinstance(seen, Refusal):
        await raise_equivocation(session, provider, f"{said.claim} {said.sequence}", "report", now)
        return
    if seen is Seen.REDELIVERY:
        _repeat_follow_ups(said, claim, applied)
        return
    attempt = await attempt_store.attempt(session, claim.attempt_id)
    if attempt is None:
        return
    effect = decide_report(said, await _standing(session, claim, attempt))
    await claim_store.add_report(session, _report_row(item, effect, now))
    claim.heard_at = now
    await _carry_out(session, item, claim, attempt, effect, applied, now)


async def _standing(session: AsyncSession, claim: ClaimRow, attempt: AttemptRow) -> ClaimStanding:
    latest = await claim_store.latest_claim_id(session, attempt.id)
    return ClaimStanding(
        claim=claim.id,
        is_granted=claim.answer is Answer.GRANT,
        is_latest=latest == claim.id,
        attempt_state=attempt.state,
    )


def _report_row(item: ReportCame, effect: Effect, now: datetime) -> ReportRow:
    said = item.signed.message
    return ReportRow(
        claim_id=said.claim,
        sequence=said.sequence,
        type=said.TYPE,
        digest=item.signed.digest,
        received_at=now,
        fenced=effect.detail if isinstance(effect, Fenced) else None,
    )


async def _carry_out(
    session: AsyncSession,
    item: ReportCame,
    claim: ClaimRow,
    attempt: AttemptRow,
    effect: Effect,
    applied: Applied,
    now: datetime,
) -> None:
    said = item.signed.message
    run_id: str | None = None
    match effect:
        case Progressed() if isinstance(said, Heartbeat):
            claim.step = said.step
            applied.heard.add(claim.id)
            applied.progressed.add(await _note_heartbeat(session, claim, attempt, applied))
        case Ended(reason) if isinstance(said, Finished):
            await attempt_store.add_artifacts(session, attempt, said.artifacts)
            run_id = await end_ran(session, attempt, AttemptState.FINISHED, reason, said.detail, now)
            _close(claim, said, item.signed.raw)
            applied.ended.add(claim.id)
        case Unstarted(reason):
            await _bar_worker(session, attempt, claim.worker, item.signed, str(reason), now)
            why = f"{claim.worker} at {claim.provider} released it: {reason}"
            run_id = await end_unstarted(session, attempt, AttemptState.RELEASED, why, now)
            claim.state = ClaimState.ENDED
            applied.ended.add(claim.id)
        case Fenced():
            _fence(said, claim, item.signed.raw, applied)
        case _:
            pass
    await session.flush()
    if run_id is not None:
        applied.runs.add(run_id)


async def _note_heartbeat(session: AsyncSession, claim: ClaimRow, attempt: AttemptRow, applied: Applied) -> str:
    """A job that was cancelled and still runs is told so again: the first cancel may have been lost on the way."""
    job = await run_store.job_by_id(session, attempt.job_id)
    run = await run_store.run(session, job.run_id)
    if run is not None and run.cancelled_at is not None:
        applied.follow_ups.append(_follow(claim, Cancel, cause="user"))
    return job.run_id


def _close(claim: ClaimRow, said: Finished, raw: bytes) -> None:
    """Keep the end; what its log must be counts only where there was a grant to log under."""
    claim.state = ClaimState.ENDED
    claim.ended_raw = raw
    if claim.answer is Answer.GRANT:
        claim.log_bytes, claim.log_sha256, claim.log_gap = said.log_bytes, said.log_sha256, None


def _fence(said: ClaimReport, claim: ClaimRow, raw: bytes, applied: Applied) -> None:
    """A report without effect: what still runs is to stop, what is over may be forgotten."""
    match said:
        case Finished():
            _close(claim, said, raw)
            applied.ended.add(claim.id)
        case Released():
            claim.state = ClaimState.ENDED
            applied.ended.add(claim.id)
        case _:
            applied.follow_ups.append(_follow(claim, Cancel, cause="superseded"))


def _repeat_follow_ups(said: ClaimReport, claim: ClaimRow, applied: Applied) -> None:
    """The worker says its end again: perhaps it never heard that all of it is here."""
    if isinstance(said, Finished | Released) and claim.state in (ClaimState.SETTLED, ClaimState.INCOMPLETE):
        applied.follow_ups.append(_follow(claim, Settled))


def _follow(claim: ClaimRow, model: type[Cancel] | type[Settled], **fields: str) -> FollowUp:
    return FollowUp(claim.provider, claim.worker, model, claim.attempt_id, claim.id, tuple(fields.items()))


async def _bar_worker(
    session: AsyncSession,
    attempt: AttemptRow,
    worker: str,
    signed: SignedBy[ClaimReport],
    reason: str,
    now: datetime,
) -> None:
    """Remember that this worker let go of the job, so that it is not the next one asked, again and again."""
    row = RefusalRow(
        provider=attempt.provider,
        agent=worker,
        subject=signed.digest,
        attempt_id=attempt.id,
        job_id=attempt.job_id,
        reason=reason,
        scope="here",
        detail="released its claim",
        digest=signed.digest,
        received_at=now,
    )
    await attempt_store.add_refusal(session, row)


# -- Reports of claims that are not recorded here


async def apply_stray(session: AsyncSession, provider: str, item: StrayCame, applied: Applied, now: datetime) -> None:
    """A claim that we never read: let the attempt go if it was released, else keep it as an orphan and stop it."""
    said = item.signed.message
    claim = await claim_store.claim(session, said.claim)
    if claim is not None and claim.key == item.signed.key and check_claim(said, claim, provider) is None:
        # The claim came just before its report, in the same batch.
        await apply_report(session, provider, ReportCame(item.signed, claim), applied, now)
        return
    attempt = await attempt_store.attempt(session, said.attempt)
    is_ours = attempt is not None and attempt.provider == provider
    if attempt is not None and is_ours and isinstance(said, Released) and attempt.state is AttemptState.PUBLISHED:
        await _bar_worker(session, attempt, said.agent, item.signed, str(said.reason), now)
        why = f"{said.agent} at {provider} let go of it before its claim could be read: {said.reason}"
        run_id = await end_unstarted(session, attempt, AttemptState.LOST, why, now)
        applied.runs.update([run_id] if run_id else [])
    elif attempt is None:
        row = OrphanRow(
            claim_id=said.claim,
            attempt_id=said.attempt,
            provider=provider,
            worker=said.agent,
            raw=item.signed.raw,
            seen_at=now,
        )
        if await claim_store.add_orphan(session, row):
            _log.warning("orphan", provider=provider, claim=said.claim, attempt=said.attempt)
    is_over = isinstance(said, Finished | Released)
    fields = () if is_over else (("cause", "orphan"),)
    model = Settled if is_over else Cancel
    applied.follow_ups.append(FollowUp(provider, said.agent, model, said.attempt, said.claim, fields))


# -- Usage


async def apply_usage(session: AsyncSession, provider: str, item: UsageCame, applied: Applied, now: datetime) -> None:
    """Keep a usage fact once; another content under the same id is an alarm."""
    usage = item.signed.message
    known = await usage_store.fact(session, provider, usage.id)
    seen = settle_duplicate(known.digest if known else None, item.signed.digest)
    if isinstance(seen, Refusal):
        await raise_equivocation(session, provider, usage.id, "usage event", now)
    elif seen is Seen.NEW and not await usage_store.is_room_for(session, usage):
        _log.error("usage_flood", provider=provider, agent=usage.agent, attempt=usage.attempt)
    elif seen is Seen.NEW:
        await usage_store.add_fact(session, usage, item.signed.digest, item.signed.raw, now)
        applied.is_usage_new = True
