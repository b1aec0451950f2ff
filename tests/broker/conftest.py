"""A controller, and the two hardware owners that it knows."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.broker.world import FakeProvider, World, open_world
from tests.clocks import ManualClock


@pytest.fixture
async def world(tmp_path: Path, clock: ManualClock) -> AsyncIterator[World]:
    async with open_world(tmp_path, clock) as opened:
        await opened.add_project()
        yield opened


@pytest.fixture
async def alice(world: World) -> FakeProvider:
    provider = FakeProvider("alice.example", world.issuer, world.clock)
    provider.hire("w1")
    provider.hire("w2")
    await world.meet(provider)
    return provider
