"""A log that grows, as a page follows it."""

import asyncio
import json
from collections.abc import AsyncIterator

from broker.logs.reading import LogReader
from broker.pages.streams import LogFollower, while_welcome
from schemas.ends import EndReason
from tests.broker.pages.conftest import Browser, granted
from tests.broker.world import FakeProvider, World

ALICE = "alice.example"
ONE_JOB = "name: p\njobs:\n  build:\n    steps: [make]\n"


def follow(world: World, run: str, offset: int = 0) -> AsyncIterator[str]:
    controller = world.controller
    reader = LogReader(database=world.database, logs=controller.logs, bells=controller.bells)
    return LogFollower(reader=reader, bells=controller.bells, run=run, job="build", attempt=1, offset=offset).follow()


async def next_log(events: AsyncIterator[str]) -> str:
    """The text of the next `log` event."""
    async with asyncio.timeout(5):
        async for event in events:
            if event.startswith("event: log"):
                data = event.split("data: ", 1)[1]
                return "".join(text for text, _ in json.loads(data))
    raise AssertionError("the stream ended")


async def test_a_log_is_followed_as_it_grows_to_its_end(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    await world.hear_log(ALICE, claim.log(0, b"one\n"))
    events = follow(world, run)
    assert await next_log(events) == "one\n"
    await world.hear_log(ALICE, claim.log(4, b"two\n"))
    assert await next_log(events) == "two\n"
    await world.hear(ALICE, claim.finished(EndReason.SUCCEEDED, b"one\ntwo\n"))
    await world.controller.settlement.look()
    async with asyncio.timeout(5):
        assert [event async for event in events][-1].startswith("event: end")


async def test_a_browser_that_comes_back_goes_on_where_it_was(
    world: World, alice: FakeProvider, browser: Browser
) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    await world.hear_log(ALICE, claim.log(0, b"one\ntwo\n"))
    await world.hear(ALICE, claim.finished(EndReason.SUCCEEDED, b"one\ntwo\n"))
    await world.controller.settlement.look()
    answer = await browser.http.get(f"/runs/{run}/jobs/build/live?attempt=1&from=0", headers={"last-event-id": "4"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert '[["two\\n", ""]]' in answer.text
    assert "one" not in answer.text


async def test_a_character_that_is_only_begun_waits_for_its_rest(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    await world.hear_log(ALICE, claim.log(0, "caf\u00e9".encode()[:-1]))
    events = follow(world, run)
    assert await next_log(events) == "caf"
    await world.hear_log(ALICE, claim.log(4, "\u00e9".encode()[1:] + b"!"))
    assert await next_log(events) == "\u00e9!"


async def test_a_job_that_never_ran_has_a_stream_that_ends(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    async with asyncio.timeout(5):
        assert [event async for event in follow(world, run)] == ["event: end\ndata: null\n\n"]


async def test_who_logs_out_hears_no_more() -> None:
    welcome = [True, True, False, True]

    async def events() -> AsyncIterator[str]:
        for name in "abcd":
            yield name

    assert [event async for event in while_welcome(events(), lambda: welcome.pop(0))] == ["a", "b"]
