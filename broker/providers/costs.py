"""What usage costs, computed by the customer's side with the providers' own rate cards (DESIGN §9).

The arithmetic is `schemas.pricing`, the same that makes the invoice. Events whose rate card is not at hand, or names
prices beyond all reckoning, are counted instead of left out in silence.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal

from broker.ingest.receipts import usage_of
from broker.tables import RateCardRow, UsageRow
from broker.views import CostView
from runtime.errors import OurFault
from schemas import frame
from schemas.pricing import CitedUsage, invoice_lines, total
from schemas.refusals import Refusal
from schemas.statements import RateCard


def read_rate_cards(rows: Iterable[RateCardRow]) -> dict[str, RateCard]:
    """Rate cards by digest; each was verified when it came."""
    return {row.digest: read_rate_card(row) for row in rows}


def read_rate_card(row: RateCardRow) -> RateCard:
    """The rate card of a row; raises OurFault when the database was damaged."""
    opened = frame.split(row.raw)
    card = opened if isinstance(opened, Refusal) else RateCard.from_payload(opened.payload)
    if isinstance(card, Refusal):
        raise OurFault(f"a stored rate card cannot be read: {card}", remedy="Restore the database from a backup.")
    return card


def costs_of(rows: Iterable[UsageRow], cards: Mapping[str, RateCard]) -> tuple[CostView, ...]:
    """The cost of these events by currency; lines are made for each provider, as its invoice makes them."""
    facts: dict[tuple[str, str], list[CitedUsage]] = defaultdict(list)
    unpriced = 0
    for row in rows:
        fact = CitedUsage(usage_of(row), row.digest)
        card = cards.get(fact.usage.rate_card)
        if card is None:
            unpriced += 1
        else:
            facts[(card.currency, row.provider)].append(fact)
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for (currency, _), of_provider in facts.items():
        try:
            sums[currency] += total(invoice_lines(of_provider, cards))
        except (ArithmeticError, ValueError):  # more digits than any invoice has
            unpriced += len(of_provider)
    if unpriced and not sums:
        return (CostView(currency="", total=Decimal(0), unpriced_events=unpriced),)
    return tuple(
        CostView(currency=currency, total=amount, unpriced_events=unpriced) for currency, amount in sorted(sums.items())
    )
