"""Is this invoice right? Checked with public keys only (DESIGN §9).

Pure: envelopes in, a verdict out. The root key vouches for the cards and rate cards, a card for the provider's agents,
the agents for the usage events and the invoice. Every line is then computed again with `schemas.pricing` from the
events that it cites, and everything that does not fit is told with a `Fault` of its own:

1. the cards: signed by the root key, all of one provider;
2. the invoice: signed by a ledger of these cards, that provider's;
3. each cited event: at hand, signed by an agent of these cards, this customer's, billable, of the line's meter and
   rate card, inside the period, cited once;
4. each line: a rate card that the root key signed, the right unit, quantity and amount; and the total.

A line whose events are not all at hand is never right, but its amount is still checked against its own quantity.
Events at hand that are not cited are counted, not judged: they may be free, or on another invoice.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from agents.ledger.intake import read_usage
from identity.trust import SignedBy, verify_statement
from schemas import pricing
from schemas.ids import sha256_hex
from schemas.pricing import CitedUsage
from schemas.refusals import Reason, Refusal
from schemas.statements import Agent, Card, Invoice, InvoiceLine, Rate, RateCard, Usage


class Fault(StrEnum):
    """What can be wrong with an invoice."""

    CARD = "card"
    SIGNATURE = "signature"
    PROVIDER = "provider"
    CURRENCY = "currency"
    TOTAL = "total"
    LINE_DOUBLED = "line-doubled"
    RATE_CARD_MISSING = "rate-card-missing"
    RATE_CARD_REFUSED = "rate-card-refused"
    NOT_PRICED = "not-priced"
    UNIT = "unit"
    QUANTITY = "quantity"
    AMOUNT = "amount"
    EVENT_MISSING = "event-missing"
    EVENT_REFUSED = "event-refused"
    EVENT_DOUBLED = "event-doubled"
    EVENT_FOREIGN = "event-foreign"
    EVENT_VOID = "event-void"
    EVENT_METER = "event-meter"
    EVENT_RATE_CARD = "event-rate-card"
    EVENT_PERIOD = "event-period"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and what was seen."""

    fault: Fault
    seen: str


@dataclass(frozen=True, slots=True)
class LineVerdict:
    """One line: what it should say where that can be told, and what is wrong with it."""

    line: InvoiceLine
    quantity: Decimal | None
    amount: Decimal | None
    findings: tuple[Finding, ...]

    @property
    def is_right(self) -> bool:
        return not self.findings


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found; `invoice` is None where it could not be believed at all."""

    invoice: Invoice | None
    lines: tuple[LineVerdict, ...]
    findings: tuple[Finding, ...]
    uncited: int = 0
    """Events of this customer and period that are at hand but on no line."""

    @property
    def is_right(self) -> bool:
        return self.invoice is not None and not self.all_findings

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        return self.findings + tuple(finding for line in self.lines for finding in line.findings)


@dataclass(frozen=True, slots=True)
class Believed:
    """An invoice that a ledger of these cards has signed."""

    invoice: Invoice
    cards: tuple[Card, ...]

    @property
    def rate_cards(self) -> tuple[str, ...]:
        """The digests of the rate cards that it cites."""
        return tuple(dict.fromkeys(line.rate_card for line in self.invoice.lines))

    @property
    def desk_url(self) -> str:
        """Where the provider's newest card says that its desk is."""
        return max(self.cards, key=lambda card: card.serial).desk_url


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Everything that a line is checked against."""

    invoice: Invoice
    rate_cards: Mapping[str, RateCard | Refusal]
    facts: Mapping[str, SignedBy[Usage] | Refusal]
    cited: Counter[str]
    """How often each event stands on the invoice, by its digest."""
    ids: Counter[str]
    """How many different envelopes on the invoice state a fact, by the fact's id."""


def check_invoice(
    raw: bytes, *, root_key: bytes, cards: Sequence[bytes], rate_cards: Iterable[bytes], events: Iterable[bytes]
) -> Verdict:
    """The verdict on the invoice envelope `raw`.

    `cards` holds the provider's card, and older ones where agents have left or changed keys since; `rate_cards` and
    `events` may hold more than the invoice cites, in any order.
    """
    believed = believe(raw, root_key=root_key, cards=cards)
    if isinstance(believed, Finding):
        return Verdict(None, (), (believed,))
    evidence = _gather(believed, root_key, rate_cards, events)
    return Verdict(
        believed.invoice,
        tuple(_check_line(line, evidence) for line in believed.invoice.lines),
        tuple(_check_whole(evidence)),
        sum(1 for digest in evidence.facts if _is_left_out(digest, evidence)),
    )


def believe(raw: bytes, *, root_key: bytes, cards: Sequence[bytes]) -> "Believed | Finding":
    """The invoice in these bytes and the cards behind it, once the signatures from the root key down to it hold."""
    known = _read_cards(cards, root_key)
    if isinstance(known, Finding):
        return known
    invoice = _read_invoice(raw, known)
    return invoice if isinstance(invoice, Finding) else Believed(invoice, known)


def _read_invoice(raw: bytes, cards: Sequence[Card]) -> Invoice | Finding:
    """The invoice, once a ledger of these cards has signed it."""
    refusal: Refusal | None = None
    for agent in (agent for card in cards for agent in card.agents if agent.role == "ledger"):
        stated = verify_statement(raw, Invoice, key=agent.key)
        if isinstance(stated, Refusal):
            refusal = stated
        elif stated.message.agent == agent.name:
            return _of_provider(stated.message, cards[0].provider)
    why = f" ({refusal})" if refusal else ""
    return Finding(Fault.SIGNATURE, f"no ledger of {cards[0].provider}'s card has signed this{why}")


def _of_provider(invoice: Invoice, provider: str) -> Invoice | Finding:
    if invoice.provider == provider:
        return invoice
    return Finding(Fault.PROVIDER, f"it says it is {invoice.provider}'s; the card is {provider}'s")


def _read_cards(cards: Sequence[bytes], root_key: bytes) -> tuple[Card, ...] | Finding:
    read = [verify_statement(raw, Card, key=root_key) for raw in cards]
    refused = next((card for card in read if isinstance(card, Refusal)), None)
    if refused is not None:
        return Finding(Fault.CARD, f"the provider's card does not verify under the root key ({refused})")
    known = tuple(card.message for card in read if not isinstance(card, Refusal))
    providers = sorted({card.provider for card in known})
    if len(providers) != 1:
        return Finding(Fault.CARD, f"expected cards of one provider, got {', '.join(providers) or 'none'}")
    return known


def _gather(believed: Believed, root_key: bytes, rate_cards: Iterable[bytes], events: Iterable[bytes]) -> _Evidence:
    invoice = believed.invoice
    agents = [{agent.name: agent for agent in card.agents} for card in believed.cards]
    facts = {sha256_hex(raw): _read_event(raw, invoice.provider, agents) for raw in events}
    cited = Counter(digest for line in invoice.lines for digest in line.events)
    stated = (facts.get(digest) for digest in cited)
    return _Evidence(
        invoice=invoice,
        rate_cards={sha256_hex(raw): _read_rate_card(raw, invoice.provider, root_key) for raw in rate_cards},
        facts=facts,
        cited=cited,
        ids=Counter(fact.message.id for fact in stated if isinstance(fact, SignedBy)),
    )


def _read_event(raw: bytes, provider: str, cards: Iterable[Mapping[str, Agent]]) -> SignedBy[Usage] | Refusal:
    answers = [read_usage(raw, provider=provider, agents=agents) for agents in cards]
    return next((answer for answer in answers if not isinstance(answer, Refusal)), answers[0])


def _read_rate_card(raw: bytes, provider: str, root_key: bytes) -> RateCard | Refusal:
    stated = verify_statement(raw, RateCard, key=root_key)
    if isinstance(stated, Refusal):
        return stated
    if stated.message.provider != provider:
        return Refusal(Reason.IDENTITY_MISMATCH, f"it is {stated.message.provider}'s")
    return stated.message


# -- One line


def _check_line(line: InvoiceLine, evidence: _Evidence) -> LineVerdict:
    findings = [finding for digest in dict.fromkeys(line.events) for finding in _check_event(digest, line, evidence)]
    priced = _rate_of(line, evidence)
    if isinstance(priced, Finding):
        return LineVerdict(line, None, None, (*findings, priced))
    rate, card = priced
    try:
        quantity = _sum_events(line, card, evidence)
        amount = pricing.line_amount(rate, line.quantity if quantity is None else quantity, card.decimals)
    except InvalidOperation:
        absurd = Finding(Fault.NOT_PRICED, "these numbers are too large to be computed exactly")
        return LineVerdict(line, None, None, (*findings, absurd))
    findings += _compare(line, rate, quantity, amount)
    return LineVerdict(line, quantity, amount, tuple(findings))


def _rate_of(line: InvoiceLine, evidence: _Evidence) -> tuple[Rate, RateCard] | Finding:
    card = evidence.rate_cards.get(line.rate_card)
    if card is None:
        return Finding(Fault.RATE_CARD_MISSING, f"the rate card {line.rate_card} is not at hand")
    if isinstance(card, Refusal):
        return Finding(Fault.RATE_CARD_REFUSED, f"the rate card {line.rate_card} is not believed ({card})")
    if card.currency != evidence.invoice.currency:
        said = evidence.invoice.currency
        return Finding(Fault.CURRENCY, f"the rate card is in {card.currency}, the invoice in {said}")
    rate = next((rate for rate in card.rates if rate.meter == line.meter), None)
    if rate is None:
        return Finding(Fault.NOT_PRICED, f"the rate card has no price for {line.meter}: it is free")
    return rate, card


def _sum_events(line: InvoiceLine, card: RateCard, evidence: _Evidence) -> Decimal | None:
    """The quantity that the line's good events make, each counted once; None where some are not at hand."""
    if any(digest not in evidence.facts for digest in line.events):
        return None
    good = [
        CitedUsage(fact.message, digest)
        for digest in dict.fromkeys(line.events)
        if isinstance(fact := evidence.facts[digest], SignedBy) and not any(_misfits(fact.message, line, evidence))
    ]
    lines = pricing.invoice_lines(good, {line.rate_card: card})
    return lines[0].quantity if lines else Decimal(0)


def _compare(line: InvoiceLine, rate: Rate, quantity: Decimal | None, amount: Decimal) -> Iterator[Finding]:
    if line.unit != rate.unit:
        yield Finding(Fault.UNIT, f"counted in {line.unit!r}, the rate card says {rate.unit!r}")
    if quantity is not None and line.quantity != quantity:
        yield Finding(Fault.QUANTITY, f"{line.quantity} {line.unit}, its events make {quantity}")
    if line.amount != amount:
        yield Finding(Fault.AMOUNT, f"{line.amount}, it should be {amount}")


# -- One event


def _check_event(digest: str, line: InvoiceLine, evidence: _Evidence) -> Iterator[Finding]:
    name = f"event {digest[:16]}"
    if evidence.cited[digest] > 1:
        yield Finding(Fault.EVENT_DOUBLED, f"{name} is billed {evidence.cited[digest]} times")
    fact = evidence.facts.get(digest)
    if fact is None:
        yield Finding(Fault.EVENT_MISSING, f"{name} is not at hand")
    elif isinstance(fact, Refusal):
        yield Finding(Fault.EVENT_REFUSED, f"{name} is not believed ({fact})")
    else:
        if evidence.ids[fact.message.id] > 1:
            yield Finding(Fault.EVENT_DOUBLED, f"{name} states a fact that another billed event states too")
        yield from (Finding(misfit.fault, f"{name} {misfit.seen}") for misfit in _misfits(fact.message, line, evidence))


def _misfits(usage: Usage, line: InvoiceLine, evidence: _Evidence) -> Iterator[Finding]:
    """Why this event does not belong on this line."""
    invoice = evidence.invoice
    if (usage.iss, usage.sub) != (invoice.iss, invoice.sub):
        yield Finding(Fault.EVENT_FOREIGN, f"is {usage.sub}'s at {usage.iss}")
    if not pricing.is_billable(usage):
        yield Finding(Fault.EVENT_VOID, f"ended with {usage.reason}, which is on the provider's side and never billed")
    if usage.meter != line.meter:
        yield Finding(Fault.EVENT_METER, f"counts {usage.meter}")
    if usage.rate_card != line.rate_card:
        yield Finding(Fault.EVENT_RATE_CARD, f"is priced by the rate card {usage.rate_card[:16]}, not the line's")
    if not invoice.period_from <= usage.started_at <= usage.ended_at < invoice.period_to:
        yield Finding(Fault.EVENT_PERIOD, f"from {usage.started_at} to {usage.ended_at} is not inside the period")


# -- The whole


def _check_whole(evidence: _Evidence) -> Iterator[Finding]:
    invoice = evidence.invoice
    total = pricing.total(invoice.lines)
    if invoice.total != total:
        yield Finding(Fault.TOTAL, f"{invoice.total}, its lines make {total}")
    for (meter, card), count in Counter((line.meter, line.rate_card) for line in invoice.lines).items():
        if count > 1:
            yield Finding(Fault.LINE_DOUBLED, f"{count} lines for {meter} of the rate card {card[:16]}: rounded apart")


def _is_left_out(digest: str, evidence: _Evidence) -> bool:
    fact, invoice = evidence.facts[digest], evidence.invoice
    if digest in evidence.cited or isinstance(fact, Refusal) or not pricing.is_billable(fact.message):
        return False
    is_theirs = (fact.message.iss, fact.message.sub) == (invoice.iss, invoice.sub)
    return is_theirs and invoice.period_from <= fact.message.ended_at < invoice.period_to
