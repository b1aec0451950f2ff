"""The RabbitMQ that tests use: always a real one, and one virtual host for each test that asks.

Which one: an existing server when `FEDCI_AMQP_ADMIN_URL` and `FEDCI_RABBITMQ_API_URL` are set, a container when
`FEDCI_TEST_BROKER=docker`, else a private node of the RabbitMQ that is installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from bus.access import AdminAccess
from bus.node import PrivateNode

if TYPE_CHECKING:
    from testcontainers.community.rabbitmq import RabbitMqContainer

BROKER_VARIABLE = "FEDCI_TEST_BROKER"
IMAGE = "rabbitmq:4-management"


@contextlib.asynccontextmanager
async def broker_for_tests(env: Mapping[str, str], directory: Path) -> AsyncIterator[AdminAccess]:
    """The administrator's access to the RabbitMQ that `env` chooses; a private node lives in `directory`."""
    existing = AdminAccess.from_environment(env)
    if existing is not None:
        yield existing
    elif env.get(BROKER_VARIABLE) == "docker":
        async with _container() as access:
            yield access
    else:
        async with PrivateNode.start(directory) as node:
            yield node.admin


@contextlib.asynccontextmanager
async def fresh_vhost(access: AdminAccess) -> AsyncIterator[str]:
    """The name of a virtual host of one's own, with the administrator admitted; deleted with all that is in it."""
    name = f"test-{secrets.token_hex(6)}"
    full = {"configure": ".*", "write": ".*", "read": ".*"}
    async with management_client(access) as client:
        (await client.put(f"/api/vhosts/{name}")).raise_for_status()
        try:
            (await client.put(f"/api/permissions/{name}/{access.user}", json=full)).raise_for_status()
            yield name
        finally:
            (await client.delete(f"/api/vhosts/{name}")).raise_for_status()


def management_client(access: AdminAccess) -> httpx.AsyncClient:
    """A client of the management API with the administrator's rights; paths start with `/api/`."""
    auth = (access.user, access.password)
    return httpx.AsyncClient(base_url=access.api_url, auth=auth, timeout=10, trust_env=False)


@contextlib.asynccontextmanager
async def _container() -> AsyncIterator[AdminAccess]:
    from testcontainers.community.rabbitmq import RabbitMqContainer

    container = RabbitMqContainer(IMAGE, username="admin", password=secrets.token_urlsafe(16))
    container.with_exposed_ports(15672)
    await asyncio.to_thread(container.start)
    try:
        yield _access_to(container)
    finally:
        await asyncio.to_thread(container.stop)


def _access_to(container: RabbitMqContainer) -> AdminAccess:
    host = container.get_container_host_ip()
    return AdminAccess(
        api_url=f"http://{host}:{container.get_exposed_port(15672)}",
        user=container.username,
        password=container.password,
        amqp_host=host,
        amqp_port=int(container.get_exposed_port(container.port)),
    )
