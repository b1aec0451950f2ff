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


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where `FEDCI_NO_SKIPS` is set, a test that was skipped is a test that failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("FEDCI_NO_SKIPS") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


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
