"""What is billed: every byte and hour once, by facts that no repetition multiplies."""

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.store.metering import gib_hours, hours_between
from schemas import limits
from schemas.refusals import Reason, Refusal
from schemas.statements import Usage, usage_id
from tests.agents.store.world import NewWorld, World, digest_of

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
DATA = b"x" * 1024


# -- arithmetic


@pytest.mark.parametrize(
    ("size", "length", "expected"),
    [
        (limits.GIB, HOUR, "1"),
        (limits.GIB, 15 * MINUTE, "0.25"),
        (512 * limits.MIB, HOUR, "0.5"),
        (1, HOUR, "0.000000000931"),
        (0, HOUR, "0"),
        (10 * limits.GIB, timedelta(milliseconds=1), "0.000002777778"),
    ],
)
def test_gib_hours_are_exact_to_the_last_place_of_the_wire(size: int, length: timedelta, expected: str) -> None:
    assert gib_hours(size, length) == Decimal(expected)


def test_only_hours_that_are_over_are_stated_and_the_first_may_be_a_part() -> None:
    assert hours_between(NOON + 20 * MINUTE, NOON + 2 * HOUR + 59 * MINUTE) == [
        (NOON + 20 * MINUTE, NOON + HOUR),
        (NOON + HOUR, NOON + 2 * HOUR),
    ]
    assert hours_between(NOON + 20 * MINUTE, NOON + 59 * MINUTE) == []


@given(start=st.integers(0, 10**7), length=st.integers(0, 10**6))
def test_pieces_join_without_gap_or_overlap(start: int, length: int) -> None:
    begin = NOON + timedelta(seconds=start)
    pieces = hours_between(begin, begin + timedelta(seconds=length))
    ends = [begin, *(end for _, end in pieces)]
    assert [piece[0] for piece in pieces] == ends[:-1]
    assert begin + timedelta(seconds=length) - ends[-1] < HOUR


# -- transfers


async def test_a_tab_states_what_went_through_it_once_to_the_ledger_and_to_the_customer(
    world: World, tmp_path: Path
) -> None:
    tab = await world.tab()
    digest = await world.put(tab, DATA)
    opened_at = world.clock.now()
    for _ in range(3):
        await tab.get_to_file(digest, tmp_path / "in", 2000)
    world.clock.advance(60)
    await tab.close()
    await world.services.sweeper.sweep()
    stated = await world.stated()
    tenant = world.dinah.tenant
    assert [(where, str(usage.meter), int(usage.quantity)) for where, usage in stated] == [
        (f"billing.bettina.example usage.{tenant}.store-bytes-in", "store-bytes-in", 1024),
        (f"replies.bettina.example.{tenant} ", "store-bytes-in", 1024),
        (f"billing.bettina.example usage.{tenant}.store-bytes-out", "store-bytes-out", 3072),
        (f"replies.bettina.example.{tenant} ", "store-bytes-out", 3072),
    ]
    usage = stated[0][1]
    assert usage == Usage(
        provider="bettina.example",
        id=usage_id("bettina.example", f"{tab.id}:in", "store-bytes-in", 0),
        source="fedci:provider:bettina.example/store/store",
        subject=f"{tab.id}:in",
        agent="store",
        iss=world.dinah.issuer.url,
        sub="dinah",
        meter="store-bytes-in",
        interval=0,
        started_at=opened_at,
        ended_at=opened_at + MINUTE,
        quantity=Decimal(1024),
        rate_card=world.desk.rate_card or "",
        project="almanac",
        attempt=usage.attempt,
    )
    assert usage.attempt is not None


async def test_a_tab_nobody_closed_is_billed_at_its_end(world: World) -> None:
    tab = await world.tab()
    await world.put(tab, DATA)
    await world.services.sweeper.sweep()
    assert await world.billed("store-bytes-in") == {}
    world.clock.advance(3600)
    await world.services.sweeper.sweep()
    assert await world.billed("store-bytes-in") == {f"{tab.id}:in": 1024}


async def test_a_tab_through_which_nothing_went_is_no_fact(world: World) -> None:
    await (await world.tab()).close()
    assert await world.stated() == []


async def test_facts_are_stated_once_across_restarts(world: World) -> None:
    tab = await world.tab()
    await world.put(tab, DATA)
    await tab.close()
    world.clock.advance(3 * 3600)
    await world.services.sweeper.sweep()
    before = await world.stated()
    async with world.running():
        await world.services.sweeper.sweep()
        await tab.close()
        assert await world.stated() == before
    assert len({usage.id for _, usage in before}) * 2 == len(before)


async def test_use_waits_until_prices_are_known(world: World) -> None:
    world.desk.rate_card = None
    tab = await world.tab()
    await world.put(tab, DATA)
    await tab.close()
    world.clock.advance(2 * 3600)
    await world.services.sweeper.sweep()
    assert await world.stated() == []
    world.desk.rate_card = "d" * 64
    world.clock.advance(60)
    await world.services.sweeper.sweep()
    stated = await world.stated()
    assert {usage.meter for _, usage in stated} == {"store-bytes-in", "store-gib-hours"}
    assert {usage.rate_card for _, usage in stated} == {"d" * 64}


# -- storage


async def test_each_blob_is_billed_for_each_hour_from_the_moment_of_storing(world: World) -> None:
    world.clock.set_wall_time(NOON + 45 * MINUTE)
    digest = await world.put(await world.tab(), bytes(limits.MIB))
    await world.put(await world.tab(), bytes(limits.MIB))
    world.clock.set_wall_time(NOON + 2 * HOUR + MINUTE)
    await world.services.sweeper.sweep()
    subject = f"{world.dinah.tenant}:{digest[:32]}"
    assert await world.billed("store-gib-hours") == {
        f"{subject}:2026-01-02t12": gib_hours(limits.MIB, 15 * MINUTE),
        f"{subject}:2026-01-02t13": gib_hours(limits.MIB, HOUR),
    }


async def test_many_hours_that_nobody_swept_are_stated_after_all(world: World) -> None:
    await world.put(await world.tab(), DATA)
    world.clock.advance(3 * 24 * 3600)
    await world.services.sweeper.sweep()
    assert len(await world.billed("store-gib-hours")) == 72


async def test_a_blob_expires_after_its_last_hour_was_stated_and_takes_its_names_along(new_world: NewWorld) -> None:
    async with new_world("keep_free_bytes = 0\nkeep_days = 1").running() as world:
        tab = await world.tab()
        digest = await world.put(tab, DATA)
        await tab.name("x", digest, 1024)
        world.clock.advance(24 * 3600)
        await world.services.sweeper.sweep()
        assert world.files() == []
        assert len(await world.billed("store-gib-hours")) == 24
        answer = await (await world.tab()).find("almanac/run1/build/attempt1/x")
        assert isinstance(answer, Refusal)
        assert answer.reason is Reason.NOT_FOUND
        # Stored again in the hour in which it went: no fact is stated with two meanings.
        await world.put(await world.tab(), DATA)
        world.clock.advance(3600)
        await world.services.sweeper.sweep()
        assert len(await world.billed("store-gib-hours")) == 25


async def test_storing_again_keeps_a_blob_for_longer(new_world: NewWorld) -> None:
    async with new_world("keep_free_bytes = 0\nkeep_days = 1").running() as world:
        await world.put(await world.tab(reads_all=True), DATA)
        world.clock.advance(20 * 3600)
        await world.put(await world.tab(reads_all=True), DATA)
        world.clock.advance(20 * 3600)
        await world.services.sweeper.sweep()
        assert world.files() == [world.blob_file(world.dinah, digest_of(DATA))]


async def test_a_damaged_blob_costs_nothing(world: World, tmp_path: Path) -> None:
    tab = await world.tab()
    digest = await world.put(tab, DATA)
    world.blob_file(world.dinah, digest).unlink()
    await tab.get_to_file(digest, tmp_path / "in", 2000)
    world.clock.advance(2 * 3600)
    await world.services.sweeper.sweep()
    assert await world.billed("store-gib-hours") == {}


# -- what a crash leaves


async def test_old_files_that_no_row_knows_are_swept_and_others_stay(world: World) -> None:
    digest = await world.put(await world.tab(), DATA)
    kept = world.blob_file(world.dinah, digest)
    orphan, fresh = kept.with_name(digest[:2] + "0" * 62), kept.with_name(digest[:2] + "1" * 62)
    partial = world.directory / "blobs" / "partial" / f"b{'a' * 26}-{digest}"
    for file in (orphan, fresh, partial):
        file.write_bytes(b"left by a crash")
    for file in (orphan, partial, kept):
        os.utime(file, (0, 0))
    await world.services.sweeper.sweep()
    assert world.files() == sorted([kept, fresh])


async def test_the_parts_of_uploads_go_with_their_tab(world: World) -> None:
    tab = await world.tab()
    partial = world.directory / "blobs" / "partial" / f"{tab.id}-{'0' * 64}"
    partial.write_bytes(b"half")
    await tab.close()
    assert world.files() == []
