"""What a session promises while it is not up."""

import asyncio

import pytest

from bus.session import BusSession, SessionLimits
from runtime.clock import SystemClock
from runtime.errors import PeerFault, WorldFault
from runtime.outbox import Later, PublishResult
from schemas import limits
from schemas.refusals import Reason, Refusal
from schemas.sessions import SessionGranted

QUICK = SessionLimits(first_retry_seconds=0.001, last_retry_seconds=0.01, credentials_seconds=0.05)


async def never(_: int | None) -> SessionGranted | Refusal:
    raise AssertionError("not asked before it runs")


async def publish(session: BusSession, body: bytes = b"x") -> PublishResult:
    return await session.publish("jobs", "fast", body, message_type="t/1", correlation_id="a")


async def test_before_it_runs_everything_is_for_later() -> None:
    session = BusSession(never, name="a test", clock=SystemClock())
    assert await publish(session) == Later("not started")


async def test_who_tries_again_at_once_starves_nobody() -> None:
    session = BusSession(never, name="a test", clock=SystemClock())
    others = asyncio.Event()
    asyncio.get_running_loop().call_soon(others.set)
    async with asyncio.timeout(5):
        while not others.is_set():
            await publish(session)


async def test_a_body_that_no_bus_carries_is_our_own_fault() -> None:
    session = BusSession(never, name="a test", clock=SystemClock())
    with pytest.raises(ValueError, match="the bus carries"):
        await publish(session, b"x" * (limits.BUS_MESSAGE_BYTES + 1))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Refusal(Reason.NOT_ADMITTED, "strangers are not served"), "strangers are not served"),
        (WorldFault("the desk is away"), "the desk is away"),
        (PeerFault("answered nonsense"), "answered nonsense"),
        (None, "did not answer within"),
    ],
)
async def test_why_there_is_no_session_can_be_read(answer: Refusal | Exception | None, reason: str) -> None:
    async def desk(_: int | None) -> SessionGranted | Refusal:
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Refusal)
        return answer

    session = BusSession(desk, name="a test", clock=SystemClock(), bounds=QUICK)
    running = asyncio.create_task(session.run())
    async with asyncio.timeout(5):
        status = session.status
        while reason not in status.reason:
            status = await session.status_changed(status)
        result = await publish(session)
        assert isinstance(result, Later)
        assert reason in result.reason
        await session.close()
        await running


async def test_a_closed_session_ends_also_when_it_was_never_up() -> None:
    async def desk(_: int | None) -> SessionGranted | Refusal:
        return Refusal(Reason.NOT_ADMITTED)

    session = BusSession(desk, name="a test", clock=SystemClock())
    taker = session.taker(["jobs"])
    slot = asyncio.create_task(taker.take())
    running = asyncio.create_task(session.run())
    async with asyncio.timeout(5):
        await session.status_changed(session.status)
        await session.close()
        await running
    assert not slot.done()
    slot.cancel()
