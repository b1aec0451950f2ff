"""One RabbitMQ for the session, one virtual host for each test."""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bus.access import AdminAccess
from tests.broker_node import broker_for_tests, fresh_vhost


@pytest_asyncio.fixture(scope="session")
async def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AdminAccess]:
    async with broker_for_tests(os.environ, tmp_path_factory.mktemp("rabbitmq")) as access:
        yield access


@pytest_asyncio.fixture
async def vhost(rabbitmq: AdminAccess) -> AsyncIterator[str]:
    async with fresh_vhost(rabbitmq) as name:
        yield name
