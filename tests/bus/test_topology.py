"""Names never collide, and a right matches exactly what its table row says and nothing else."""

import re
import string
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.topology import (
    MAX_TENANTS,
    Binding,
    BusLimits,
    DeadLetterOrigin,
    Declaration,
    Exchange,
    ProviderNames,
    Queue,
    Rights,
    agent_rights,
    control_key,
    controller_rights,
    dead_letter_origin,
    jobs_key,
    usage_key,
)
from schemas.ids import tenant_id

DINAH = tenant_id("https://fatima.example", "dinah")
ELIZA = tenant_id("https://georgina.example", "eliza")
ALICE = ProviderNames("alice.example")

_inner = string.ascii_lowercase + string.digits + "-"
labels = st.builds(
    lambda first, middle, last: first + middle + last,
    st.sampled_from(string.ascii_lowercase),
    st.text(_inner, max_size=6),
    st.sampled_from(string.ascii_lowercase + string.digits),
)
tenants = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=26, max_size=26).map("t".__add__)
# Labels that look like tenants, and providers that end like one: where a join by dots could be read in two ways.
tricky_labels = labels | tenants | st.sampled_from(["ledger", "stream", "jobs"])
providers = st.lists(tricky_labels, min_size=1, max_size=3).map(".".join)
places = st.tuples(providers, tenants, tricky_labels, tricky_labels)


def queue_names(provider: str, tenant: str, pool: str, worker: str) -> dict[str, tuple[str, ...]]:
    """Each queue with the facts that its name stands for."""
    names = ProviderNames(provider)
    return {
        names.jobs_queue(tenant, pool): ("jobs", provider, tenant, pool),
        names.control_queue(tenant, worker): ("control", provider, tenant, worker),
        names.replies(tenant): ("replies", provider, tenant),
        names.logs(tenant): ("logs", provider, tenant),
        names.receipts_queue: ("receipts", provider),
        names.billing_ledger_queue: ("ledger", provider),
        names.billing_stream: ("stream", provider),
        names.dead_queue: ("dead", provider),
    }


def exchange_names(provider: str, tenant: str, *_: str) -> dict[str, tuple[str, ...]]:
    names = ProviderNames(provider)
    return {
        names.jobs_exchange(tenant): ("jobs", provider, tenant),
        names.control_exchange(tenant): ("control", provider, tenant),
        names.replies(tenant): ("replies", provider, tenant),
        names.logs(tenant): ("logs", provider, tenant),
        names.receipts_exchange(tenant): ("receipts", provider, tenant),
        names.billing_exchange: ("billing", provider),
        names.dead_exchange: ("dead", provider),
    }


@given(places, places)
def test_no_two_facts_give_the_same_queue(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    known = queue_names(*one)
    for name, facts in queue_names(*other).items():
        assert known.get(name, facts) == facts


@given(places, places)
def test_no_two_facts_give_the_same_exchange(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    known = exchange_names(*one)
    for name, facts in exchange_names(*other).items():
        assert known.get(name, facts) == facts


@given(places)
def test_an_exchange_tells_its_tenant(place: tuple[str, ...]) -> None:
    names = ProviderNames(place[0])
    for name, facts in exchange_names(*place).items():
        assert names.tenant_of(name) == (facts[2] if len(facts) > 2 else None)


@pytest.mark.parametrize(
    "exchange", ["", "jobs.alice.example", f"jobs.other.{DINAH}", f"else.alice.example.{DINAH}", f"{DINAH}", "billing."]
)
def test_a_strange_exchange_tells_no_tenant(exchange: str) -> None:
    assert ALICE.tenant_of(exchange) is None


def all_names(declarations: Iterable[Declaration]) -> set[str]:
    return {part.name for part in declarations if not isinstance(part, Binding)}


EVERYTHING = sorted(
    all_names(ALICE.declarations(DINAH, ["fast", "boards"], ["w1", "w7"]))
    | all_names(ALICE.declarations(ELIZA, ["fast", "boards"], ["w1", "w7"]))
    | {"", "amq.default", "amq.topic", "amq.gen-x", "amq.rabbitmq.reply-to", "jobsXalice.example." + DINAH}
)


def matched(pattern: str) -> set[str]:
    """What RabbitMQ would allow: it searches, so only the anchors in the pattern hold a match to the whole name."""
    return {name for name in EVERYTHING if re.search(pattern, name)} - {""}


def of(tenant: str, *kinds: str) -> set[str]:
    return {f"{kind}.alice.example.{tenant}" for kind in kinds}


RIGHTS: dict[str, tuple[Rights, set[str], set[str]]] = {
    "controller": (
        controller_rights("alice.example", DINAH),
        of(DINAH, "replies", "logs"),
        of(DINAH, "jobs", "control", "receipts"),
    ),
    "worker": (
        agent_rights("worker", "alice.example", [DINAH, ELIZA], worker="w7", pools=["fast"]),
        {f"jobs.alice.example.{t}.fast" for t in (DINAH, ELIZA)}
        | {f"control.alice.example.{t}.w7" for t in (DINAH, ELIZA)},
        of(DINAH, "replies", "logs") | of(ELIZA, "replies", "logs") | {"billing.alice.example"},
    ),
    "worker without tenants": (
        agent_rights("worker", "alice.example", [], worker="w7", pools=["fast"]),
        set(),
        {"billing.alice.example"},
    ),
    "store": (
        agent_rights("store", "alice.example", [ELIZA]),
        set(),
        of(ELIZA, "replies") | {"billing.alice.example"},
    ),
    "ledger": (
        agent_rights("ledger", "alice.example", [DINAH]),
        {"receipts.alice.example", "billing.alice.example.ledger", "billing.alice.example.stream"},
        of(DINAH, "replies"),
    ),
    "desk": (
        agent_rights("desk", "alice.example", [DINAH]),
        {"dead.alice.example"},
        of(DINAH, "replies"),
    ),
}


@pytest.mark.parametrize("role", RIGHTS)
def test_a_role_may_touch_its_names_and_nothing_else(role: str) -> None:
    rights, reads, writes = RIGHTS[role]
    assert matched(rights.read) == reads
    assert matched(rights.write) == writes
    assert matched(rights.configure) == set()


@given(places, places)
def test_rights_at_one_tenant_give_nothing_at_another(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    rights = controller_rights(one[0], one[1])
    strange = queue_names(*other) | exchange_names(*other)
    for name, facts in strange.items():
        if facts[1:3] != one[:2]:
            assert not re.search(rights.write, name) or name in exchange_names(*one)
            assert not re.search(rights.read, name) or name in queue_names(*one)


@pytest.mark.parametrize("role", RIGHTS)
@given(data=st.data())
def test_a_changed_character_is_another_name(role: str, data: st.DataObject) -> None:
    rights, reads, writes = RIGHTS[role]
    for pattern, names in ((rights.read, reads), (rights.write, writes)):
        for name in names:
            at = data.draw(st.integers(0, len(name) - 1))
            letter = data.draw(st.sampled_from("x.-_7"))
            changed = name[:at] + letter + name[at + 1 :]
            assert bool(re.search(pattern, changed)) == (changed in names)


@pytest.mark.parametrize("wrong", ["", "Alice", "a.", ".a", "a..b", "a|b", "a*", "-a", "a" * 41, "a\n", "a.b\n", "é"])
def test_what_is_no_provider_gives_no_names(wrong: str) -> None:
    with pytest.raises(ValueError, match="not a provider"):
        ProviderNames(wrong)


@pytest.mark.parametrize("wrong", ["", "#", "*", "a.b", "a|b", "A", "-", "x" * 41, "w\n"])
def test_what_is_no_label_gives_no_key_and_no_right(wrong: str) -> None:
    with pytest.raises(ValueError, match="not a pool"):
        jobs_key(wrong)
    with pytest.raises(ValueError, match="not a worker"):
        control_key(wrong)
    with pytest.raises(ValueError, match="not a pool"):
        ALICE.jobs_queue(DINAH, wrong)
    with pytest.raises(ValueError, match="not a meter"):
        usage_key(DINAH, wrong + ".")


@pytest.mark.parametrize("wrong", ["", "dinah", DINAH[:-1], DINAH + "a", DINAH.upper(), ".*", DINAH + "\n"])
def test_what_is_no_tenant_gives_no_name_and_no_right(wrong: str) -> None:
    with pytest.raises(ValueError, match="not a tenant id"):
        ALICE.replies(wrong)
    with pytest.raises(ValueError, match="not a tenant id"):
        agent_rights("store", "alice.example", [wrong])


def test_more_tenants_than_rabbitmq_can_hold_in_one_right_are_refused() -> None:
    many = [tenant_id("https://fatima.example", str(number)) for number in range(MAX_TENANTS + 1)]
    assert agent_rights("store", "alice.example", many[1:]).write
    with pytest.raises(ValueError, match="at most 500"):
        agent_rights("store", "alice.example", many)


def test_everything_bound_is_declared_before_its_binding() -> None:
    seen: set[str] = set()
    for part in ALICE.declarations(DINAH, ["fast"], ["w7"]):
        if isinstance(part, Binding):
            assert {part.exchange, part.queue} <= seen
        else:
            seen.add(part.name)


def test_every_queue_is_bound_once_and_only_billing_has_two_readers() -> None:
    bindings = [part for part in ALICE.declarations(DINAH, ["fast"], ["w7"]) if isinstance(part, Binding)]
    queues = [part.name for part in ALICE.declarations(DINAH, ["fast"], ["w7"]) if isinstance(part, Queue)]
    assert sorted(binding.queue for binding in bindings) == sorted(queues)
    twice = {name for name, count in Counter(binding.exchange for binding in bindings).items() if count > 1}
    assert twice == {"billing.alice.example"}


def test_every_queue_with_a_limit_refuses_and_every_quorum_queue_says_its_delivery_limit() -> None:
    for part in ALICE.declarations(DINAH, ["fast"], ["w7"]):
        if isinstance(part, Queue) and part.arguments.get("x-queue-type") != "stream":
            assert part.arguments["x-overflow"] == "reject-publish"
            assert part.arguments.get("x-max-length-bytes") or part.arguments.get("x-max-length")
            assert ("x-delivery-limit" in part.arguments) == (part.arguments.get("x-queue-type") == "quorum")


def test_the_owner_may_set_smaller_limits() -> None:
    small = ALICE.tenant_declarations(DINAH, ["fast"], ["w7"], BusLimits(job_messages=3, log_bytes=1000))
    queues = {part.name: part.arguments for part in small if isinstance(part, Queue)}
    assert queues[ALICE.jobs_queue(DINAH, "fast")]["x-max-length"] == 3
    assert queues[ALICE.logs(DINAH)]["x-max-length-bytes"] == 1000


def test_a_dead_job_says_whose_it_was() -> None:
    (queue,) = (p for p in ALICE.tenant_declarations(DINAH, ["fast"], []) if isinstance(p, Queue) and "jobs" in p.name)
    key = str(queue.arguments["x-dead-letter-routing-key"])
    assert dead_letter_origin(key) == DeadLetterOrigin(DINAH, "fast")


@pytest.mark.parametrize("key", ["", "fast", DINAH, f"{DINAH}.", f".{DINAH}", f"{DINAH}.a.b", f"{ELIZA}x.fast"])
def test_a_key_that_no_queue_of_ours_sets_has_no_origin(key: str) -> None:
    assert dead_letter_origin(key) is None


def test_what_goes_with_a_tenant_is_its_own_and_nobody_elses() -> None:
    of_dinah = all_names(ALICE.tenant_declarations(DINAH, ["fast"], ["w7"]))
    assert {name for name in EVERYTHING if ALICE.is_of_tenant(name, DINAH)} >= of_dinah
    rest = all_names(ALICE.declarations(ELIZA, ["fast"], ["w7"]))
    assert not [name for name in rest if ALICE.is_of_tenant(name, DINAH)]


def test_the_exchanges_have_the_types_of_the_table() -> None:
    types = {p.name.split(".")[0]: p.type for p in ALICE.declarations(DINAH, [], []) if isinstance(p, Exchange)}
    assert types == {
        "jobs": "direct",
        "control": "direct",
        "replies": "fanout",
        "logs": "fanout",
        "receipts": "fanout",
        "billing": "topic",
        "dead": "fanout",
    }
