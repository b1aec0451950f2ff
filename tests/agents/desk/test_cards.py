"""The card: a pool promises what all of its workers can do, and a serial only grows."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agents.desk.cards import CARD_LIFE, CardFacts, next_card, pools_of
from schemas.tickets import Toolchain, WorkerOffer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PYTHON, GO = Toolchain(name="python"), Toolchain(name="go")


def offer(pool: str = "fast", **changes: Any) -> WorkerOffer:
    fields: dict[str, Any] = {
        "pool": pool,
        "labels": ("os=linux", "arch=x86_64"),
        "toolchains": (PYTHON, GO),
        "stores": ("bettina.example",),
        "slots": 2,
        "cores": 4,
        "memory_bytes": 8,
        "disk_bytes": 100,
        "is_network_allowed": True,
    }
    return WorkerOffer(**{**fields, **changes})


def facts(**changes: Any) -> CardFacts:
    fields: dict[str, Any] = {
        "provider": "alice.example",
        "desk_url": "https://desk.alice.example",
        "issuers": (),
        "agents": (),
        "pools": (),
        "store": None,
        "rate_card": "0" * 64,
    }
    return CardFacts(**{**fields, **changes})


def test_a_pool_promises_what_each_of_its_workers_can_do() -> None:
    weaker = offer(labels=("os=linux",), toolchains=(GO,), stores=(), slots=1, cores=1, is_network_allowed=False)
    (pool,) = pools_of({"w2": weaker, "w1": offer()})
    assert pool.workers == ("w1", "w2")
    assert pool.labels == ("os=linux",)
    assert pool.toolchains == (GO,)
    assert pool.stores == ()
    assert pool.slots == 3
    assert pool.cores == 1
    assert not pool.is_network_allowed


def test_workers_that_name_different_pools_make_different_pools() -> None:
    assert [pool.name for pool in pools_of({"w1": offer("slow"), "w2": offer("fast")})] == ["fast", "slow"]


@given(st.permutations(["w1", "w2", "w3"]))
def test_the_order_of_arrival_changes_nothing(order: list[str]) -> None:
    offers = {name: offer(slots=int(name[1])) for name in order}
    assert pools_of(offers) == pools_of(dict(sorted(offers.items())))


def test_the_first_card_has_serial_one_and_equal_facts_need_no_second() -> None:
    first = next_card(facts(), None, NOW)
    assert first is not None
    assert first.serial == 1
    assert next_card(facts(), first, NOW + timedelta(days=1)) is None


def test_changed_facts_and_half_a_life_make_the_next_card() -> None:
    first = next_card(facts(), None, NOW)
    assert first is not None
    changed = next_card(facts(pools=pools_of({"w1": offer()})), first, NOW)
    renewed = next_card(facts(), first, NOW + CARD_LIFE / 2)
    assert changed is not None
    assert renewed is not None
    assert changed.serial == renewed.serial == 2
    assert renewed.expires_at == NOW + CARD_LIFE / 2 + CARD_LIFE
