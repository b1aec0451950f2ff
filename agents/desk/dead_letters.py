"""An answer for every order that found no worker: the desk reads the dead letters and refuses each, signed (DESIGN §6).

A job is dead-lettered when its time at the bus ran out, or when workers gave it back too often. Its owner must learn
of it either way. The refusal goes to the owner of the exchange that the letter came through, for which the bus
vouches; the letter itself is read unverified, because its token may well be over by now, and because whatever it says
only ever goes back to the one who could have written it.
"""

from dataclasses import dataclass
from datetime import datetime

from agents.desk import store
from bus.topology import ProviderNames, dead_letter_origin
from identity.speech import Speaker
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import OurFault, PeerFault
from schemas import frame, limits, registry
from schemas.ids import sha256_hex
from schemas.orders import Job
from schemas.refusals import Reason, Refusal
from schemas.reports import Refused


@dataclass(frozen=True, slots=True)
class Answer:
    """A sealed refusal, and the exchange that it goes to."""

    exchange: str
    body: bytes
    attempt: str | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a letter, in the words of its refusal."""

    attempt: str | None
    reason: Reason
    detail: str


class DeadLetters:
    """Makes the answers; carrying letters in and answers out is the wiring's."""

    def __init__(self, provider: str, agent: str, speaker: Speaker, database: Database, clock: Clock) -> None:
        self._provider = provider
        self._agent = agent
        self._names = ProviderNames(provider)
        self._speaker = speaker
        self._database = database
        self._clock = clock

    async def answer(self, raw: bytes, routing_key: str) -> Answer | Refusal:
        """The signed refusal for one dead letter, or why there is nobody to answer.

        Raises WorldFault while the database or the issuer of the sender's account is away: the letter must be kept.
        """
        origin = dead_letter_origin(routing_key)
        if origin is None:
            return Refusal(Reason.WRONG_ORIGIN, "the letter did not come through a tenant's queue")
        async with self._database.read() as session:
            tenant = await store.tenant(session, origin.tenant)
        if tenant is None:
            return Refusal(Reason.NOT_FOUND, "the letter's tenant is gone")
        verdict = judge(raw, self._clock.now())
        try:
            body = await self._speaker.introduction(
                origin.tenant,
                Refused,
                issuer=tenant.iss,
                provider=self._provider,
                agent=self._agent,
                subject=sha256_hex(raw),
                attempt=verdict.attempt,
                reason=verdict.reason,
                scope="final",
                detail=verdict.detail,
            )
        except (OurFault, PeerFault) as fault:
            return Refusal(Reason.NOT_ADMITTED, f"this desk cannot speak under {tenant.iss}: {fault.what}")
        return Answer(self._names.replies(origin.tenant), body, verdict.attempt, verdict.reason)


def judge(raw: bytes, now: datetime) -> Verdict:
    """What a dead letter was about, as far as it can be read, and why nobody took it."""
    envelope = frame.split(raw, limits.BUS_MESSAGE_BYTES)
    if isinstance(envelope, Refusal):
        return Verdict(None, envelope.reason, envelope.detail)
    model = registry.find(envelope.type)
    if isinstance(model, Refusal):
        return Verdict(None, model.reason, model.detail)
    job = Job.from_payload(envelope.payload) if model is Job else Refusal(Reason.WRONG_KIND, "not a job")
    if isinstance(job, Refusal):
        return Verdict(None, job.reason, job.detail)
    if job.expires_at <= now:
        return Verdict(job.attempt, Reason.EXPIRED, "no worker of the pool had room before the order's time was over")
    return Verdict(job.attempt, Reason.UNDELIVERED, "the pool's workers took the order and gave it back too often")
