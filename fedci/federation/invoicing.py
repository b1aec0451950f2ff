"""The end of the story: every provider writes its invoices, every customer computes them again.

Usage comes by two ways: to the ledger over the billing exchange, and as a copy to the customer. Before the invoices are
written, both must have arrived for everything that ran; then the customer's own copies are what an invoice is held
against, with the provider's root key as the only thing that is believed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from agents.ledger import setup as ledger_setup
from agents.ledger import store as ledger_store
from agents.ledger.invoices import Written
from bus.desk_client import DeskClient
from fedci.controller_client import ControllerClient
from fedci.envelope_files import cut
from fedci.federation.cast import CUSTOMERS, ISSUERS, PROVIDERS, Customer, Provider
from fedci.federation.places import Places
from fedci.federation.report import InvoiceReport, LineReport
from fedci.invoice_check import check_invoice
from identity.keys import SigningKey
from runtime.clock import SystemClock
from runtime.database import Database
from schemas import frame
from schemas.ids import sha256_hex
from schemas.refusals import Refusal
from schemas.statements import InvoiceLine, RateCard

ARRIVAL_SECONDS = 30.0
POLL_SECONDS = 0.2
SETTLED_LOOKS = 3
"""How often in a row nothing new must be seen before all of a store's usage is taken to have arrived."""


@dataclass(frozen=True, slots=True)
class Copies:
    """What one customer holds of one provider's statements, byte for byte."""

    customer: Customer
    provider: Provider
    envelopes: tuple[bytes, ...]

    @property
    def digests(self) -> frozenset[str]:
        return frozenset(sha256_hex(envelope) for envelope in self.envelopes)


class Invoicing:
    """Waits for usage, has invoices written, and checks each as its customer would."""

    def __init__(
        self, places: Places, clients: Mapping[str, ControllerClient], http: httpx.AsyncClient, out: Path
    ) -> None:
        """Invoices are written into the directory `out`."""
        self._places = places
        self._out = out
        self._clients = clients
        self._http = http

    async def until_usage_arrived(self, ran: Mapping[tuple[str, str], int]) -> None:
        """Return when ledgers and customers hold the same events, some of each pair, and for `SETTLED_LOOKS` no more.

        `ran` says how many attempts each (provider, customer) granted: a worker states `wall-seconds` for each. Returns
        in any case after `ARRIVAL_SECONDS`: what is missing then shows in the check of the invoices.
        """
        before, same = None, 0
        try:
            async with asyncio.timeout(ARRIVAL_SECONDS):
                while same < SETTLED_LOOKS:
                    seen = {(p.name, c.person): await self._seen(p, c) for p in PROVIDERS for c in CUSTOMERS}
                    is_complete = all(seen.values()) and all(
                        len(seen.get(pair) or ()) >= count for pair, count in ran.items()
                    )
                    same = same + 1 if is_complete and seen == before else 0
                    before = seen
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            return

    async def write(self) -> list[InvoiceReport]:
        """One invoice from each provider to each customer, checked against the customer's own copies."""
        into = self._out / "invoices"
        into.mkdir(parents=True, exist_ok=True)
        reports: list[InvoiceReport] = []
        for provider in PROVIDERS:
            directory = self._places.of("ledgers", provider.person)
            for written in await ledger_setup.write_invoices(directory, SystemClock().now()):
                file = into / f"{provider.person}-{written.invoice.sub}-{written.invoice.number}.fedci"
                file.write_bytes(written.raw)
                reports.append(await self._checked(provider, written, file))
        return reports

    async def _seen(self, provider: Provider, customer: Customer) -> frozenset[str] | None:
        """The events that both sides hold, or None while one of them lacks any."""
        copies = await self._copies(provider, customer)
        booked = await self._booked(provider, customer)
        return booked if booked and booked == copies.digests else None

    async def _booked(self, provider: Provider, customer: Customer) -> frozenset[str]:
        issuer = self._places.url("issuers", customer.issuer)
        # The ledger runs beside us and has brought its database up to date.
        database = Database.open(self._places.of("ledgers", provider.person) / ledger_setup.DATABASE)
        try:
            async with database.read() as session:
                rows = await ledger_store.uninvoiced(session, issuer, customer.person, SystemClock().now())
        finally:
            await database.close()
        return frozenset(row.digest for row in rows)

    async def _copies(self, provider: Provider, customer: Customer) -> Copies:
        envelopes = await self._clients[customer.person].usage_envelopes(provider.name)
        return Copies(customer, provider, tuple(cut(envelopes)))

    async def _checked(self, provider: Provider, written: Written, file: Path) -> InvoiceReport:
        invoice = written.invoice
        customer = next(customer for customer in CUSTOMERS if customer.person == invoice.sub)
        rate_cards = await self._rate_cards(provider, written)
        verdict = check_invoice(
            written.raw,
            root_key=self._root_key(provider),
            cards=[await self._desk(provider).card()],
            rate_cards=rate_cards,
            events=(await self._copies(provider, customer)).envelopes,
        )
        issuer = next(person for person in ISSUERS if self._places.url("issuers", person) == invoice.iss)
        return InvoiceReport(
            provider=provider.name,
            issuer=issuer,
            customer=invoice.sub,
            currency=invoice.currency,
            lines=tuple(
                LineReport(
                    meter=line.meter,
                    quantity=f"{line.quantity:f}",
                    unit=line.unit,
                    price=_price(line, rate_cards),
                    amount=f"{line.amount:f}",
                    events=len(line.events),
                )
                for line in invoice.lines
            ),
            total=f"{invoice.total:f}",
            file=str(file),
            is_right=verdict.is_right,
        )

    async def _rate_cards(self, provider: Provider, written: Written) -> list[bytes]:
        desk = self._desk(provider)
        answers = [await desk.statement(digest) for digest in {line.rate_card for line in written.invoice.lines}]
        return [answer for answer in answers if not isinstance(answer, Refusal)]

    def _root_key(self, provider: Provider) -> bytes:
        return SigningKey.load(self._places.of("desks", provider.person) / "root.key").public

    def _desk(self, provider: Provider) -> DeskClient:
        return DeskClient(self._places.url("desks", provider.person), self._http)


def _price(line: InvoiceLine, rate_cards: Sequence[bytes]) -> str:
    """The price of a line in the rate card that it cites, which the check has verified."""
    for raw in rate_cards:
        envelope = frame.split(raw)
        card = envelope if isinstance(envelope, Refusal) else RateCard.from_payload(envelope.payload)
        if sha256_hex(raw) != line.rate_card or isinstance(card, Refusal):
            continue
        for rate in card.rates:
            if rate.meter == line.meter:
                return f"{rate.price:f} per {rate.per:f} {rate.unit}"
    return ""
