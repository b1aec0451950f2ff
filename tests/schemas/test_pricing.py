"""Prices: exact, the same for whoever computes them, and nothing billed that the provider answers for."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import pricing
from schemas.ends import ENDS, EndReason
from schemas.ids import sha256_hex
from schemas.pricing import CitedUsage
from schemas.statements import Rate, RateCard, Usage
from tests.schemas.samples import SAMPLES

USAGE = next(message for message in SAMPLES if isinstance(message, Usage))
CARD = next(message for message in SAMPLES if isinstance(message, RateCard))
CARDS = {USAGE.rate_card: CARD}


def fact(quantity: str, reason: EndReason = EndReason.SUCCEEDED, meter: str = "wall-seconds", n: int = 0) -> CitedUsage:
    usage = USAGE.model_copy(update={"quantity": Decimal(quantity), "reason": reason, "meter": meter})
    return CitedUsage(usage, sha256_hex(f"{quantity}{reason}{meter}{n}".encode()))


def test_a_line_sums_started_increments_and_is_rounded_once() -> None:
    (line,) = pricing.invoice_lines([fact("49.2"), fact("49.9")], CARDS)
    assert line.quantity == 100
    assert line.amount == Decimal("0.01")
    assert len(line.events) == 2


@pytest.mark.parametrize(("quantity", "amount"), [("0", "0.00"), ("50", "0.00"), ("150", "0.02"), ("250", "0.02")])
def test_half_a_cent_goes_to_the_even_neighbour(quantity: str, amount: str) -> None:
    (line,) = pricing.invoice_lines([fact(quantity)], CARDS)
    assert line.amount == Decimal(amount)


@pytest.mark.parametrize("reason", EndReason)
def test_only_ends_on_the_customers_side_are_billed(reason: EndReason) -> None:
    lines = pricing.invoice_lines([fact("3600", reason)], CARDS)
    assert bool(lines) == ENDS[reason].is_billable


def test_an_estimate_is_shown_and_never_billed() -> None:
    measured = fact("3600")
    guessed = CitedUsage(measured.usage.model_copy(update={"is_estimate": True}), "f" * 64)
    (line,) = pricing.invoice_lines([measured, guessed], CARDS)
    assert line.events == (measured.digest,)


def test_a_meter_without_a_rate_is_free() -> None:
    assert pricing.invoice_lines([fact("5", meter="log-bytes")], CARDS) == ()


def test_a_fact_whose_rate_card_is_unknown_stops_the_invoice() -> None:
    with pytest.raises(KeyError):
        pricing.invoice_lines([fact("5")], {})


@given(st.lists(st.decimals(0, 10**6, places=3), min_size=1, max_size=20), st.randoms())
def test_the_order_of_the_facts_changes_nothing(quantities: list[Decimal], random: object) -> None:
    facts = [fact(str(quantity), n=n) for n, quantity in enumerate(quantities)]
    shuffled = list(facts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert pricing.invoice_lines(facts, CARDS) == pricing.invoice_lines(shuffled, CARDS)


@given(st.decimals(0, 10**9, places=6), st.decimals("0.001", 1000, places=3))
def test_a_billed_quantity_covers_the_fact_by_less_than_one_increment(quantity: Decimal, increment: Decimal) -> None:
    rate = Rate(meter="wall-seconds", unit="s", price=Decimal(1), per=Decimal(1), increment=increment)
    assert Decimal(0) <= pricing.billed_quantity(rate, quantity) - quantity < increment
