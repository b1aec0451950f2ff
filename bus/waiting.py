"""Waiting for what others do: a value that changes, the first of several events, and pauses that grow.

Knows nothing of RabbitMQ. Everything here is safe to cancel and leaves no task behind.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_chance = random.SystemRandom()


class Watched(Generic[T]):
    """A value and its changes. Who waits sees the latest value; values between two looks may be missed."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._changed = asyncio.Event()

    @property
    def value(self) -> T:
        return self._value

    def set(self, value: T) -> None:
        self._value = value
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def until(self, is_wanted: Callable[[T], bool]) -> T:
        """Return the value as soon as it is wanted."""
        while not is_wanted(self._value):
            await self._changed.wait()
        return self._value


async def first_of(*waits: Coroutine[Any, Any, Any], seconds: float | None = None) -> None:
    """Return when one of the waits is over, or after so many seconds; the others are cancelled and awaited."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class BackOff:
    """Pauses that double up to a limit, each shortened by chance so that many who failed together come back apart."""

    first_seconds: float = 0.1
    last_seconds: float = 15.0
    failures: int = 0

    def next_seconds(self) -> float:
        seconds = min(self.last_seconds, self.first_seconds * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return seconds * _chance.uniform(0.5, 1.0)

    def reset(self) -> None:
        self.failures = 0
