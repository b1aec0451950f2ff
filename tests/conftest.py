"""What every test may use, whatever its house."""

import asyncio
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.clocks import ManualClock

# Two cores are shared: a slow example says nothing about the code.
settings.register_profile("fedci", deadline=None, max_examples=int(os.environ.get("FEDCI_TEST_EXAMPLES", "50")))
settings.load_profile("fedci")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(autouse=True)
def same_child_watcher() -> Iterator[None]:
    """A test that runs a role in this process sets the process's child watcher; the session's loop needs its own."""
    if sys.version_info >= (3, 12):
        yield
        return
    before = asyncio.get_child_watcher()
    yield
    asyncio.set_child_watcher(before)
