"""The log of a job as it grows, as server-sent events for the page that shows it (WHATWG HTML §9.2).

An event's id is the byte offset behind it, so that a browser that lost its connection goes on where it was. Text goes
out as pieces (`log_text`), never as HTML. `changed` says that something else about the run is different: one connection
serves the whole page, for browsers open only six at a time.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from broker.bells import Bells
from broker.logs.reading import LogReader
from broker.pages.facts import WINDOW_BYTES
from broker.pages.log_text import PLAIN, Style, read_log
from schemas.refusals import Refusal

_KEEP_ALIVE_SECONDS = 15.0
_COALESCE_SECONDS = 0.15
"""Changes often come in groups; a page is told once of each group."""


class LogFollower:
    """Follows the log of one attempt of a job."""

    def __init__(
        self, *, reader: LogReader, bells: Bells, run: str, job: str, attempt: int | None, offset: int
    ) -> None:
        self._reader = reader
        self._bells = bells
        self._where = (run, job, attempt)
        self._offset = offset
        self._style: Style = PLAIN
        self._is_over = False

    async def follow(self) -> AsyncIterator[str]:
        """`log` with what is new, `changed`, and `end` when the log is over; comments keep the line alive."""
        place = await self._reader.find(*self._where)
        claim = None if isinstance(place, Refusal) else place.claim
        with self._bells.listening(claim or "") as log_bell, self._bells.listening(self._where[0]) as run_bell:
            # Rung before the first wait: both may have changed since the page was made.
            log_bell.set()
            run_bell.set()
            while claim is not None and not self._is_over:
                if not await _either(log_bell, run_bell):
                    yield ": still here\n\n"
                if run_bell.is_set():
                    run_bell.clear()
                    yield _event("changed")
                log_bell.clear()
                async for event in self._news():
                    yield event
        yield _event("end")

    async def _news(self) -> AsyncIterator[str]:
        place = await self._reader.find(*self._where)
        if isinstance(place, Refusal) or place.claim is None:
            self._is_over = True
            return
        while data := await self._reader.read(place.claim, self._offset, min(self._offset + WINDOW_BYTES, place.end)):
            is_end = place.is_over and self._offset + len(data) >= place.end
            text = read_log(data, self._style, is_end=is_end)
            if not text.used_bytes:
                break  # an escape sequence or a character that is only begun
            self._style, self._offset = text.style, self._offset + text.used_bytes
            yield _event("log", [[piece.text, piece.classes] for piece in text.pieces], self._offset)
        self._is_over = place.is_over


async def while_welcome(events: AsyncIterator[str], is_welcome: Callable[[], bool]) -> AsyncIterator[str]:
    """These events as long as whoever listens may; a login that ended is noticed with the next event or comment."""
    async for event in events:
        if not is_welcome():
            return
        yield event


async def _either(bell: asyncio.Event, other: asyncio.Event) -> bool:
    """Wait for one of two bells, and a moment longer for what comes with it; whether one was rung."""
    waits = [asyncio.ensure_future(bell.wait()), asyncio.ensure_future(other.wait())]
    try:
        rung, _ = await asyncio.wait(waits, timeout=_KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    if rung:
        await asyncio.sleep(_COALESCE_SECONDS)
    return bool(rung)


def _event(name: str, data: object = None, identifier: int | None = None) -> str:
    id_line = "" if identifier is None else f"id: {identifier}\n"
    return f"event: {name}\n{id_line}data: {json.dumps(data)}\n\n"
