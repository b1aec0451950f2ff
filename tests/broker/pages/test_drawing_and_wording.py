"""How graphs, durations, sizes and costs look."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from broker.pages import wording
from broker.pages.cost import cost_of
from broker.pages.graph_picture import draw
from schemas.ends import EndReason
from schemas.statements import Rate, RateCard, Usage

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_job_stands_to_the_right_of_all_that_it_needs() -> None:
    picture = draw({"wheel": ("lint", "unit"), "lint": (), "unit": ("lint",), "board": ("wheel",)})
    x = {box.name: box.x for box in picture.boxes}
    assert x["lint"] < x["unit"] < x["wheel"] < x["board"]
    assert {(line.need, line.job) for line in picture.lines} == {
        ("lint", "wheel"),
        ("unit", "wheel"),
        ("lint", "unit"),
        ("wheel", "board"),
    }


def test_no_two_jobs_stand_in_one_place() -> None:
    picture = draw({f"job-{number}": ("job-0",) if number else () for number in range(200)})
    assert len({(box.x, box.y) for box in picture.boxes}) == 200
    assert all(box.y < picture.height and box.x < picture.width for box in picture.boxes)


def test_a_long_name_is_cut_in_the_drawing_alone() -> None:
    box = draw({"a" * 40: ()}).boxes[0]
    assert (len(box.short_name), len(box.name)) == (20, 40)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (-1, "0.0 s"),
        (4.21, "4.2 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (7620, "2 h 07 min"),
        (100_000, "1 d 03 h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "just now"), (40, "40 s ago"), (61, "1 min ago"), (7300, "2 h ago"), (8 * 86400, "2025-12-25")],
)
def test_ages(seconds: int, text: str) -> None:
    assert wording.age(NOW - timedelta(seconds=seconds), NOW) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, "–"), (0, "0 B"), (999, "999 B"), (1024, "1.0 KiB"), (3 * 2**30, "3.0 GiB")]
)
def test_sizes(count: int | None, text: str) -> None:
    assert wording.size(count) == text


def test_commits_and_digests_are_shortened_and_words_are_not() -> None:
    assert wording.short("ab" * 20 + "+changes") == "ababababab+changes"
    assert wording.short("ab" * 32) == "abababababab"
    assert wording.short("unversioned") == "unversioned"


def usage(quantity: str, meter: str = "wall-seconds", **changes: Any) -> Usage:
    facts: dict[str, Any] = {
        "provider": "alice.example",
        "id": "0" * 64,
        "source": "w1",
        "subject": "a",
        "agent": "w1",
        "iss": "https://id.example",
        "sub": "dinah",
        "meter": meter,
        "interval": 0,
        "started_at": NOW,
        "ended_at": NOW,
        "quantity": Decimal(quantity),
        "rate_card": "c" * 64,
    }
    return Usage(**(facts | changes))


CARD = RateCard(
    provider="alice.example",
    serial=1,
    currency="EUR",
    rates=(Rate(meter="wall-seconds", unit="s", price=Decimal("0.36"), per=Decimal(3600), increment=Decimal(1)),),
    valid_from=NOW,
    valid_until=NOW,
)


def test_a_cost_counts_started_units_and_leaves_out_what_is_on_the_providers_side() -> None:
    ours = usage("10.2", reason=EndReason.SUCCEEDED)
    theirs = usage("100", reason=EndReason.SANDBOX_FAILED)
    cost = cost_of([ours, theirs], {"c" * 64: CARD})
    line = cost.lines[0]
    assert (line.quantity, line.unbilled, line.amount) == (Decimal("110.2"), Decimal(100), Decimal("0.0011"))
    assert cost.text == "0.0011 EUR"


def test_a_meter_that_the_card_does_not_list_is_free() -> None:
    assert cost_of([usage("5", "log-bytes")], {"c" * 64: CARD}).lines[0].amount == 0


def test_a_cost_without_its_rate_card_is_unknown_and_not_nothing() -> None:
    cost = cost_of([usage("5")], {})
    assert cost.lines[0].amount is None
    assert cost.text == ""


def test_money_of_two_currencies_is_never_added() -> None:
    dollars = CARD.model_copy(update={"currency": "USD"})
    events = [usage("3600"), usage("3600", rate_card="d" * 64)]
    assert cost_of(events, {"c" * 64: CARD, "d" * 64: dollars}).text == "0.3600 EUR + 0.3600 USD"
