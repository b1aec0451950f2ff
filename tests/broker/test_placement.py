"""Who is asked to run a job, and the sentence that everybody else's owner can act on."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.decisions.placement import Obstacle, Offer, Wanted, place
from broker.decisions.retry import Bars, PastRefusal
from schemas.orders import Resources
from schemas.refusals import Reason
from schemas.registry import SPEAKS
from schemas.statements import Card, Pool
from schemas.tickets import Toolchain
from tests.clocks import START

ISSUER = "https://fatima.example"
WANTED = Wanted(issuer=ISSUER, labels=("os=linux",), toolchains=("python",))
NO_BARS = Bars({}, {}, None)


def pool(**changes: Any) -> Pool:
    facts: dict[str, Any] = {
        "name": "main",
        "workers": ("w1", "w2"),
        "labels": ("os=linux",),
        "toolchains": (Toolchain(name="python"),),
        "stores": ("bettina.example",),
        "slots": 2,
        "cores": 4,
        "memory_bytes": 2**33,
        "disk_bytes": 2**35,
        "is_network_allowed": False,
    }
    return Pool(**(facts | changes))


def card(name: str, *pools: Pool, **changes: Any) -> Card:
    facts: dict[str, Any] = {
        "provider": name,
        "serial": 1,
        "desk_url": f"https://{name}",
        "issuers": (ISSUER,),
        "agents": (),
        "pools": pools,
        "store": None,
        "rate_card": "a" * 64,
        "speaks": SPEAKS,
        "issued_at": START,
        "expires_at": START + timedelta(days=1),
    }
    return Card(**(facts | changes))


def offer(name: str = "alice.example", *pools: Pool, **changes: Any) -> Offer:
    return Offer(provider=name, card=card(name, *(pools or (pool(),)), **changes))


def obstacles(wanted: Wanted, *offers: Offer, bars: Bars = NO_BARS) -> list[Obstacle]:
    placed = place(wanted, offers, bars, frozenset(), START)
    assert not placed.choices
    return [why.obstacle for why in placed.why_not]


def test_a_pool_that_has_everything_is_asked_under_the_cards_rate_card() -> None:
    (choice,) = place(WANTED, (offer(),), NO_BARS, frozenset(), START).choices
    assert (choice.provider, choice.pool, choice.rate_card) == ("alice.example", "main", "a" * 64)


def test_without_any_provider_the_job_says_how_to_introduce_one() -> None:
    (why,) = place(WANTED, (), NO_BARS, frozenset(), START).why_not
    assert (why.obstacle, why.provider) == (Obstacle.NO_PROVIDER, "")
    assert "fedci controller provider add" in why.detail


BARRED = PastRefusal("alice.example", "w1", Reason.NETWORK_NOT_ALLOWED, "final", START)


@pytest.mark.parametrize(
    ("wanted", "given", "obstacle"),
    [
        (replace(WANTED, project_providers=("cecilia.example",)), offer(), Obstacle.NOT_WANTED),
        (replace(WANTED, providers=("cecilia.example",)), offer(), Obstacle.NOT_WANTED),
        (WANTED, replace(offer(), alarm="its root key changed"), Obstacle.ALARM),
        (WANTED, replace(offer(), card=None), Obstacle.CARD_MISSING),
        (WANTED, offer(expires_at=START), Obstacle.CARD_EXPIRED),
        (WANTED, offer(issuers=("https://georgina.example",)), Obstacle.ISSUER_UNTRUSTED),
        (WANTED, offer(speaks=("fedci.job/9",)), Obstacle.UNKNOWN_VERSION),
        (WANTED, replace(offer(), session_trouble="the desk refused"), Obstacle.NO_SESSION),
        (WANTED, offer("alice.example", pool(labels=())), Obstacle.LABELS_NOT_OFFERED),
        (WANTED, offer("alice.example", pool(toolchains=())), Obstacle.TOOLCHAIN_NOT_OFFERED),
        (replace(WANTED, resources=Resources(cores=5)), offer(), Obstacle.RESOURCES_TOO_LARGE),
        (replace(WANTED, network=True), offer(), Obstacle.NETWORK_NOT_ALLOWED),
        (replace(WANTED, store="other.example"), offer(), Obstacle.STORE_NOT_REACHABLE),
        (WANTED, offer("alice.example", pool(workers=(), slots=0)), Obstacle.NO_WORKER),
        (WANTED, replace(offer(), in_flight={"main": 6}), Obstacle.QUEUE_FULL),
    ],
)
def test_every_obstacle_has_its_name(wanted: Wanted, given: Offer, obstacle: Obstacle) -> None:
    assert obstacles(wanted, given) == [obstacle]


def test_a_provider_without_a_pool_says_so() -> None:
    given = replace(offer(), card=card("alice.example"))
    assert obstacles(WANTED, given) == [Obstacle.NO_POOL]


def test_a_barred_provider_is_not_asked() -> None:
    assert obstacles(WANTED, offer(), bars=Bars({"alice.example": BARRED}, {}, None)) == [Obstacle.REFUSED]


def test_a_pool_is_asked_as_long_as_one_of_its_workers_has_not_refused() -> None:
    one = {("alice.example", "w1"): BARRED}
    assert place(WANTED, (offer(),), Bars({}, one, None), frozenset(), START).choices
    both = one | {("alice.example", "w2"): replace(BARRED, agent="w2")}
    assert obstacles(WANTED, offer(), bars=Bars({}, both, None)) == [Obstacle.REFUSED]


def test_the_less_loaded_comes_first_and_where_it_went_wrong_comes_last() -> None:
    busy = replace(offer("alice.example"), in_flight={"main": 3})
    idle = offer("cecilia.example")
    placed = place(WANTED, (busy, idle), NO_BARS, frozenset(), START)
    assert [choice.provider for choice in placed.choices] == ["cecilia.example", "alice.example"]
    placed = place(WANTED, (busy, idle), NO_BARS, frozenset({"cecilia.example"}), START)
    assert [choice.provider for choice in placed.choices] == ["alice.example", "cecilia.example"]


def test_a_detail_says_what_is_missing_and_what_is_there() -> None:
    (why,) = place(replace(WANTED, labels=("board=k1",)), (offer(),), NO_BARS, frozenset(), START).why_not
    assert why.detail == "pool main: has not `board=k1`; it has `os=linux`"
