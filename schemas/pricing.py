"""From usage facts to invoice lines: the one arithmetic that provider and customer both do (DESIGN §9).

Pure and exact: `Decimal` throughout, one context for everybody. The rules:

1. Only measured facts on the customer's side are billed (`schemas.ends`); estimates, and what the provider answers for,
   stand on the record with their quantity, unpaid.
2. Facts are grouped by rate card and meter; a meter that the card does not list is free and gives no line.
3. Each fact's quantity is rounded up to the rate's `increment` (a started unit counts whole), then they are summed.
4. A line's amount is sum x price / per, rounded once, half to even, to the card's decimals. The total is their sum.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal
from itertools import groupby

from schemas.ends import ENDS
from schemas.statements import InvoiceLine, Rate, RateCard, Usage

_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class CitedUsage:
    """A usage fact and the SHA-256 of the envelope that states it."""

    usage: Usage
    digest: str


def is_billable(usage: Usage) -> bool:
    """Whether the customer pays for this fact: not for an estimate, nor for what the provider answers for."""
    return not usage.is_estimate and (usage.reason is None or ENDS[usage.reason].is_billable)


def billed_quantity(rate: Rate, quantity: Decimal) -> Decimal:
    """The quantity of one fact in whole started increments."""
    steps = _EXACT.divide(quantity, rate.increment).to_integral_value(rounding=ROUND_CEILING)
    return _EXACT.multiply(steps, rate.increment)


def line_amount(rate: Rate, quantity: Decimal, decimals: int) -> Decimal:
    """The price of a line's summed quantity, rounded once, half to even."""
    amount = _EXACT.divide(_EXACT.multiply(quantity, rate.price), rate.per)
    return amount.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_EVEN, context=_EXACT)


def invoice_lines(facts: Iterable[CitedUsage], cards: Mapping[str, RateCard]) -> tuple[InvoiceLine, ...]:
    """The lines for these facts of one customer, ordered by rate card and meter.

    `cards` maps the digest that a fact cites to that rate card. Raises `KeyError` with the digest of a card that is
    not at hand: an unpriced fact must stop an invoice, not vanish from it.
    """
    billable = sorted((fact for fact in facts if is_billable(fact.usage)), key=_line_key)
    lines = (_line(cards[card], list(group)) for (card, _), group in groupby(billable, key=_line_group))
    return tuple(line for line in lines if line is not None)


def total(lines: Iterable[InvoiceLine]) -> Decimal:
    result = Decimal(0)
    for line in lines:
        result = _EXACT.add(result, line.amount)
    return result


def _line_group(fact: CitedUsage) -> tuple[str, str]:
    return (fact.usage.rate_card, fact.usage.meter)


def _line_key(fact: CitedUsage) -> tuple[str, str, str]:
    return (*_line_group(fact), fact.digest)


def _line(card: RateCard, facts: list[CitedUsage]) -> InvoiceLine | None:
    first = facts[0].usage
    rate = next((rate for rate in card.rates if rate.meter == first.meter), None)
    if rate is None:
        return None
    quantity = Decimal(0)
    for fact in facts:
        quantity = _EXACT.add(quantity, billed_quantity(rate, fact.usage.quantity))
    return InvoiceLine(
        meter=first.meter,
        unit=rate.unit,
        rate_card=first.rate_card,
        quantity=quantity,
        amount=line_amount(rate, quantity, card.decimals),
        events=tuple(fact.digest for fact in facts),
    )
