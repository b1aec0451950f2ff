"""A world with a worker in it."""

from pathlib import Path

import pytest

from tests.agents.worker.world import World
from tests.clocks import ManualClock


@pytest.fixture
def world(tmp_path: Path, clock: ManualClock) -> World:
    return World(tmp_path, clock)
