"""The small decisions of the bus: tags, errors, addresses."""

import asyncio

import pytest
from aiormq.base import FutureStore
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ConnectionClosed
from hypothesis import given
from hypothesis import strategies as st

from bus.consuming import is_worlds_fault
from bus.intake import Tally
from bus.link import LinkLost, NameRefused, PlaintextRefused, check_address, describe, fault_of, within
from runtime.errors import OurFault, WorldFault
from schemas.sessions import BusAddress


@given(st.permutations(range(1, 12)))
def test_a_tag_counts_as_read_when_it_and_all_before_it_are_settled(order: list[int]) -> None:
    tally, settled = Tally(), set()
    for tag in order:
        tally.mark(tag)
        settled.add(tag)
        for up_to in range(1, 12):
            assert tally.is_settled_up_to(up_to) == (set(range(1, up_to + 1)) <= settled)


@given(st.lists(st.integers(1, 9), unique=True), st.lists(st.integers(1, 9), unique=True, min_size=1))
def test_one_acknowledgement_for_many_touches_no_unsettled_stranger(settled: list[int], batch: list[int]) -> None:
    tally, tags = Tally(), sorted(set(batch) - set(settled))
    for tag in settled:
        tally.mark(tag)
    if tags and tally.covers_all_up_to_last(tags):
        assert set(range(1, tags[-1] + 1)) <= set(settled) | set(tags)


def test_no_tag_is_read_before_the_first() -> None:
    assert Tally().is_settled_up_to(0)
    assert not Tally().is_settled_up_to(1)


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "worlds"),
    [
        (WorldFault("away"), True),
        (TimeoutError(), True),
        (OSError(28, "No space left on device"), True),
        (caused(RuntimeError("storing"), OSError(5, "I/O error")), True),
        (ValueError("a bug"), False),
        (OurFault("settings"), False),
        (caused(KeyError("a bug"), ValueError("another")), False),
    ],
)
def test_only_the_worlds_fault_is_waited_out(error: Exception, worlds: bool) -> None:
    assert is_worlds_fault(error) == worlds


def test_a_refused_name_is_told_from_a_lost_connection() -> None:
    assert isinstance(fault_of(ChannelAccessRefused("ACCESS_REFUSED - no"), "publishing"), NameRefused)
    missing = fault_of(ChannelNotFoundEntity("NOT_FOUND - no exchange"), "publishing")
    assert isinstance(missing, NameRefused)
    assert missing.is_missing
    assert isinstance(fault_of(ConnectionClosed(320, "CONNECTION_FORCED"), "publishing"), LinkLost)


@pytest.mark.parametrize("error", [None, asyncio.CancelledError(), ConnectionClosed(320, "x\n" * 1000), ValueError()])
def test_what_a_strangers_bus_says_is_one_short_line(error: BaseException | None) -> None:
    text = describe(error)
    assert 0 < len(text) <= 300
    assert "\n" not in text


async def test_a_cancel_that_is_not_ours_is_a_lost_connection() -> None:
    lost = asyncio.get_running_loop().create_future()
    lost.set_exception(asyncio.CancelledError("the library lost it"))
    with pytest.raises(LinkLost, match="while asking"):
        await within(1, lost, "while asking")


async def test_a_connection_closed_without_a_reason_is_a_lost_link() -> None:
    """The library then ends its calls with a bare `Exception`, which would end the whole role."""
    calls = FutureStore(asyncio.get_running_loop())
    asking = calls.create_task(asyncio.Event().wait())
    await calls.reject_all(None)
    with pytest.raises(LinkLost, match="while asking"):
        await within(1, asking, "while asking")


async def test_an_error_that_is_not_the_librarys_is_told_as_it_is() -> None:
    async def broken() -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        await within(1, broken(), "while asking")


async def test_a_cancel_of_ours_stays_a_cancel() -> None:
    task = asyncio.create_task(within(5, asyncio.Event().wait(), "waiting"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_that_takes_too_long_is_a_lost_connection() -> None:
    with pytest.raises(LinkLost, match=r"within 0\.001 s: waiting"):
        await within(0.001, asyncio.Event().wait(), "waiting")


@pytest.mark.parametrize("host", ["bus.example", "192.0.2.1", "127.0.0.1.example", "::2", "0.0.0.0"])  # noqa: S104
def test_plaintext_to_another_machine_is_refused(host: str) -> None:
    with pytest.raises(PlaintextRefused, match="plaintext"):
        check_address(BusAddress(host=host, port=5672, vhost="/", is_tls=False))
    check_address(BusAddress(host=host, port=5671, vhost="/", is_tls=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_plaintext_stays_on_this_machine(host: str) -> None:
    check_address(BusAddress(host=host, port=5672, vhost="/", is_tls=False))
