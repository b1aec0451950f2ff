"""The two times a role needs, as one argument: `Clock`.

`now` is wall time for what people and other machines read (tokens, expiry, invoices);
it may jump. `boottime` is CLOCK_BOOTTIME for deadlines that must hold across suspend
and wall-clock jumps (grants, leases; DESIGN section 7); it means nothing elsewhere.
Nothing else in the project reads a clock.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        ...

    def boottime(self) -> float:
        """Return seconds since boot, counting suspended time; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
