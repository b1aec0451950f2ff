"""A running store for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.agents.store.world import World
from tests.clocks import ManualClock


@pytest_asyncio.fixture
async def world(tmp_path: Path, clock: ManualClock) -> AsyncIterator[World]:
    async with World(tmp_path / "store", clock).running() as running:
        yield running
