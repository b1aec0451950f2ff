"""One federation for all tests of this directory: it takes seconds to stand up, and must bear all of them anyway."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.federation.ground import Ground, opened_ground
from tests.federation.projects import Project


@pytest_asyncio.fixture(scope="session")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    async with opened_ground(tmp_path_factory.mktemp("federation"), Path(sys.prefix)) as stands:
        yield stands


@pytest.fixture
def dinah(ground: Ground) -> Project:
    return ground.projects["dinah"]


@pytest.fixture
def eliza(ground: Ground) -> Project:
    return ground.projects["eliza"]
