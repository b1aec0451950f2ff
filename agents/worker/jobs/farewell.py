"""The last words about a job: `finished`, and what it used; in the journal and the outbox in one step.

One place makes them, for a job that ended here and for one that a restart interrupted, so that both say the same kind
of thing. The usage goes to the provider's billing exchange, and a copy of the same bytes to the customer.
"""

from dataclasses import dataclass
from datetime import datetime

from agents.worker.counts import Counts
from agents.worker.jobs.ending import Ending, report_steps
from agents.worker.jobs.metering import Measured, usage_of
from agents.worker.jobs.work import Done
from agents.worker.journal.claims import Journal, KeptReport, Outgoing
from agents.worker.speech.post import Post
from agents.worker.speech.voice import ClaimRef, Voice
from runtime.logging import get_logger
from schemas import limits
from schemas.ends import EndReason
from schemas.orders import Job
from schemas.reports import Finished

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The whole log: how long, and its SHA-256."""

    length: int
    sha256: str


class Farewell:
    def __init__(self, *, journal: Journal, post: Post, voice: Voice, counts: Counts) -> None:
        self._journal = journal
        self._post = post
        self._voice = voice
        self._counts = counts

    async def say(self, ref: ClaimRef, job: Job, done: Done, measured: Measured, log: LogEnd) -> None:
        """Report the end of a job that ran; saying it again changes nothing. Raises WorldFault."""
        sequence = await self._journal.next_sequence(ref.claim, measured.ended_at)
        report, ending = self._finished(ref, sequence, done, measured, log)
        outgoing = [self._to_tenant(ref, report, measured.ended_at)]
        for event in usage_of(self._voice.meterer, job, ref.claim, measured, ending.reason):
            body = self._voice.usage(event)
            billing = self._post.to_billing(ref.tenant, event.meter, body, attempt=ref.attempt, now=measured.ended_at)
            outgoing += [billing, self._to_tenant(ref, body, measured.ended_at)]
        if await self._journal.finish(ref.claim, measured.ended_at, KeptReport(sequence, report), outgoing):
            self._note(ref, ending, measured)

    def _finished(
        self, ref: ClaimRef, sequence: int, done: Done, measured: Measured, log: LogEnd
    ) -> tuple[bytes, Ending]:
        """Seal the report; where its artifacts do not fit into one, the job's artifacts are refused."""
        try:
            return self._seal(ref, sequence, done, measured, log), done.ending
        except ValueError:
            if not done.artifacts:
                raise
            ending = Ending(EndReason.ARTIFACT_REFUSED, "the artifacts' paths do not fit into one report")
            refused = Done(ending, done.use, done.steps)
            return self._seal(ref, sequence, refused, measured, log), ending

    def _seal(self, ref: ClaimRef, sequence: int, done: Done, measured: Measured, log: LogEnd) -> bytes:
        return self._voice.report(
            Finished,
            ref,
            sequence,
            reason=done.ending.reason,
            detail=done.ending.detail[: limits.TEXT_CHARACTERS],
            started_at=measured.started_at,
            ended_at=measured.ended_at,
            steps=report_steps(done.steps),
            log_bytes=log.length,
            log_sha256=log.sha256,
            artifacts=done.artifacts,
            used=measured.used(),
        )

    def _to_tenant(self, ref: ClaimRef, body: bytes, now: datetime) -> Outgoing:
        return self._post.to_tenant(ref.tenant, body, attempt=ref.attempt, now=now)

    def _note(self, ref: ClaimRef, ending: Ending, measured: Measured) -> None:
        self._counts.ended.labels(ending.reason.value).inc()
        self._counts.log_bytes.inc(measured.log_bytes)
        seconds = str(measured.wall_seconds)
        _log.info("job_ended", attempt=ref.attempt, claim=ref.claim, reason=ending.reason, wall_seconds=seconds)
