"""The two clocks, real and manual."""

from datetime import UTC, timedelta

from runtime.clock import Clock, SystemClock
from tests.clocks import ManualClock


def test_the_system_clock_tells_aware_utc() -> None:
    assert SystemClock().now().tzinfo is UTC


def test_boottime_never_goes_back() -> None:
    clock = SystemClock()
    assert clock.boottime() <= clock.boottime()


def test_a_wall_clock_jump_leaves_boottime_alone(clock: ManualClock) -> None:
    seam: Clock = clock
    before = seam.boottime()
    clock.set_wall_time(clock.now() - timedelta(days=1))
    assert seam.boottime() == before
    clock.advance(2.5)
    assert seam.boottime() == before + 2.5
