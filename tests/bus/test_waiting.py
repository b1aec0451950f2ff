"""Waiting sees the latest value, ends with the first event, and leaves nothing behind."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.waiting import BackOff, Watched, first_of


async def test_who_waits_gets_the_value_that_was_wanted() -> None:
    watched = Watched(0)
    waiting = asyncio.create_task(watched.until(lambda value: value > 2))
    for value in range(4):
        watched.set(value)
        await asyncio.sleep(0)
    assert await waiting == 3


async def test_a_wanted_value_that_is_there_is_not_waited_for() -> None:
    assert await Watched("here").until(bool) == "here"


async def test_the_first_event_ends_the_wait_and_the_others_are_cancelled() -> None:
    one, other = asyncio.Event(), asyncio.Event()
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(first_of(one.wait(), other.wait()))
    await asyncio.sleep(0)
    other.set()
    await waiting
    assert asyncio.all_tasks() == before


async def test_a_wait_ends_in_time_and_when_it_is_cancelled() -> None:
    before = asyncio.all_tasks()
    await first_of(asyncio.Event().wait(), seconds=0.001)
    waiting = asyncio.create_task(first_of(asyncio.Event().wait()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asyncio.all_tasks() == before


@given(st.integers(1, 2000))
def test_pauses_grow_up_to_their_limit_and_begin_anew(failures: int) -> None:
    back_off = BackOff(first_seconds=0.1, last_seconds=15)
    pauses = [back_off.next_seconds() for _ in range(failures)]
    assert all(0.05 <= pause <= 15 for pause in pauses)
    assert pauses[-1] >= min(7.5, 0.05 * 2.0 ** min(failures - 1, 30))
    back_off.reset()
    assert back_off.next_seconds() <= 0.1
