"""A running store for each test; the first migration and the TLS context are made once."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from agents.store import setup
from runtime.http_client import open_client
from runtime.migrations import upgrade
from tests.agents.store.world import Front, NewWorld, World
from tests.clocks import ManualClock
from tests.runtime.serving import served


@pytest_asyncio.fixture(scope="session")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client() as client:
        yield client


@pytest_asyncio.fixture(scope="session")
async def front() -> AsyncIterator[Front]:
    """One server for all worlds: starting and stopping one takes longer than most tests."""
    front = Front()
    async with served(front) as front.url:
        yield front


@pytest_asyncio.fixture(scope="session")
async def migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with the store's tables."""
    path = tmp_path_factory.mktemp("migrated") / setup.DATABASE
    await upgrade(path, setup.MIGRATIONS)
    return path.read_bytes()


@pytest_asyncio.fixture
async def new_world(
    tmp_path: Path, clock: ManualClock, http: httpx.AsyncClient, front: Front, migrated: bytes
) -> NewWorld:
    """Makes a world whose store does not run yet, with more lines for its settings."""

    def make(more_settings: str = "keep_free_bytes = 0") -> World:
        made = World(tmp_path / "store", clock, http, front, more_settings)
        (made.directory / setup.DATABASE).write_bytes(migrated)
        return made

    return make


@pytest_asyncio.fixture
async def world(new_world: NewWorld) -> AsyncIterator[World]:
    async with new_world().running() as running:
        yield running
