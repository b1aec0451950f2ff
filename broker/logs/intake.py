"""Takes in log chunks from one provider: verified, written at their offset, indexed, then acknowledged (DESIGN §7.3).

A chunk counts only for a claim that was granted; others are fenced, so that no worker writes into a job that is not
its own. The verifying key is the one that the claim recorded. A claim's facts are kept in memory once read: they do
not change.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from broker.bells import Bells
from broker.decisions.settling import Ranges
from broker.ingest.settlement import Settlement
from broker.logs.files import LogFiles, Taken
from broker.store import claims as claim_store
from broker.store import providers as provider_store
from broker.tables import Answer, ClaimRow
from broker.voice import Voice
from identity.trust import verify_report
from runtime.clock import Clock
from runtime.database import Database
from runtime.logging import get_logger
from schemas import frame
from schemas.refusals import Reason, Refusal
from schemas.reports import Log

_log = get_logger(__name__)
_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class _Known:
    """What never changes about a claim."""

    key: bytes
    worker: str
    attempt: str
    is_granted: bool


class LogIntake:
    """The log queue of one provider."""

    def __init__(
        self,
        provider: str,
        *,
        voice: Voice,
        database: Database,
        logs: LogFiles,
        settlement: Settlement,
        bells: Bells,
        clock: Clock,
    ) -> None:
        self._provider = provider
        self._voice = voice
        self._database = database
        self._logs = logs
        self._settlement = settlement
        self._bells = bells
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self.refused: dict[str, int] = {}

    async def take(self, raws: Sequence[bytes]) -> None:
        """Take in a batch; when this returns, all of it is on the disk and indexed.

        At least once: after a cancel or an error the batch may come again, and changes nothing then. Raises WorldFault
        when the database cannot, OSError when the disk cannot.
        """
        chunks: dict[str, list[Log]] = defaultdict(list)
        for raw in raws:
            chunk = await self._read(raw)
            if isinstance(chunk, Refusal):
                self.refused[chunk.reason] = self.refused.get(chunk.reason, 0) + 1
                _log.warning("log_refused", provider=self._provider, reason=chunk.reason, detail=chunk.detail)
            else:
                chunks[chunk.claim].append(chunk)
        if chunks:
            await self._write(chunks)
            self._settlement.wake.set()

    async def _read(self, raw: bytes) -> Log | Refusal:
        opened = frame.split(raw)
        if isinstance(opened, Refusal):
            return opened
        if opened.type != Log.TYPE:
            return Refusal(Reason.WRONG_KIND, f"{opened.type} is not for the queue of logs")
        unverified = Log.from_payload(opened.payload)
        if isinstance(unverified, Refusal):
            return unverified
        known = await self._claim(unverified.claim)
        if known is None:
            return Refusal(Reason.UNKNOWN_CLAIM, f"no claim {unverified.claim} is recorded here")
        signed = verify_report(raw, key=known.key, audience=self._voice.audience)
        if isinstance(signed, Refusal):
            return signed
        said = signed.message
        facts = (said.provider, said.agent, said.attempt)
        if not isinstance(said, Log) or facts != (self._provider, known.worker, known.attempt):
            return Refusal(Reason.IDENTITY_MISMATCH, "the chunk names another attempt or worker than its claim")
        if not known.is_granted:
            return Refusal(Reason.UNKNOWN_CLAIM, "this claim was not granted")
        return said

    async def _claim(self, claim_id: str) -> _Known | None:
        if claim_id not in self._known:
            async with self._database.read() as session:
                row = await claim_store.claim(session, claim_id)
            if row is None or row.provider != self._provider:
                return None
            if len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[claim_id] = _known(row)
        return self._known[claim_id]

    async def _write(self, chunks: dict[str, list[Log]]) -> None:
        async with self._database.read() as session:
            rows = await claim_store.claims_by_ids(session, chunks)
        ranges = {row.id: claim_store.ranges_of(row) for row in rows}
        taken = await asyncio.to_thread(self._take_all, ranges, chunks)
        async with self._database.write() as session:
            for claim_id, each in taken.items():
                await claim_store.save_ranges(session, claim_id, each.ranges)
                for detail in each.refused:
                    await provider_store.raise_alarm(
                        session, self._provider, "log-refused", claim_id, detail, self._clock.now()
                    )
        for claim_id in taken:
            self._bells.log_grew(claim_id)

    def _take_all(self, ranges: dict[str, Ranges], chunks: dict[str, list[Log]]) -> dict[str, Taken]:
        return {claim_id: self._logs.take(claim_id, known, chunks[claim_id]) for claim_id, known in ranges.items()}


def _known(row: ClaimRow) -> _Known:
    return _Known(row.key, row.worker, row.attempt_id, row.answer is Answer.GRANT)
