"""The book: takes usage facts and receipts from the bus into the database, once each (DESIGN §9).

Promises: a delivery is settled only after the transaction that holds its effect has been committed; what is refused is
settled too, with an alarm that keeps its bytes, so that one bad message never stops those behind it. Facts of a batch
share one transaction. Everything here may happen again; nothing is entered twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncSession

from agents.ledger import chain, store
from agents.ledger.intake import Repeat, decide, read_usage
from identity.own_card import OwnCard
from identity.trust import Seen, SignedBy, Trust, Verified, settle_duplicate
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import WorldFault
from runtime.logging import get_logger
from schemas.refusals import Reason, Refusal
from schemas.statements import Receipt, Usage

_log = get_logger(__name__)


@dataclass
class Tally:
    """How many of each there were since the start, for metrics and tests."""

    facts: int = 0
    repeats: int = 0
    receipts: int = 0
    alarms: dict[Reason, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Refused:
    raw: bytes
    refusal: Refusal


class Book:
    """The only writer of facts and receipts; its methods take whole batches."""

    def __init__(self, provider: str, own_card: OwnCard, trust: Trust, database: Database, clock: Clock) -> None:
        self._provider = provider
        self._own_card = own_card
        self._trust = trust
        self._database = database
        self._clock = clock
        self.tally = Tally()

    async def enter_usage(self, bodies: Sequence[bytes]) -> None:
        """Enter the facts that these envelopes state.

        Raises WorldFault when the database cannot be written, or when the card does not list an agent and the desk
        cannot be asked for a newer one: then nothing of the batch is entered.
        """
        read = [await self._read(raw) for raw in bodies]
        stated = {fact.message.id: fact for fact in read if not isinstance(fact, _Refused)}
        async with self._database.write() as session:
            known = await store.known_digests(session, stated)
            link = await store.last_link(session)
            for entry in read:
                refused = entry if isinstance(entry, _Refused) else None
                if not isinstance(entry, _Refused):
                    link, refused = self._enter(session, entry, known, link)
                if refused is not None:
                    self._raise_alarm(session, "usage", refused)

    async def enter_receipts(self, bodies: Sequence[bytes]) -> None:
        """Enter what customers answered; raises WorldFault as `enter_usage` does."""
        read = [(raw, await self._trust.receipt(raw, provider=self._provider)) for raw in bodies]
        async with self._database.write() as session:
            for raw, receipt in read:
                refusal = receipt if isinstance(receipt, Refusal) else await self._enter_receipt(session, receipt)
                if refusal is not None:
                    self._raise_alarm(session, "receipts", _Refused(raw, refusal))

    async def _read(self, raw: bytes) -> SignedBy[Usage] | _Refused:
        came_at = self._clock.boottime()
        fact = self._read_by_card(raw)
        if isinstance(fact, Refusal) and fact.reason is Reason.UNKNOWN_AGENT:
            await self._own_card.renew()
            fact = self._read_by_card(raw)
            if isinstance(fact, Refusal) and not self._own_card.is_as_of(came_at):
                # Work that was done must not go unbilled because a desk is away, or was asked a moment too early.
                raise WorldFault("a fact names an agent that the card in hand does not list, and no newer card came")
        return _Refused(raw, fact) if isinstance(fact, Refusal) else fact

    def _read_by_card(self, raw: bytes) -> SignedBy[Usage] | Refusal:
        return read_usage(raw, provider=self._provider, agents=self._own_card.agents)

    def _enter(
        self, session: AsyncSession, fact: SignedBy[Usage], known: dict[str, str], link: str
    ) -> tuple[str, _Refused | None]:
        """Enter one fact, noting it in `known`; the chain's new end, and the alarm where it is one."""
        decision = decide(fact, known.get(fact.message.id))
        if isinstance(decision, Refusal):
            return link, _Refused(fact.raw, decision)
        if isinstance(decision, Repeat):
            self.tally.repeats += 1
            return link, None
        link = chain.next_link(link, fact.digest)
        store.add_fact(session, decision.fact, link, self._clock.now())
        known[fact.message.id] = fact.digest
        self.tally.facts += 1
        return link, None

    async def _enter_receipt(self, session: AsyncSession, receipt: Verified[Receipt]) -> Refusal | None:
        seen = settle_duplicate(await store.receipt_digest(session, receipt.message.id), receipt.digest)
        if isinstance(seen, Refusal):
            return seen
        if seen is Seen.NEW:
            store.add_receipt(session, receipt, self._clock.now())
            await session.flush()
            self.tally.receipts += 1
        return None

    def _raise_alarm(self, session: AsyncSession, queue: str, refused: _Refused) -> None:
        reason = refused.refusal.reason
        self.tally.alarms[reason] = self.tally.alarms.get(reason, 0) + 1
        store.add_alarm(session, self._clock.now(), queue, refused.refusal, refused.raw)
        _log.warning("message_refused", queue=queue, reason=reason, detail=refused.refusal.detail)
