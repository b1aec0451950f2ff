"""A clock that moves only when a test says so."""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class ManualClock:
    """Obeys `runtime.clock.Clock`; wall time and boot time can be moved apart."""

    def __init__(self, now: datetime = START, boottime: float = 1000.0) -> None:
        self._now = now
        self._boottime = boottime

    def now(self) -> datetime:
        return self._now

    def boottime(self) -> float:
        return self._boottime

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._now += timedelta(seconds=seconds)
        self._boottime += seconds

    def set_wall_time(self, now: datetime) -> None:
        """Make the wall clock jump, as NTP or a person would; boot time stays."""
        self._now = now
