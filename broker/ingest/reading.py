"""Reads what comes from a provider's bus: who really said it, or why it is refused (DESIGN §5, §7).

A claim or refusal carries a token: `identity.trust` verifies it, then the provider's card must list that key and that
account as an agent of it. A report is signed by the key that its claim recorded; where we have no such claim (after a
restore, or when it could not be read), the card's key tells at least whose it is. A usage copy is signed by a key of
the card and must be about us.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from broker.providers.book import Book, KnownProvider, introduced_agent, reporting_agent, stating_agent
from broker.store import claims as claim_store
from broker.tables import ClaimRow
from broker.voice import Voice
from identity.trust import SignedBy, Trust, Verified, verify_report, verify_statement
from runtime.database import Database
from schemas import frame, registry
from schemas.frame import UnverifiedFrame
from schemas.refusals import Reason, Refusal
from schemas.reports import Claim, ClaimReport, Introduced, Refused
from schemas.sealing import is_sealable_to
from schemas.statements import Usage, usage_id

MAX_REPORTS = 1_000_000
"""Reports of one claim, each a row: a heartbeat every tenth of a second for the longest job."""


@dataclass(frozen=True, slots=True)
class ClaimCame:
    verified: Verified[Introduced]
    claim: Claim


@dataclass(frozen=True, slots=True)
class RefusedCame:
    verified: Verified[Introduced]
    refused: Refused


@dataclass(frozen=True, slots=True)
class ReportCame:
    """A report of a recorded claim."""

    signed: SignedBy[ClaimReport]
    claim: ClaimRow


@dataclass(frozen=True, slots=True)
class StrayCame:
    """A report of a claim that is not recorded here, signed by an agent of the provider's card."""

    signed: SignedBy[ClaimReport]


@dataclass(frozen=True, slots=True)
class UsageCame:
    signed: SignedBy[Usage]


Came = ClaimCame | RefusedCame | ReportCame | StrayCame | UsageCame
RefreshCard = Callable[[str], Awaitable[None]]


class Reader:
    """Reads what comes from one provider. `refresh_card` asks its desk for a newer card, now and then."""

    def __init__(
        self, provider: str, *, book: Book, trust: Trust, voice: Voice, database: Database, refresh_card: RefreshCard
    ) -> None:
        self._provider = provider
        self._book = book
        self._trust = trust
        self._voice = voice
        self._database = database
        self._refresh_card = refresh_card

    async def read(self, raw: bytes) -> Came | Refusal:
        """Verify one message; a newer card is asked for when the one at hand does not know the agent."""
        came = await self._read(raw)
        if isinstance(came, Refusal) and came.reason is Reason.NOT_IN_CARD:
            await self._refresh_card(self._provider)
            came = await self._read(raw)
        return came

    async def _read(self, raw: bytes) -> Came | Refusal:
        opened = frame.split(raw)
        if isinstance(opened, Refusal):
            return opened
        model = registry.find(opened.type)
        if isinstance(model, Refusal):
            return model
        if len(raw) > model.MAX_BYTES:
            return Refusal(Reason.TOO_LARGE, f"{len(raw)} bytes, {model.TYPE} has at most {model.MAX_BYTES}")
        known = self._book.get(self._provider)
        if known is None:
            return Refusal(Reason.NOT_IN_CARD, f"{self._provider} is not known here")
        if issubclass(model, Introduced):
            return await self._introduction(raw, known)
        if issubclass(model, ClaimReport):
            return await self._report(opened, model, known)
        if model is Usage:
            return self._usage(opened, known)
        return Refusal(Reason.WRONG_KIND, f"{model.TYPE} is not for a controller")

    async def _introduction(self, raw: bytes, known: KnownProvider) -> Came | Refusal:
        verified = await self._trust.introduction(raw, audience=self._voice.audience)
        if isinstance(verified, Refusal):
            return verified
        agent = introduced_agent(known, verified.message, verified.key)
        if isinstance(agent, Refusal):
            return agent
        match verified.message:
            case Claim() as claim:
                if agent.role != "worker":
                    return Refusal(Reason.UNKNOWN_AGENT, f"{agent.name} is no worker but a {agent.role}")
                if not is_sealable_to(claim.grant_key):
                    return Refusal(Reason.MALFORMED_PAYLOAD, "no box can be sealed to the claim's one-time key")
                return ClaimCame(verified, claim)
            case Refused() as refused:
                return RefusedCame(verified, refused)
        return Refusal(Reason.WRONG_KIND, "not an introduction that is known here")

    async def _report(self, opened: UnverifiedFrame, model: type[ClaimReport], known: KnownProvider) -> Came | Refusal:
        unverified = model.from_payload(opened.payload)
        if isinstance(unverified, Refusal):
            return unverified
        async with self._database.read() as session:
            row = await claim_store.claim(session, unverified.claim)
        agent = known.agent(unverified.agent)
        key = row.key if row is not None else agent.key if agent is not None else None
        if key is None:
            return Refusal(Reason.NOT_IN_CARD, f"{known.name}'s card lists no agent {unverified.agent}")
        signed = verify_report(opened.raw, key=key, audience=self._voice.audience)
        if isinstance(signed, Refusal):
            return signed
        if row is None:
            stray = reporting_agent(known, signed.message, key)
            return stray if isinstance(stray, Refusal) else StrayCame(signed)
        return check_claim(signed.message, row, known.name) or ReportCame(signed, row)

    def _usage(self, opened: UnverifiedFrame, known: KnownProvider) -> Came | Refusal:
        unverified = Usage.from_payload(opened.payload)
        if isinstance(unverified, Refusal):
            return unverified
        agent = stating_agent(known, unverified, unverified.agent)
        if isinstance(agent, Refusal):
            return agent
        signed = verify_statement(opened.raw, Usage, key=agent.key)
        if isinstance(signed, Refusal):
            return signed
        if (signed.message.iss, signed.message.sub) != (self._voice.issuer, self._voice.sub):
            return Refusal(Reason.IDENTITY_MISMATCH, "a usage event of another customer")
        if unverified.id != usage_id(unverified.provider, unverified.subject, unverified.meter, unverified.interval):
            return Refusal(Reason.IDENTITY_MISMATCH, "the usage event's id does not derive from its fact")
        return UsageCame(signed)


def check_claim(said: ClaimReport, row: ClaimRow, provider: str) -> Refusal | None:
    """Whether the report names the facts of its claim: no report reaches over to another's."""
    if (said.provider, row.provider) != (provider, provider):
        return Refusal(Reason.WRONG_ORIGIN, f"a claim of {row.provider}, reported over {provider}'s bus")
    if (said.attempt, said.agent) != (row.attempt_id, row.worker):
        return Refusal(Reason.IDENTITY_MISMATCH, "the report names another attempt or worker than its claim")
    if said.sequence >= MAX_REPORTS:
        return Refusal(Reason.TOO_LARGE, f"a claim has at most {MAX_REPORTS} reports")
    return None
