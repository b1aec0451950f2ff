"""Server-sent events for pages that are open: that a run changed, and a log as it grows (WHATWG HTML §9.2).

A log's event id is the byte offset behind it, so that a browser that lost its connection goes on where it was. Text
goes out as pieces (`log_text`), never as HTML. A stream ends when its log or run is over, or the login is.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from broker.bells import Bells, wait_for
from broker.log_reading import LogReader
from broker.pages.facts import WINDOW_BYTES
from broker.pages.log_text import PLAIN, read_log
from schemas.refusals import Refusal

_KEEP_ALIVE_SECONDS = 15.0
_COALESCE_SECONDS = 0.15
"""Changes often come in groups; a page is told once of each group."""
IsWelcome = Callable[[], bool]
"""Whether who listens may still listen."""


async def follow_run(bells: Bells, run_id: str, is_welcome: IsWelcome) -> AsyncIterator[str]:
    """Say `changed` whenever something about the run is different."""
    with bells.listening(run_id) as bell:
        while is_welcome():
            if not await wait_for(bell, _KEEP_ALIVE_SECONDS):
                yield ": still here\n\n"
                continue
            await asyncio.sleep(_COALESCE_SECONDS)
            bell.clear()
            yield _event("changed")


async def follow_log(
    reader: LogReader, bells: Bells, run_id: str, job: str, attempt: int, offset: int, is_welcome: IsWelcome
) -> AsyncIterator[str]:
    """Give the log of an attempt from `offset` on, and say `changed` when something else about its run is."""
    place = await reader.find(run_id, job, attempt)
    if isinstance(place, Refusal) or place.claim is None:
        yield _event("end")
        return
    style = PLAIN
    with bells.listening(place.claim) as bell, bells.listening(run_id) as run_bell:
        # Looked at before the first wait: it may have grown since.
        bell.set()
        while is_welcome():
            if bell.is_set():
                bell.clear()
                place = await reader.find(run_id, job, attempt)
                if isinstance(place, Refusal) or place.claim is None:
                    break
                while data := await reader.read(place.claim, offset, min(offset + WINDOW_BYTES, place.end)):
                    text = read_log(data, style, is_end=place.is_over and offset + len(data) >= place.end)
                    if not text.used_bytes:
                        break
                    style, offset = text.style, offset + text.used_bytes
                    yield _event("log", [[piece.text, piece.classes] for piece in text.pieces], offset)
                if place.is_over:
                    break
            if run_bell.is_set():
                run_bell.clear()
                yield _event("changed")
            if not await _either(bell, run_bell):
                yield ": still here\n\n"
    yield _event("end")


async def _either(bell: asyncio.Event, other: asyncio.Event) -> bool:
    """Wait for one of two bells, and a moment longer; whether one was rung."""
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
