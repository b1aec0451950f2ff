"""Builds and signs the answer to a claim: the grant with all that the job needs, sealed to this claim alone.

The secrets and the store ticket are encrypted to the claim's one-time key (`schemas.sealing`), so that only the worker
that got the grant can open them, and only for this attempt. The ticket lets the worker's key read exactly the blobs
that the job names and write under the attempt's own prefix.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgpack
from sqlalchemy.ext.asyncio import AsyncSession

from broker.decisions.budget import Reservation, reserve
from broker.dispatch.order_building import JobFacts, gather_facts
from broker.providers.costs import read_rate_card
from broker.store import attempts as attempt_store
from broker.store import projects as project_store
from broker.store import providers as provider_store
from broker.store import runs as run_store
from broker.tables import RateCardRow
from broker.vault import Vault
from broker.voice import Signed, Voice
from runtime.clock import Clock
from runtime.errors import OurFault
from schemas import limits
from schemas.ids import store_audience
from schemas.orders import Grant, GrantSecrets, StandDown
from schemas.refusals import Reason
from schemas.reports import Claim
from schemas.sealing import seal_for_claim
from schemas.tickets import StoreTicket

ANSWER_SECONDS = 4 * limits.GRANT_SECONDS
"""An answer that comes later helps nobody: the worker has let go of its claim."""


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """What a grant is made of: the job, and its secrets as they lie in the database."""

    job: JobFacts
    boxes: dict[str, bytes]
    reservation: Reservation | None
    """What the job may cost by time; None while the rate card that the order cites is not at hand, or cannot tell."""


async def gather_grant(session: AsyncSession, attempt_id: str) -> GrantFacts:
    """Read what a grant of this attempt needs."""
    attempt = await attempt_store.attempt(session, attempt_id)
    if attempt is None:
        raise OurFault(f"the attempt {attempt_id} is gone")
    job = await run_store.job_by_id(session, attempt.job_id)
    facts = (await gather_facts(session, job.run_id, [job]))[0]
    boxes = await project_store.secret_boxes(session, facts.project, facts.spec.secrets)
    card = await provider_store.rate_card(session, attempt.rate_card)
    return GrantFacts(facts, boxes, None if card is None else _reserve(card, facts))


def _reserve(card: RateCardRow, job: JobFacts) -> Reservation | None:
    try:
        return reserve(read_rate_card(card), job.spec.timeout, job.spec.resources.cores)
    except ArithmeticError:  # a stranger's prices, beyond all reckoning
        return None


class Granting:
    """Signs answers to claims."""

    def __init__(self, *, voice: Voice, vault: Vault, lease_seconds: int, clock: Clock) -> None:
        self._voice = voice
        self._vault = vault
        self._lease_seconds = lease_seconds
        self._clock = clock

    async def grant(self, provider: str, claim: Claim, key: bytes, facts: GrantFacts) -> Signed:
        """Sign a grant; raises what `Account.token` raises, or OurFault when a secret does not open."""
        secrets = GrantSecrets(
            secrets={name: self._vault.open(facts.job.project, name, box) for name, box in facts.boxes.items()},
            store_ticket=await self._ticket(facts.job, claim, key),
        )
        plaintext: bytes = msgpack.packb(secrets.model_dump(), use_bin_type=True)
        return await self._order(
            provider,
            Grant,
            claim,
            lease_seconds=self._lease_seconds,
            sealed=seal_for_claim(plaintext, claim.grant_key, attempt=claim.attempt, claim=claim.claim),
        )

    async def stand_down(self, provider: str, claim: Claim, reason: Reason) -> Signed:
        return await self._order(provider, StandDown, claim, reason=reason)

    async def _order(self, provider: str, model: type[Grant] | type[StandDown], claim: Claim, **fields: Any) -> Signed:
        return await self._voice.order(
            provider, model, good_for_seconds=ANSWER_SECONDS, attempt=claim.attempt, claim=claim.claim, **fields
        )

    async def _ticket(self, job: JobFacts, claim: Claim, key: bytes) -> bytes | None:
        if job.store is None:
            return None
        source = () if job.source_is_inline else (job.source_digest,)
        lives = timedelta(seconds=job.spec.timeout + limits.STORE_TAB_GRACE_SECONDS)
        return await self._voice.speaker.ticket(
            store_audience(job.store),
            StoreTicket,
            holder_key=key,
            attempt=claim.attempt,
            reads=tuple({*source, *(file.digest for file in job.inputs)}),
            write_prefix=f"{job.project}/{job.run}/{job.name}/{claim.attempt}/",
            write_bytes=limits.JOB_ARTIFACT_BYTES if job.spec.artifacts else 0,
            tab_ends_at=self._clock.now() + lives,
        )
