"""What runs cost so far, from the usage events that providers signed and the rate cards that they cite. Pure.

The arithmetic of `schemas.pricing`, but each run by itself and to four decimals: an invoice rounds once a line for a
whole period, so its total is what counts. Money of different currencies is never added.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from schemas.pricing import billed_quantity, is_billable, line_amount
from schemas.statements import Rate, RateCard, Usage

DECIMALS = 4


@dataclass(frozen=True, slots=True)
class CostLine:
    """One meter at one provider. `amount` is None while its rate card is not at hand; `unbilled` is not to be paid."""

    provider: str
    meter: str
    unit: str
    quantity: Decimal
    unbilled: Decimal
    amount: Decimal | None
    currency: str
    events: int
    is_estimate: bool


@dataclass(frozen=True, slots=True)
class Cost:
    lines: tuple[CostLine, ...]

    @property
    def totals(self) -> tuple[tuple[str, Decimal], ...]:
        """Amounts by currency."""
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for line in self.lines:
            if line.amount is not None:
                sums[line.currency] += line.amount
        return tuple(sorted(sums.items()))

    @property
    def text(self) -> str:
        return " + ".join(f"{amount} {currency}" for currency, amount in self.totals)


def cost_of(events: Iterable[Usage], cards: Mapping[str, RateCard]) -> Cost:
    """Add up usage events by provider, rate card and meter; `cards` are rate cards by digest."""
    groups: dict[tuple[str, str, str], list[Usage]] = defaultdict(list)
    for usage in events:
        groups[(usage.provider, usage.meter, usage.rate_card)].append(usage)
    return Cost(tuple(_line(groups[key], cards.get(key[2])) for key in sorted(groups)))


def _line(events: list[Usage], card: RateCard | None) -> CostLine:
    first = events[0]
    rate = next((rate for rate in card.rates if rate.meter == first.meter), None) if card else None
    billed = [usage.quantity for usage in events if is_billable(usage)]
    quantity = sum((usage.quantity for usage in events), Decimal(0))
    return CostLine(
        provider=first.provider,
        meter=first.meter,
        unit=rate.unit if rate else "",
        quantity=quantity,
        unbilled=quantity - sum(billed, Decimal(0)),
        amount=_amount(card, rate, billed),
        currency=card.currency if card else "",
        events=len(events),
        is_estimate=any(usage.is_estimate for usage in events),
    )


def _amount(card: RateCard | None, rate: Rate | None, billed: list[Decimal]) -> Decimal | None:
    if card is None:
        return None
    if rate is None:
        return Decimal(0).quantize(Decimal(1).scaleb(-DECIMALS))
    return line_amount(rate, sum((billed_quantity(rate, quantity) for quantity in billed), Decimal(0)), DECIMALS)
