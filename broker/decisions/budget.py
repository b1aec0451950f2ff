"""What a job may cost at most by time, reserved when it is granted (DESIGN §7.2, §9).

Only meters that are known beforehand count: the attempt itself and the wall seconds up to its timeout. The sum is
recorded with the attempt and shown as exposure while it runs; what is really owed comes from usage events.
"""

from dataclasses import dataclass
from decimal import Decimal

from schemas.pricing import billed_quantity, line_amount
from schemas.statements import RateCard


@dataclass(frozen=True, slots=True)
class Reservation:
    amount: Decimal
    currency: str

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"


def reserve(card: RateCard, timeout_seconds: int, cores: int) -> Reservation:
    """The price of one attempt that keeps so many cores until its timeout, under this rate card."""
    quantities = {"attempts": Decimal(1), "wall-seconds": Decimal(timeout_seconds) * cores}
    amount = sum(
        (
            line_amount(rate, billed_quantity(rate, quantities[rate.meter]), card.decimals)
            for rate in card.rates
            if rate.meter in quantities
        ),
        Decimal(0),
    )
    return Reservation(amount, card.currency)
