"""Invoices: from the book to a signed statement for one customer (DESIGN §9).

An invoice covers what no earlier one has considered and what ended before the period's end: a fact is on one invoice or
on none, a late one on the next. It cites the digest of every event that it sums, so that the customer
can lay its own copies beside it, and anyone can compute it again with `schemas.pricing`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from agents.ledger import store
from agents.ledger.tables import FactRow, InvoiceRow
from identity.keys import SigningKey
from identity.own_card import OwnCard
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import OurFault, PeerFault
from schemas import frame, pricing
from schemas.ids import sha256_hex
from schemas.pricing import CitedUsage
from schemas.refusals import Refusal
from schemas.statements import Invoice, RateCard, Usage
from schemas.wire import Message

Stored = TypeVar("Stored", bound=Message)


@dataclass(frozen=True, slots=True)
class Customer:
    iss: str
    sub: str


@dataclass(frozen=True, slots=True)
class Written:
    """An invoice and its envelope."""

    invoice: Invoice
    raw: bytes


class Invoicing:
    """Writes a provider's invoices; one writer at a time, which the database's write lock sees to."""

    def __init__(
        self, provider: str, agent: str, key: SigningKey, own_card: OwnCard, database: Database, clock: Clock
    ) -> None:
        self._provider = provider
        self._agent = agent
        self._key = key
        self._own_card = own_card
        self._database = database
        self._clock = clock

    async def customers(self) -> list[Customer]:
        async with self._database.read() as session:
            return [Customer(iss, sub) for iss, sub in await store.customers(session)]

    async def write(self, customer: Customer, before: datetime) -> Written | None:
        """Write the customer's next invoice, up to `before`; None where nothing new was used.

        Raises WorldFault when the desk (for a rate card not seen yet) or the database cannot be reached, OurFault when
        the facts cite rate cards of different currencies.
        """
        await self._learn_rate_cards(customer, before)
        async with self._database.write() as session:
            rows = await store.uninvoiced(session, customer.iss, customer.sub, before)
            if not rows:
                return None
            number = f"{self._clock.now():%Y-%m}-{await store.count_invoices(session) + 1}"
            invoice = await self._compute(session, customer, rows, number, before)
            return await self._keep(session, invoice, [row.digest for row in rows])

    async def _compute(
        self, session: AsyncSession, customer: Customer, rows: list[FactRow], number: str, before: datetime
    ) -> Invoice:
        facts = [_cited(row) for row in rows]
        cards = {digest: await _rate_card(session, digest) for digest in {fact.usage.rate_card for fact in facts}}
        currencies = {card.currency for card in cards.values()}
        if len(currencies) != 1:
            raise OurFault(
                f"the facts are priced in {' and '.join(sorted(currencies))}",
                where=f"{customer.sub} at {customer.iss}",
                remedy="Invoice each currency up to the moment at which it changed.",
            )
        lines = pricing.invoice_lines(facts, cards)
        return Invoice(
            provider=self._provider,
            number=number,
            agent=self._agent,
            iss=customer.iss,
            sub=customer.sub,
            period_from=min(fact.usage.started_at for fact in facts),
            period_to=before,
            issued_at=self._clock.now(),
            currency=currencies.pop(),
            lines=lines,
            total=pricing.total(lines),
        )

    async def _keep(self, session: AsyncSession, invoice: Invoice, events: list[str]) -> Written:
        raw = frame.seal(invoice, self._key.private)
        row = InvoiceRow(
            number=invoice.number,
            iss=invoice.iss,
            sub=invoice.sub,
            digest=sha256_hex(raw),
            raw=raw,
            issued_at=invoice.issued_at,
        )
        await store.add_invoice(session, row, events)
        return Written(invoice, raw)

    async def _learn_rate_cards(self, customer: Customer, before: datetime) -> None:
        """Have every rate card that the facts cite at hand before the transaction, which must not wait for the desk."""
        async with self._database.read() as session:
            rows = await store.uninvoiced(session, customer.iss, customer.sub, before)
            cited = {_cited(row).usage.rate_card for row in rows}
            missing = [digest for digest in sorted(cited) if await store.rate_card(session, digest) is None]
        for digest in missing:
            raw = await self._own_card.rate_card(digest)
            if isinstance(raw, Refusal):
                raise PeerFault(f"usage cites the rate card {digest}, which the desk does not have ({raw})")
            async with self._database.write() as session:
                store.add_rate_card(session, digest, raw)


def _cited(row: FactRow) -> CitedUsage:
    return CitedUsage(_read_own(Usage, row.raw), row.digest)


async def _rate_card(session: AsyncSession, digest: str) -> RateCard:
    raw = await store.rate_card(session, digest)
    if raw is None:
        raise PeerFault(f"usage cites the rate card {digest}, which was not there a moment ago")
    return _read_own(RateCard, raw)


def _read_own(model: type[Stored], raw: bytes) -> Stored:
    """Read what was verified when it was stored."""
    envelope = frame.split(raw, max_bytes=model.MAX_BYTES)
    message = envelope if isinstance(envelope, Refusal) else model.from_payload(envelope.payload)
    if isinstance(message, Refusal):
        raise OurFault(f"cannot read back a stored {model.TYPE}: {message}", where="the ledger's database")
    return message
