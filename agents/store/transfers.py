"""What goes through tabs at this moment, in this process: nothing of a tab is settled while anything moves in it.

Also the two ways to await what must not be torn: `undivided` finishes a file's write although the request is cancelled.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Transfers:
    """Counts transfers by tab."""

    def __init__(self) -> None:
        self._by_tab: Counter[str] = Counter()
        self._ended = asyncio.Event()

    @contextmanager
    def through(self, tab: str) -> Iterator[None]:
        self._by_tab[tab] += 1
        try:
            yield
        finally:
            self._by_tab[tab] -= 1
            if not self._by_tab[tab]:
                del self._by_tab[tab]
            self._ended.set()
            self._ended = asyncio.Event()

    def is_busy(self, tab: str) -> bool:
        return tab in self._by_tab

    async def idle(self, tab: str, seconds: float) -> None:
        """Wait until nothing moves through a tab, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                while self.is_busy(tab):
                    await self._ended.wait()
        except TimeoutError:
            return

    def __len__(self) -> int:
        return self._by_tab.total()


async def undivided(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end; a cancel waits for that and then goes on.

    For writes in threads, which cannot be cancelled: whoever opens the file next must find nobody writing.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _ended(task)
        raise


async def _ended(task: Awaitable[object]) -> None:
    await asyncio.wait([asyncio.ensure_future(task)])
