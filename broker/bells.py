"""Who wakes whom inside the controller, so that nothing polls.

A bell only says that something changed; what it is, the sleeper reads from the database. So a bell rung twice, or for
nothing, costs a look and never a mistake, and one that was lost with the process is made up for at the start, when
everybody looks once.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Bells:
    """The bells of one controller."""

    def __init__(self) -> None:
        self.dispatch = asyncio.Event()
        self.receipts = asyncio.Event()
        self.watch = asyncio.Event()
        self.uploads = asyncio.Event()
        self._listeners: dict[str, set[asyncio.Event]] = defaultdict(set)
        self.dispatch.set()

    def run_changed(self, run_id: str) -> None:
        """Something about this run is different: jobs may go on, its own and those that wait for a place it left."""
        self.dispatch.set()
        self._ring(run_id)

    def run_progressed(self, run_id: str) -> None:
        """A job of this run began, or is further: its listeners may look, and no other job can go on for that."""
        self._ring(run_id)

    def offers_changed(self) -> None:
        """A provider is different: every waiting job may have another answer."""
        self.dispatch.set()

    def log_grew(self, claim_id: str) -> None:
        self._ring(claim_id)

    @contextmanager
    def listening(self, *names: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever one of these runs or claims changes; the listener clears it."""
        event = asyncio.Event()
        for name in names:
            self._listeners[name].add(event)
        try:
            yield event
        finally:
            for name in names:
                self._listeners[name].discard(event)
                if not self._listeners[name]:
                    del self._listeners[name]

    def _ring(self, name: str) -> None:
        for event in self._listeners.get(name, ()):
            event.set()


async def wait_for(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait until the event is set or the time has passed; whether it was set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
