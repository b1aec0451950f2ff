"""A server for each test, and somebody with an account at it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.clocks import ManualClock
from tests.identity.server.issuing import Holder, Server, running


@pytest_asyncio.fixture
async def server(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Server]:
    async with running(tmp_path / "id", clock) as made:
        yield made


@pytest_asyncio.fixture
async def dinah(server: Server) -> Holder:
    return await server.enrol("dinah")
