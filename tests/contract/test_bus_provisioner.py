"""What the desk tells RabbitMQ's management: repeated without harm, contradicted with a clear error."""

from collections.abc import AsyncIterator
from dataclasses import replace

import aio_pika
import pytest
import pytest_asyncio
from aio_pika.exceptions import AMQPConnectionError

from bus.access import AdminAccess
from bus.link import LinkLost, open_link
from bus.provisioner import Provisioner, ProvisionFault, TopologyConflict
from bus.topology import BusLimits, Queue, Rights, controller_rights
from runtime.errors import WorldFault
from runtime.http_client import open_client
from schemas.sessions import SessionGranted
from tests.bus_world import DINAH, ELIZA, NAMES, POOLS, PROVIDER, SMALL, WORKERS, Bus, bus_for_tests, soon


@pytest_asyncio.fixture
async def bus(rabbitmq: AdminAccess, vhost: str) -> AsyncIterator[Bus]:
    async with bus_for_tests(rabbitmq, vhost) as bus:
        yield bus


async def test_declaring_again_changes_nothing(bus: Bus) -> None:
    await bus.put(NAMES.jobs_exchange(DINAH), "fast", b"a job")
    await bus.provisioner.ensure_vhost()
    await bus.declare_again()
    assert await bus.count(NAMES.jobs_queue(DINAH, "fast")) == 1


async def test_a_changed_limit_is_an_error_that_names_the_queue_and_the_way_out(bus: Bus) -> None:
    other = replace(SMALL, job_messages=6)
    with pytest.raises(TopologyConflict) as caught:
        await bus.provisioner.declare(NAMES.tenant_declarations(DINAH, ["fast"], [], other))
    assert NAMES.jobs_queue(DINAH, "fast") in str(caught.value)
    assert "x-max-length" in caught.value.what
    assert "delete_queue" in caught.value.remedy


async def test_the_real_limits_are_accepted_by_rabbitmq(bus: Bus) -> None:
    await bus.provisioner.remove_tenant(NAMES, DINAH)
    await bus.provisioner.declare(NAMES.tenant_declarations(DINAH, POOLS, WORKERS, BusLimits()))
    other = bus.provisioner
    strange = [part for part in NAMES.provider_declarations(BusLimits()) if isinstance(part, Queue)]
    await other.declare(replace(part, name=f"copy.{part.name}") for part in strange)


async def test_users_are_made_listed_and_removed_and_removing_is_repeatable(bus: Bus) -> None:
    provisioner = bus.provisioner
    for name in ("b", "a"):
        await provisioner.create_session_user(f"{PROVIDER}:{name}", "p" * 30, controller_rights(PROVIDER, DINAH))
    assert await provisioner.list_session_users(f"{PROVIDER}:") == [f"{PROVIDER}:a", f"{PROVIDER}:b"]
    assert await provisioner.list_session_users("nobody:") == []
    assert bus.access.user not in await provisioner.list_session_users("")
    await provisioner.remove_user(f"{PROVIDER}:a")
    await provisioner.remove_user(f"{PROVIDER}:a")
    assert await provisioner.list_session_users(f"{PROVIDER}:") == [f"{PROVIDER}:b"]


async def test_a_user_has_no_more_connections_than_it_may(bus: Bus) -> None:
    desk = bus.controller()
    granted = await desk()
    assert isinstance(granted, SessionGranted)
    await bus.provisioner.create_session_user(desk.user, desk.password, desk.rights, max_connections=2)
    link = await open_link(granted, "the only pair")
    try:
        with pytest.raises(LinkLost, match="too many connections"):
            await soon(open_link(granted, "one too many"))
    finally:
        await link.close()


async def test_a_removed_user_cannot_come_in(bus: Bus) -> None:
    user, password = f"{PROVIDER}:gone", "p" * 30
    await bus.provisioner.create_session_user(user, password, Rights())
    await bus.provisioner.remove_user(user)
    with pytest.raises(AMQPConnectionError):
        await soon(aio_pika.connect(bus.access.amqp_url(bus.vhost, user, password)))


async def test_a_removed_tenant_leaves_nothing_behind_and_takes_nobody_along(bus: Bus) -> None:
    await bus.put(NAMES.receipts_exchange(DINAH), "", b"a receipt")
    await bus.provisioner.remove_tenant(NAMES, DINAH)
    left = await bus.provisioner.queue_depths()
    assert not [name for name in left if DINAH in name]
    assert {NAMES.replies(ELIZA), NAMES.logs(ELIZA), NAMES.receipts_queue, NAMES.dead_queue} <= set(left)
    assert await bus.count(NAMES.receipts_queue) == 1
    await bus.provisioner.remove_tenant(NAMES, DINAH)


async def test_rights_for_a_user_that_is_not_there_are_a_fault(bus: Bus) -> None:
    with pytest.raises(ProvisionFault):
        await bus.provisioner.update_rights(f"{PROVIDER}:nobody", Rights())


async def test_a_wrong_administrator_is_told_what_to_mend(bus: Bus) -> None:
    async with open_client() as client:
        stranger = Provisioner(replace(bus.access, password="wrong"), bus.vhost, client)
        with pytest.raises(ProvisionFault, match="name and password"):
            await stranger.ensure_vhost()


async def test_a_management_that_is_away_is_the_worlds_fault(bus: Bus, unused_tcp_port: int) -> None:
    async with open_client() as client:
        away = Provisioner(replace(bus.access, api_url=f"http://127.0.0.1:{unused_tcp_port}"), bus.vhost, client)
        with pytest.raises(WorldFault):
            await away.queue_depths()
