"""What every test may use, whatever its house."""

import pytest
from hypothesis import settings

from tests.clocks import ManualClock

# Two cores are shared: a slow example says nothing about the code.
settings.register_profile("fedci", deadline=None, max_examples=50)
settings.load_profile("fedci")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
