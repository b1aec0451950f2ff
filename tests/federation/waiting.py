"""Waiting for what must happen: on what others can see, again and again, and never longer than a deadline."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

DEADLINE_SECONDS = 30.0
POLL_SECONDS = 0.1
T = TypeVar("T")


async def until(ask: Callable[[], Awaitable[T]], is_so: Callable[[T], object], *, seconds: float | None = None) -> T:
    """Ask until the answer is so, and return it; fails with the last answer when that takes too long."""
    answer = await ask()
    try:
        async with asyncio.timeout(DEADLINE_SECONDS if seconds is None else seconds):
            while not is_so(answer):
                await asyncio.sleep(POLL_SECONDS)
                answer = await ask()
    except TimeoutError:
        raise AssertionError(f"it did not come about; the last that was seen: {answer!r}") from None
    return answer


async def found(ask: Callable[[], Awaitable[T | None]], *, seconds: float | None = None) -> T:
    """Ask until there is an answer."""
    answer = await until(ask, lambda found: found is not None, seconds=seconds)
    assert answer is not None
    return answer
