"""RabbitMQ itself goes away, or takes no messages: nothing confirmed is lost, and the answers say what is wrong."""

import asyncio
from pathlib import Path

import pytest

from bus.delivery import Delivery, Fate
from bus.node import SEARCH_PATH, PrivateNode
from bus.node_files import node_environment
from bus.session import SessionLimits
from runtime.outbox import Later, Sent
from tests.bus_world import DINAH, NAMES, bus_for_tests, running, say, soon

VHOST = "outage"
REPLIES = NAMES.replies(DINAH)


async def test_a_restarted_rabbitmq_has_what_it_confirmed_and_everyone_comes_back(tmp_path: Path) -> None:
    got: set[bytes] = set()
    changed = asyncio.Event()

    async def handler(delivery: Delivery) -> Fate:
        got.add(delivery.body)
        changed.set()
        return Fate.SETTLED

    async with PrivateNode.start(tmp_path) as node, bus_for_tests(node.admin, VHOST, keeps_users=True) as bus:
        desk, reader = bus.worker(), bus.controller()
        await desk()
        await reader()
        async with running(desk) as session:
            await soon(session.up())
            confirmed = {b"%d" % n for n in range(100) if await say(session, REPLIES, body=b"%d" % n) == Sent()}
    assert len(confirmed) == 100
    # The same port, the same users, as far as the sessions can tell.
    async with PrivateNode.start(tmp_path), running(desk) as session, running(reader) as controller:
        controller.consume(REPLIES, handler)
        await soon(session.up())
        assert await say(session, REPLIES, body=b"after") == Sent()
        while not confirmed | {b"after"} <= got:
            changed.clear()
            await soon(changed.wait())


@pytest.mark.slow
async def test_a_bus_without_memory_takes_nothing_says_so_and_recovers(tmp_path: Path) -> None:
    async with (
        PrivateNode.start(tmp_path) as node,
        bus_for_tests(node.admin, VHOST) as bus,
        running(bus.worker(), bounds=SessionLimits(publish_seconds=2)) as session,
    ):
        await soon(session.up())
        assert await say(session, REPLIES) == Sent()
        await control(node, "set_vm_memory_high_watermark", "0.000001")
        answers = {str(await say(session, REPLIES)) for _ in range(2)}
        assert str(Later("no confirm within 2 s")) in answers
        assert any("memory or disk" in answer for answer in answers)
        assert session.status.is_up
        await control(node, "set_vm_memory_high_watermark", "0.4")
        while await say(session, REPLIES) != Sent():
            pass


async def control(node: PrivateNode, *command: str) -> None:
    environment = node_environment(node.directory, node.ports, SEARCH_PATH)
    process = await asyncio.create_subprocess_exec("rabbitmqctl", *command, env=environment)
    assert await process.wait() == 0
