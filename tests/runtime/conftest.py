"""A migrated SQLite database for the tests of this house."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from runtime.database import Database
from tests.runtime.migrated.tables import Base


@pytest_asyncio.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database.open(tmp_path / "role.sqlite")
    async with database.write() as session:
        await (await session.connection()).run_sync(Base.metadata.create_all)
    yield database
    await database.close()
