"""Answers usage events with signed receipts, in batches (DESIGN §9).

Woken when usage came or a claim was closed. What can be judged by now is judged (`decisions.witness`) against what this
controller saw; events with the same verdict share a receipt. The receipt, the verdicts and the outbox row are one
transaction, so no event is answered twice, and none is forgotten: what is unanswered is found again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession

from broker.bells import Bells, wait_for
from broker.decisions.settling import contiguous
from broker.decisions.witness import Verdict, Witnessed, judge_usage
from broker.dispatch.outgoing import Outgoing
from broker.ingest.outcomes import spec_of
from broker.providers.book import Book
from broker.store import attempts as attempt_store
from broker.store import claims as claim_store
from broker.store import runs as run_store
from broker.store import usage as usage_store
from broker.tables import AttemptRow, ClaimRow, ReceiptRow, UsageRow
from broker.voice import Voice
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import OurFault, PeerFault, WorldFault
from runtime.logging import get_logger
from schemas import frame, ids
from schemas.life import AttemptState
from schemas.refusals import Refusal
from schemas.statements import Usage

_log = get_logger(__name__)
_BATCH = 500
_LINGER_SECONDS = 1.0
_LOOK_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """What this controller saw of an attempt."""

    attempt: AttemptRow
    claim: ClaimRow | None
    cores: int


class Receipts:
    """The witness of this controller; one task runs it."""

    def __init__(
        self, *, database: Database, book: Book, voice: Voice, outgoing: Outgoing, bells: Bells, clock: Clock
    ) -> None:
        self._database = database
        self._book = book
        self._voice = voice
        self._outgoing = outgoing
        self._bells = bells
        self._clock = clock

    async def run(self) -> None:
        """Answer until cancelled."""
        rest: float = 0
        while True:
            await wait_for(self._bells.receipts, rest)
            # The events of one job come one after another: together they make one receipt.
            await asyncio.sleep(_LINGER_SECONDS)
            self._bells.receipts.clear()
            rest = _LOOK_SECONDS
            try:
                while await self.answer():
                    pass
            except (WorldFault, PeerFault) as error:
                _log.warning("receipts_wait", reason=str(error))
                rest = 15.0

    async def answer(self) -> int:
        """Answer what can be answered, at most one batch; return how many events that were."""
        async with self._database.read() as session:
            rows = await usage_store.unanswered(session, _BATCH)
            groups: dict[tuple[str, Verdict], list[UsageRow]] = defaultdict(list)
            attempts = {row.attempt_id: await _seen(session, row.attempt_id) for row in _one_each(rows)}
            for row in rows:
                groups[(row.provider, await self._judge(session, row, attempts[row.attempt_id]))].append(row)
        for (provider, verdict), events in groups.items():
            await self._sign(provider, verdict, events)
        return len(rows)

    async def _judge(self, session: AsyncSession, row: UsageRow, seen: _Seen | None) -> Verdict:
        usage = usage_of(row)
        witnessed = await _witnessed(session, row, seen) if seen is not None else None
        is_our_store = self._book.store_of(usage.provider) is not None
        return judge_usage(usage, witnessed, is_our_store=is_our_store)

    async def _sign(self, provider: str, verdict: Verdict, events: Sequence[UsageRow]) -> None:
        receipt_id = ids.new_message_id()
        raw = await self._voice.speaker.receipt(
            provider,
            id=receipt_id,
            events=tuple(row.digest for row in events),
            verdict=verdict.verdict,
            reason=verdict.reason,
        )
        receipt = ReceiptRow(id=receipt_id, provider=provider, raw=raw, made_at=self._clock.now())
        async with self._database.write() as session:
            await usage_store.add_receipt(session, receipt, [row.position for row in events], verdict)
            self._outgoing.receipt(session, provider, raw, receipt_id)
        _log.info("receipt", provider=provider, events=len(events), verdict=verdict.verdict, reason=verdict.reason)


def _one_each(rows: Iterable[UsageRow]) -> Iterable[UsageRow]:
    """One row of each attempt: what is seen of it is the same for all."""
    return {row.attempt_id: row for row in rows}.values()


async def _seen(session: AsyncSession, attempt_id: str | None) -> _Seen | None:
    attempt = None if attempt_id is None else await attempt_store.attempt(session, attempt_id)
    if attempt is None:
        return None
    claim = await claim_store.granted_claim(session, attempt.id)
    job = await run_store.job_by_id(session, attempt.job_id)
    return _Seen(attempt, claim, spec_of(job).resources.cores)


async def _witnessed(session: AsyncSession, row: UsageRow, seen: _Seen) -> Witnessed:
    attempt, claim = seen.attempt, seen.claim
    before = [usage_of(known).quantity for known in await usage_store.earlier(session, row)]
    return Witnessed(
        provider=attempt.provider,
        store=attempt.store,
        claim=claim.id if claim else None,
        rate_card=attempt.rate_card,
        seconds=_seconds(attempt),
        log_bytes=contiguous(claim_store.ranges_of(claim)) if claim else 0,
        end=attempt.end_reason,
        was_lost=attempt.state is AttemptState.LOST,
        cores=seen.cores,
        before=sum(before, Decimal(0)),
    )


def usage_of(row: UsageRow) -> Usage:
    """The usage event of a row, from the bytes that were verified when they came."""
    opened = frame.split(row.raw)
    usage = opened if isinstance(opened, Refusal) else Usage.from_payload(opened.payload)
    if isinstance(usage, Refusal):
        raise OurFault(f"a stored usage event cannot be read: {usage}", remedy="Restore the database from a backup.")
    return usage


def _seconds(attempt: AttemptRow) -> float:
    if attempt.granted_at is None or attempt.ended_at is None:
        return 0.0
    return (attempt.ended_at - attempt.granted_at).total_seconds()
