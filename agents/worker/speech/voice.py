"""What the worker says: claims and refusals with an ID token, all else with its own key alone.

Everything is addressed to the tenant that was computed from the verified principal, never to anything that a payload
names (DESIGN §4). What all messages of a kind say alike is filled in by `identity.speech`.
"""

from dataclasses import dataclass
from typing import Any

from agents.worker.jobs.metering import Meterer
from agents.worker.journal.spool import Cut
from agents.worker.orders.admission import Scope
from identity.speech import Speaker
from schemas import limits, wire
from schemas.refusals import Reason
from schemas.reports import Claim, ClaimReport, Log, Refused
from schemas.statements import Usage


@dataclass(frozen=True, slots=True)
class ClaimRef:
    """Which claim is spoken of, and to whom."""

    tenant: str
    attempt: str
    claim: str


class Voice:
    def __init__(self, meterer: Meterer, speaker: Speaker) -> None:
        self._meterer = meterer
        self._speaker = speaker

    @property
    def meterer(self) -> Meterer:
        return self._meterer

    def can_speak_to(self, iss: str) -> bool:
        """Whether we have an account at this issuer, so that its principals can tell who we are."""
        return iss in self._speaker.issuers

    async def claim(self, ref: ClaimRef, iss: str, grant_key: bytes) -> bytes:
        """Seal a claim; raises WorldFault or PeerFault where the issuer gives no token."""
        fields = {"attempt": ref.attempt, "claim": ref.claim, "grant_key": grant_key}
        return await self._speaker.introduction(ref.tenant, Claim, issuer=iss, **self._who(), **fields)

    async def refused(
        self, tenant: str, iss: str, *, subject: str, attempt: str | None, reason: Reason, scope: Scope, detail: str
    ) -> bytes:
        """Seal a refusal; raises as `claim` does."""
        fields = {"subject": subject, "attempt": attempt, "reason": reason, "scope": scope}
        text = detail[: limits.TEXT_CHARACTERS]
        return await self._speaker.introduction(tenant, Refused, issuer=iss, **self._who(), **fields, detail=text)

    def report(self, model: type[ClaimReport], ref: ClaimRef, sequence: int, **fields: Any) -> bytes:
        """Seal a report about a claim."""
        said = {"attempt": ref.attempt, "claim": ref.claim, "sequence": sequence}
        return self._speaker.report(ref.tenant, model, **self._who(), **said, **fields)

    def log(self, ref: ClaimRef, cut: Cut, data: bytes) -> bytes:
        """Seal a log message: for the same cut always the same bytes."""
        made_at = wire.from_milliseconds(cut.made_at_ms)
        return self.report(Log, ref, cut.offset, made_at=made_at, data=data)

    def usage(self, event: Usage) -> bytes:
        fields = {name: getattr(event, name) for name in Usage.model_fields}
        return self._speaker.statement(Usage, **fields)

    def _who(self) -> dict[str, str]:
        return {"provider": self._meterer.provider, "agent": self._meterer.agent}
