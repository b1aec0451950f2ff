"""Who gets a tab, who may use it, and what it allows: mostly refusals, each with its reason."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from agents.store import admission
from identity.keys import SigningKey
from runtime.store_client import Tab
from schemas import store_api
from schemas.ids import new_message_id, provider_audience, store_audience
from schemas.refusals import Reason, Refusal
from schemas.store_api import StoreRequest
from tests.agents.store.world import Customer, World, digest_of, reason
from tests.issuers import FakeIssuer


async def refused(world: World, ticket: bytes, key: SigningKey | None = None) -> str:
    """Why this ticket opens nothing."""
    opened = await world.client(key or world.dinah.key).open_tab(ticket)
    assert isinstance(opened, Refusal), opened
    return opened.reason


async def present(world: World, ticket: bytes, **spoilt: Any) -> httpx.Response:
    return await world.ask("-", "POST", "/tabs", digest=digest_of(ticket), body=ticket, **spoilt)


# -- opening


async def test_a_ticket_opens_a_tab_that_says_what_it_allows(world: World) -> None:
    tab = await world.tab(write_bytes=77, tab_ends_at=world.clock.now() + timedelta(minutes=5))
    assert tab.ends_at == world.clock.now() + timedelta(minutes=5)
    assert tab.write_prefix == "almanac/run1/build/attempt1/"


async def test_no_tab_lasts_longer_than_the_store_lets_tabs_last(world: World) -> None:
    tab = await world.tab(tab_ends_at=world.clock.now() + timedelta(days=365))
    assert tab.ends_at == world.clock.now() + timedelta(hours=25)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"audience": store_audience("alice.example")}, Reason.AUDIENCE),
        ({"audience": provider_audience("bettina.example")}, Reason.AUDIENCE),
        ({"aud": store_audience("alice.example")}, Reason.IDENTITY_MISMATCH),
        ({"sub": "eliza"}, Reason.IDENTITY_MISMATCH),
        ({"ath": "0" * 64}, Reason.TOKEN_HASH_MISMATCH),
        ({"write_prefix": None, "tab_ends_at": Ellipsis}, Reason.EXPIRED),
    ],
)
async def test_a_ticket_must_be_for_this_store_and_this_account(
    world: World, changes: dict[str, Any], expected: Reason
) -> None:
    if changes.get("tab_ends_at") is Ellipsis:
        changes = {**changes, "tab_ends_at": world.clock.now()}
    assert await refused(world, world.dinah.ticket(**changes)) == expected


async def test_a_ticket_is_good_for_a_minute(world: World) -> None:
    ticket = world.dinah.ticket()
    world.clock.advance(120)
    assert await refused(world, ticket) == Reason.EXPIRED


async def test_an_account_of_an_unknown_issuer_is_refused(world: World) -> None:
    stranger = Customer(FakeIssuer("https://mallory.example", world.clock), "dinah", world.dinah.key, world.clock)
    assert await refused(world, stranger.ticket()) == Reason.ISSUER_UNTRUSTED


async def test_a_session_ticket_opens_no_tab(world: World) -> None:
    assert reason(await present(world, world.dinah.session_ticket())) == Reason.WRONG_KIND


async def test_who_is_no_tenant_of_the_provider_is_sent_to_its_desk(world: World) -> None:
    world.tenants = {world.eliza.tenant}
    opened = await world.client(world.dinah.key).open_tab(world.dinah.ticket())
    assert isinstance(opened, Refusal)
    assert (opened.reason, "open a session at the provider's desk" in opened.detail) == (Reason.NOT_ADMITTED, True)


async def test_while_the_desk_is_away_known_tenants_are_served_and_new_ones_wait(world: World) -> None:
    await world.tab(world.dinah)
    world.tenants = None
    await world.tab(world.dinah)
    response = await world.ask(
        "-", "POST", "/tabs", digest=digest_of(raw := world.eliza.ticket()), key=world.eliza.key, body=raw
    )
    assert (response.status_code, reason(response)) == (503, Reason.UNAVAILABLE)


async def test_a_ticket_shown_again_by_its_holder_is_the_same_tab(world: World) -> None:
    ticket = world.dinah.ticket()
    first, second = [await world.client(world.dinah.key).open_tab(ticket) for _ in range(2)]
    assert isinstance(first, Tab)
    assert isinstance(second, Tab)
    assert first.id == second.id


async def test_a_ticket_whose_tab_is_over_opens_no_second_one(world: World) -> None:
    ticket = world.dinah.ticket()
    opened = await world.client(world.dinah.key).open_tab(ticket)
    assert isinstance(opened, Tab)
    await opened.close()
    assert await refused(world, ticket) == Reason.REPLAYED


async def test_two_tickets_of_one_id_are_an_alarm(world: World) -> None:
    ticket_id = new_message_id()
    await world.tab(id=ticket_id)
    assert await refused(world, world.dinah.ticket(id=ticket_id)) == Reason.EQUIVOCATION


async def test_a_stolen_ticket_opens_nothing_for_the_thief(world: World) -> None:
    ticket = world.dinah.ticket()
    assert await refused(world, ticket, world.eliza.key) == Reason.REQUEST_SIGNATURE
    assert isinstance(await world.client(world.dinah.key).open_tab(ticket), Tab)


async def test_a_ticket_is_for_the_holder_that_it_names(world: World) -> None:
    worker = SigningKey.generate()
    ticket = world.dinah.ticket(holder_key=worker.public)
    assert await refused(world, ticket, world.dinah.key) == Reason.REQUEST_SIGNATURE
    assert isinstance(await world.client(worker).open_tab(ticket), Tab)


@pytest.mark.parametrize(
    ("raw", "status", "expected"),
    [(b"", 400, "malformed-frame"), (b"\x00" * 1000, 400, "malformed-frame"), (b"x" * 70_000, 413, "too-large")],
)
async def test_what_is_no_envelope_is_refused(world: World, raw: bytes, status: int, expected: str) -> None:
    response = await present(world, raw)
    assert (response.status_code, reason(response)) == (status, expected)


# -- asking through a tab


async def test_every_request_is_signed_by_the_holder(world: World) -> None:
    tab = await world.tab()
    path = store_api.name_path(tab.id, "almanac/x")
    spoilt: list[dict[str, Any]] = [
        {"key": world.eliza.key},
        {"method": "PUT"},
        {"path": path + "y"},
        {"digest": "0" * 64},
        {"tab": "b" + "a" * 26},
    ]
    for changes in spoilt:
        key = changes.pop("key", world.dinah.key)
        said = {"tab": tab.id, "method": "GET", "path": path, "digest": "-", **changes}
        headers = StoreRequest(**said, at=world.clock.now()).headers(key.private)
        assert reason(await world.http.get(world.url + path, headers=headers)) == Reason.REQUEST_SIGNATURE, changes
    assert reason(await world.http.get(world.url + path)) == Reason.REQUEST_SIGNATURE
    assert reason(await world.ask(tab.id, "GET", path)) == Reason.NOT_FOUND


async def test_a_request_recorded_and_played_later_is_refused(world: World) -> None:
    tab = await world.tab()
    path, then = store_api.name_path(tab.id, "almanac/x"), world.clock.now()
    world.clock.advance(600)
    assert reason(await world.ask(tab.id, "GET", path, at=then)) == Reason.REQUEST_EXPIRED


async def test_a_signature_for_one_blob_is_none_for_another(world: World) -> None:
    tab = await world.tab()
    digest = await world.put(tab, b"one")
    other = digest_of(b"other")
    response = await world.ask(tab.id, "GET", store_api.blob_path(tab.id, digest), digest=other)
    assert reason(response) == Reason.REQUEST_SIGNATURE


async def test_one_tab_does_not_open_another(world: World) -> None:
    mine, theirs = await world.tab(world.dinah), await world.tab(world.eliza)
    path = store_api.name_path(theirs.id, "almanac/x")
    assert reason(await world.ask(theirs.id, "GET", path, key=world.dinah.key)) == Reason.REQUEST_SIGNATURE
    assert reason(await world.ask(mine.id, "GET", path, key=world.dinah.key)) == Reason.REQUEST_SIGNATURE


async def test_an_unknown_tab_is_unknown(world: World) -> None:
    tab = "b" + "a" * 26
    assert reason(await world.ask(tab, "GET", store_api.name_path(tab, "x"))) == Reason.TAB_UNKNOWN


@pytest.mark.parametrize("end", ["closed", "over"])
async def test_nothing_goes_through_a_tab_that_is_over(world: World, end: str) -> None:
    tab = await world.tab()
    digest = await world.put(tab, b"data")
    if end == "closed":
        await tab.close()
    else:
        world.clock.advance(3600)
    for answer in (
        await tab.put_bytes(b"more"),
        await tab.name("x", digest, 4),
        await tab.find("almanac/x"),
    ):
        assert isinstance(answer, Refusal)
        assert answer.reason is Reason.TAB_ENDED
    async with tab.stream(digest) as blob:
        assert isinstance(blob, Refusal)
        assert blob.reason is Reason.TAB_ENDED


async def test_an_upload_that_outlives_its_tab_is_not_kept(world: World) -> None:
    tab, data = await world.tab(), bytes(600_000)
    path = f"{store_api.upload_path(tab.id, digest_of(data))}?offset=0&size={len(data)}"

    async def late() -> Any:
        yield data[:300_000]
        await world.receiving()
        world.clock.advance(3600)
        yield data[300_000:]

    response = await world.ask(
        tab.id, "PUT", path, digest=digest_of(data), body=late(), headers={"content-length": str(len(data))}
    )
    assert reason(response) == Reason.TAB_ENDED
    assert world.files() == []


async def test_closing_twice_says_the_same(world: World) -> None:
    tab = await world.tab()
    await world.put(tab, b"data")
    first, second = await tab.close(), await tab.close()
    assert first == second
    assert not isinstance(first, Refusal)
    assert (first.bytes_in, first.bytes_out) == (4, 0)


async def test_a_revoked_account_loses_its_open_tabs(world: World) -> None:
    tab = await world.tab()
    world.clock.advance(61)
    world.issuers[0].revoke_subject("dinah")
    world.clock.advance(61)
    await world.tab(world.eliza)
    await world.services.tabs._trust.prime()
    answer = await tab.put_bytes(b"data")
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.REVOKED


# -- limits


async def test_a_ticket_without_bytes_lets_nothing_be_written(world: World) -> None:
    answer = await (await world.tab(write_bytes=0)).put_bytes(b"x")
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.OUTSIDE_TICKET


async def test_uploads_together_stay_within_the_ticket(world: World) -> None:
    tab = await world.tab(write_bytes=10)
    await world.put(tab, b"123456")
    answer = await tab.put_bytes(b"abcdef")
    assert isinstance(answer, Refusal)
    assert (answer.reason, "4 more bytes" in answer.detail) == (Reason.OUTSIDE_TICKET, True)
    await world.put(tab, b"abcd")


async def test_room_is_kept_for_an_upload_from_its_first_byte(world: World) -> None:
    tab, data = await world.tab(write_bytes=600_000), bytes(600_000)
    path = f"{store_api.upload_path(tab.id, digest_of(data))}?offset=0&size={len(data)}"

    async def while_another_asks() -> Any:
        yield data[:300_000]
        await world.receiving()
        answer = await tab.put_bytes(b"x")
        assert isinstance(answer, Refusal)
        assert answer.reason is Reason.OUTSIDE_TICKET
        yield data[300_000:]

    response = await world.ask(
        tab.id, "PUT", path, digest=digest_of(data), body=while_another_asks(), headers={"content-length": "600000"}
    )
    assert response.json()["is_complete"]


# -- names


async def test_a_name_finds_its_blob(world: World) -> None:
    tab = await world.tab()
    digest = await world.put(tab, b"data")
    assert await tab.name("Über/das #Wetter%.txt", digest, 4) is None
    found = await tab.find("almanac/run1/build/attempt1/Über/das #Wetter%.txt")
    assert not isinstance(found, Refusal)
    assert (found.digest, found.size_bytes) == (digest, 4)


async def test_a_name_given_twice_to_one_blob_is_one_name_and_never_another_blob_s(world: World) -> None:
    tab = await world.tab()
    one, other = await world.put(tab, b"one"), await world.put(tab, b"other")
    assert await tab.name("x", one, 3) is None
    assert await tab.name("x", one, 3) is None
    answer = await tab.name("x", other, 5)
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.CONFLICT


BAD_PATHS = ["../attempt2/x", "a/../../x", "./x", "a//b", "", "/x", "a\\b", "a\nb", "x" * 401]


@pytest.mark.parametrize("path", BAD_PATHS)
async def test_a_name_is_a_plain_path_below_the_prefix(world: World, path: str) -> None:
    tab = await world.tab()
    asked_of_client = await tab.name(path, "0" * 64, 4)
    asked_of_store = admission.check_name(f"almanac/{path}", "almanac/")
    for answer in (asked_of_client, asked_of_store):
        assert isinstance(answer, Refusal)
        assert answer.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize("path", ["%2e%2e%2fattempt2%2fx", "a%2f%2fb", "a%5cb", "a%00b"])
async def test_escapes_hide_nothing(world: World, path: str) -> None:
    tab = await world.tab()
    digest = await world.put(tab, b"data")
    where = store_api.name_path(tab.id, "almanac/run1/build/attempt1/") + path
    body = f'{{"digest": "{digest}", "size_bytes": 4}}'.encode()
    assert reason(await world.ask(tab.id, "PUT", where, digest=digest, body=body)) == Reason.INVALID_REQUEST


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("POST", "/tabs/x"), ("DELETE", "/tabs"), ("GET", "/a%0Ab")]
)
async def test_other_addresses_are_refused_as_everything_else(world: World, method: str, path: str) -> None:
    assert reason(await world.ask("-", method, path)) in (Reason.NOT_FOUND, Reason.INVALID_REQUEST)


async def test_a_name_outside_the_prefix_is_refused(world: World) -> None:
    tab = await world.tab()
    digest = await world.put(tab, b"data")
    path = store_api.name_path(tab.id, "almanac/run1/build/attempt2/x")
    body = f'{{"digest": "{digest}", "size_bytes": 4}}'.encode()
    assert reason(await world.ask(tab.id, "PUT", path, digest=digest, body=body)) == Reason.OUTSIDE_TICKET


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"digest": "x", "size_bytes": 4}', b"{" * 5000])
async def test_what_is_to_be_named_is_said_in_the_body(world: World, body: bytes) -> None:
    tab = await world.tab()
    response = await world.ask(tab.id, "PUT", store_api.name_path(tab.id, "almanac/x"), body=body)
    assert reason(response) in (Reason.INVALID_REQUEST, Reason.TOO_LARGE)


async def test_a_wrong_size_is_not_published(world: World) -> None:
    tab = await world.tab()
    digest = await world.put(tab, b"data")
    answer = await tab.name("x", digest, 5)
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.INVALID_REQUEST


async def test_names_are_seen_from_their_prefix_and_by_who_may_read_all(world: World) -> None:
    job, other = await world.tab(), await world.tab(write_prefix="almanac/run1/test/attempt1/")
    digest = await world.put(job, b"data")
    await job.name("x", digest, 4)
    name = "almanac/run1/build/attempt1/x"
    answers = {
        "own": await job.find(name),
        "other": await other.find(name),
        "controller": await (await world.tab(reads_all=True, write_prefix=None)).find(name),
        "stranger": await (await world.tab(world.eliza, reads_all=True)).find(name),
    }
    assert {who: not isinstance(answer, Refusal) for who, answer in answers.items()} == {
        "own": True,
        "other": False,
        "controller": True,
        "stranger": False,
    }
