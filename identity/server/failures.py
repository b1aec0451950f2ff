"""How fast somebody may fail: a brake on guessing, and on what failures cost in disk and log.

A bucket for each (account, address): `burst` failures are free, after them one each `pause_seconds`. So guessing slows
down while the same account from another address, and another account from the same address, log in as ever. Names that
are no account share one bucket an address, so that inventing names does not multiply the tries. In memory: a restart
forgives, which a guesser of 256-bit tokens gains nothing by. Bounded; the bucket that is longest untouched goes first.

Pure but for its own memory; time is given by the caller in seconds that never go back.
"""

from collections import OrderedDict
from dataclasses import dataclass

_BUCKETS = 10_000


@dataclass(frozen=True)
class Caller:
    """Who tries, as far as it is known: an account's name (empty: no such account) and a network address."""

    account: str
    address: str


class FailureBrake:
    """Counts failures; `wait_seconds` says how long a caller must wait before it may try again."""

    def __init__(self, burst: int, pause_seconds: int) -> None:
        self._burst = burst
        self._pause_seconds = pause_seconds
        self._forgiven_at: OrderedDict[Caller, float] = OrderedDict()
        """When a caller's failures are all forgiven: each failure puts it off by one pause."""

    def wait_seconds(self, caller: Caller, now: float) -> float:
        """0 when the caller may try."""
        debt_seconds = self._forgiven_at.get(caller, now) - now
        return max(0.0, debt_seconds - (self._burst - 1) * self._pause_seconds)

    def count_failure(self, caller: Caller, now: float) -> None:
        self._forgiven_at[caller] = max(self._forgiven_at.get(caller, now), now) + self._pause_seconds
        self._forgiven_at.move_to_end(caller)
        if len(self._forgiven_at) > _BUCKETS:
            self._forgiven_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._forgiven_at)
