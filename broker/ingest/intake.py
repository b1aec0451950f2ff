"""Takes in what came over one provider's reply queue: verify, decide, and apply a batch in one transaction (DESIGN §7).

The order of things for a batch: every message is verified (`reading`); answers to claims are decided and signed;
one transaction applies all of it, dedupe rows, effects and answers together, and asks every decision again, so that an
answer that no longer fits is never sent; then the bells ring and follow-ups go out; then the caller acknowledges. A
message that comes twice finds its row: the same bytes change nothing, other bytes under the same key are an alarm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from broker.bells import Bells
from broker.decisions.budget import Reservation
from broker.decisions.claims import ClaimedAttempt, GrantIt, StandDownIt, decide_claim
from broker.dispatch.outgoing import Outgoing
from broker.ingest.applying import Applied, apply_refused, apply_report, apply_stray, apply_usage, raise_equivocation
from broker.ingest.follow_ups import FollowUps
from broker.ingest.granting import GrantFacts, Granting, gather_grant
from broker.ingest.lease_watch import Leases
from broker.ingest.reading import Came, ClaimCame, Reader, RefusedCame, ReportCame, StrayCame, UsageCame
from broker.ingest.settlement import Settlement
from broker.store import attempts as attempt_store
from broker.store import claims as claim_store
from broker.store import runs as run_store
from broker.tables import Answer, AttemptRow, ClaimRow, ClaimState, OrphanRow
from broker.voice import Signed
from identity.trust import Seen, settle_duplicate
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import OurFault, PeerFault, WorldFault
from runtime.logging import get_logger
from schemas.life import AttemptState, JobState
from schemas.refusals import Reason, Refusal

_log = get_logger(__name__)
_TRIES = 3
Decision = GrantIt | StandDownIt


@dataclass(frozen=True, slots=True)
class Prepared:
    """An answer, signed ahead; `signed` is None when no token was to be had (`trouble` says why)."""

    decision: Decision
    signed: Signed | None
    trouble: str | None = None
    reservation: Reservation | None = None


@dataclass
class _Answers:
    """Those of one batch. An issuer that is away is asked once for all of them: each question may last seconds."""

    prepared: dict[str, Prepared] = field(default_factory=dict)
    granted: dict[str, str] = field(default_factory=dict)
    away: WorldFault | None = None


class _Outdated(Exception):
    """A signed answer no longer fits what the database says; it must be prepared anew."""


@dataclass
class IntakeCounts:
    """For metrics: how many messages were taken in, and how many were refused, by reason."""

    taken: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class Intake:
    """The reply queue of one provider."""

    def __init__(
        self,
        provider: str,
        *,
        reader: Reader,
        granting: Granting,
        outgoing: Outgoing,
        follow_ups: FollowUps,
        database: Database,
        leases: Leases,
        settlement: Settlement,
        bells: Bells,
        clock: Clock,
    ) -> None:
        self._provider = provider
        self._reader = reader
        self._granting = granting
        self._outgoing = outgoing
        self._follow_ups = follow_ups
        self._database = database
        self._leases = leases
        self._settlement = settlement
        self._bells = bells
        self._clock = clock
        self.counts = IntakeCounts()

    async def take(self, raws: Sequence[bytes]) -> None:
        """Take in a batch; when this returns, all of it is stored and may be acknowledged.

        At least once: after a cancel or an error the batch may come again. Raises WorldFault when the database cannot.
        """
        items = [item for raw in raws if (item := await self._read(raw)) is not None]
        try:
            await self._take_together(items)
        except (IntegrityError, _Outdated):
            # One of them contradicts a constraint, or changes what a claim behind it is answered with (a refusal and
            # the next worker's claim): the others must not suffer for it, nor wait for it for ever.
            for item in items:
                await self._take_alone(item)

    async def _read(self, raw: bytes) -> Came | None:
        came = await self._reader.read(raw)
        if not isinstance(came, Refusal):
            self.counts.taken += 1
            return came
        self.counts.refused[came.reason] = self.counts.refused.get(came.reason, 0) + 1
        _log.warning("reply_refused", provider=self._provider, reason=came.reason, detail=came.detail)
        return None

    async def _take_alone(self, item: Came) -> None:
        for _ in range(_TRIES):
            try:
                await self._take_together([item])
            except _Outdated:
                continue
            except IntegrityError as error:
                _log.error("reply_contradicts", provider=self._provider, reason=str(error.orig))
            return
        raise WorldFault("the claim's attempt changed faster than the claim could be answered")

    async def _take_together(self, items: Sequence[Came]) -> None:
        """Apply these in one transaction; raises _Outdated when an answer does not fit any more."""
        prepared = await self._prepare(items)
        applied = Applied()
        async with self._database.write() as session:
            for item in items:
                await self._apply(session, item, prepared, applied)
        await self._tell(applied)

    async def _tell(self, applied: Applied) -> None:
        for claim_id in applied.heard:
            self._leases.heard(claim_id)
        for run_id in applied.runs:
            self._bells.run_changed(run_id)
        for run_id in applied.progressed:
            self._bells.run_progressed(run_id)
        for claim_id in applied.ended:
            self._bells.log_grew(claim_id)
        if applied.ended:
            self._settlement.wake.set()
        if applied.runs or applied.has_claims:
            self._bells.watch.set()
        if applied.is_usage_new or applied.ended:
            self._bells.receipts.set()
        await self._follow_ups.send(applied.follow_ups)

    async def _prepare(self, items: Sequence[Came]) -> dict[str, Prepared]:
        """Decide and sign the answers to the claims among these messages."""
        answers = _Answers()
        for item in items:
            if isinstance(item, ClaimCame) and item.claim.claim not in answers.prepared:
                answers.prepared[item.claim.claim] = await self._prepare_one(item, answers)
        return answers.prepared

    async def _prepare_one(self, item: ClaimCame, answers: _Answers) -> Prepared:
        claim = item.claim
        async with self._database.read() as session:
            attempt = await attempt_store.attempt(session, claim.attempt)
            decision = await self._decide(session, attempt, answers.granted.get(claim.attempt))
            facts = await gather_grant(session, claim.attempt) if isinstance(decision, GrantIt) else None
        try:
            signed = await self._sign(item, decision, facts, answers)
        except (WorldFault, PeerFault, OurFault) as error:
            _log.warning("claim_unanswered", claim=claim.claim, attempt=claim.attempt, reason=str(error))
            return Prepared(decision, None, str(error))
        if isinstance(decision, GrantIt):
            answers.granted[claim.attempt] = claim.claim
        return Prepared(decision, signed, reservation=facts.reservation if facts else None)

    async def _sign(self, item: ClaimCame, decision: Decision, facts: GrantFacts | None, answers: _Answers) -> Signed:
        if answers.away is not None:
            raise answers.away
        try:
            if facts is not None:
                return await self._granting.grant(self._provider, item.claim, item.verified.key, facts)
            reason = decision.reason if isinstance(decision, StandDownIt) else Reason.ATTEMPT_NOT_CURRENT
            return await self._granting.stand_down(self._provider, item.claim, reason)
        except WorldFault as fault:
            answers.away = fault
            raise

    async def _decide(self, session: AsyncSession, attempt: AttemptRow | None, granted: str | None) -> Decision:
        if attempt is None:
            return decide_claim(None, self._provider)
        job = await run_store.job_by_id(session, attempt.job_id)
        run = await run_store.run(session, job.run_id)
        known = await claim_store.granted_claim(session, attempt.id)
        return decide_claim(
            ClaimedAttempt(
                attempt=attempt.id,
                provider=attempt.provider,
                state=attempt.state,
                is_current=attempt.is_current,
                is_cancelled=run is not None and run.cancelled_at is not None,
                granted_claim=granted or (known.id if known else None),
            ),
            self._provider,
        )

    async def _apply(self, session: AsyncSession, item: Came, prepared: dict[str, Prepared], applied: Applied) -> None:
        now = self._clock.now()
        match item:
            case ClaimCame():
                await self._apply_claim(session, item, prepared[item.claim.claim], applied)
            case RefusedCame():
                await apply_refused(session, self._provider, item, applied, now)
            case ReportCame():
                await apply_report(session, self._provider, item, applied, now)
            case StrayCame():
                await apply_stray(session, self._provider, item, applied, now)
            case UsageCame():
                await apply_usage(session, self._provider, item, applied, now)

    async def _apply_claim(self, session: AsyncSession, item: ClaimCame, prepared: Prepared, applied: Applied) -> None:
        known = await claim_store.claim(session, item.claim.claim)
        seen = settle_duplicate(known.digest if known else None, item.verified.digest)
        if isinstance(seen, Refusal):
            await raise_equivocation(session, self._provider, item.claim.claim, "claim", self._clock.now())
        if seen is not Seen.NEW:
            return
        if not await claim_store.may_be_claimed(session, item.claim.attempt):
            _log.error("claim_flood", provider=self._provider, attempt=item.claim.attempt, worker=item.claim.agent)
            return
        attempt = await attempt_store.attempt(session, item.claim.attempt)
        if await self._decide(session, attempt, None) != prepared.decision:
            raise _Outdated
        if attempt is None:
            await self._keep_orphan(session, item)
        else:
            await self._record_claim(session, item, attempt, prepared, applied)
        if prepared.signed is not None:
            signed = prepared.signed
            worker = item.claim.agent
            self._outgoing.order(session, self._provider, worker, signed.raw, item.claim.attempt, signed.expires_at)

    async def _keep_orphan(self, session: AsyncSession, item: ClaimCame) -> None:
        claim = item.claim
        row = OrphanRow(
            claim_id=claim.claim,
            attempt_id=claim.attempt,
            provider=self._provider,
            worker=claim.agent,
            raw=item.verified.raw,
            seen_at=self._clock.now(),
        )
        await claim_store.add_orphan(session, row)

    async def _record_claim(
        self, session: AsyncSession, item: ClaimCame, attempt: AttemptRow, prepared: Prepared, applied: Applied
    ) -> None:
        is_granted = isinstance(prepared.decision, GrantIt) and prepared.signed is not None
        await claim_store.add_claim(session, self._claim_row(item, prepared, is_granted))
        if isinstance(prepared.decision, StandDownIt):
            return
        now = self._clock.now()
        job = await run_store.job_by_id(session, attempt.job_id)
        attempt.state = AttemptState.GRANTED if is_granted else AttemptState.CLAIMED
        attempt.why = prepared.trouble
        if is_granted:
            attempt.granted_at = now
            attempt.reserved = None if prepared.reservation is None else str(prepared.reservation)
            values = {"started_at": job.started_at or now, "waiting_for": []}
            await run_store.move_job(session, job, JobState.RUNNING, now, **values)
            applied.heard.add(item.claim.claim)
        await session.flush()
        applied.progressed.add(job.run_id)
        applied.has_claims = True
        _log.info("claim_granted" if is_granted else "claim_kept", claim=item.claim.claim, attempt=attempt.id)

    def _claim_row(self, item: ClaimCame, prepared: Prepared, is_granted: bool) -> ClaimRow:
        now, claim, verified = self._clock.now(), item.claim, item.verified
        stands_down = prepared.decision if isinstance(prepared.decision, StandDownIt) else None
        answer = Answer.GRANT if is_granted else Answer.STAND_DOWN if stands_down is not None else None
        return ClaimRow(
            id=claim.claim,
            attempt_id=claim.attempt,
            provider=self._provider,
            worker=claim.agent,
            key=verified.key,
            iss=verified.principal.iss,
            sub=verified.principal.sub,
            token_id=verified.token_id,
            digest=verified.digest,
            raw=verified.raw,
            answer=answer,
            answer_reason=str(stands_down.reason) if stands_down else prepared.trouble,
            state=ClaimState.OPEN if stands_down is None else ClaimState.SETTLED,
            claimed_at=now,
            heard_at=now,
            log_ranges=[],
            resends=0,
            is_cancel_sent=False,
        )
