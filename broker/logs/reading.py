"""Reads logs for people: a range at once, or live as it comes, as server-sent events (WHATWG HTML §9.2).

An event's id is the byte offset behind it, so that a browser that lost its connection goes on exactly where it was
(`Last-Event-ID`). Text is cut at whole UTF-8 characters; what is no UTF-8 is shown as U+FFFD, and the bytes themselves
are there under the plain address.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from broker.bells import Bells, wait_for
from broker.decisions.settling import contiguous
from broker.logs.files import LogFiles
from broker.presenting import granted_claim
from broker.store import attempts as attempt_store
from broker.store import claims as claim_store
from broker.store import runs as run_store
from broker.tables import ClaimRow, ClaimState
from runtime.database import Database
from schemas.life import FINAL_JOB_STATES, JobState
from schemas.refusals import Reason, Refusal

_KEEP_ALIVE_SECONDS = 15.0
_LONGEST_CHARACTER = 4


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Which log is meant, and how far it is: `end` is how many bytes are there without a gap."""

    claim: str | None
    end: int
    is_over: bool
    is_whole: bool
    job_state: JobState


class LogReader:
    """The logs of this controller's jobs."""

    def __init__(self, *, database: Database, logs: LogFiles, bells: Bells) -> None:
        self._database = database
        self._logs = logs
        self._bells = bells

    async def find(self, run_id: str, job_name: str, attempt_number: int | None) -> LogPlace | Refusal:
        """The log of a job: of one attempt, or of the newest that was granted."""
        async with self._database.read() as session:
            job = await run_store.job(session, run_id, job_name)
            if job is None:
                return Refusal(Reason.NOT_FOUND, f"run {run_id} has no job {job_name}")
            attempts = await attempt_store.attempts_of(session, [job.id])
            if attempt_number is not None:
                attempts = [attempt for attempt in attempts if attempt.number == attempt_number]
                if not attempts:
                    return Refusal(Reason.NOT_FOUND, f"the job {job_name} has no attempt {attempt_number}")
            claims = await claim_store.claims_of(session, [attempt.id for attempt in attempts])
        granted = [claim for attempt in attempts if (claim := granted_claim(attempt, claims)) is not None]
        is_final = job.state in FINAL_JOB_STATES
        return _place(granted[-1], job.state) if granted else LogPlace(None, 0, is_final, False, job.state)

    async def read(self, claim: str, offset: int, end: int) -> bytes:
        return await asyncio.to_thread(self._logs.read, claim, offset, end)

    async def stream(self, claim: str, offset: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `offset` to `end`."""
        while data := await self.read(claim, offset, end):
            offset += len(data)
            yield data

    async def follow(self, run_id: str, job_name: str, attempt: int | None, offset: int) -> AsyncIterator[str]:
        """Server-sent events from `offset` on, until the log is over; comments keep the connection alive."""
        with self._bells.listening(run_id) as run_bell:
            while True:
                run_bell.clear()
                place = await self.find(run_id, job_name, attempt)
                if isinstance(place, Refusal):
                    yield _event("refused", None, {"reason": place.reason, "detail": place.detail})
                    return
                if place.claim is not None:
                    async for event in self._follow_claim(place.claim, run_id, job_name, attempt, offset):
                        yield event
                    return
                if place.is_over:
                    yield _event("end", 0, {"state": place.job_state, "bytes": 0, "is_whole": False})
                    return
                if not await wait_for(run_bell, _KEEP_ALIVE_SECONDS):
                    yield ": waiting\n\n"

    async def _follow_claim(
        self, claim: str, run_id: str, job_name: str, attempt: int | None, offset: int
    ) -> AsyncIterator[str]:
        with self._bells.listening(claim, run_id) as bell:
            while True:
                bell.clear()
                place = await self.find(run_id, job_name, attempt)
                if isinstance(place, Refusal) or place.claim != claim:
                    yield _event("end", offset, {"state": "retried", "bytes": offset, "is_whole": False})
                    return
                while data := await self._readable(claim, offset, place):
                    text, start = data.decode("utf-8", "replace"), offset
                    offset += len(data)
                    yield _event("log", offset, {"offset": start, "text": text})
                if place.is_over:
                    told = {"state": place.job_state, "bytes": place.end, "is_whole": place.is_whole}
                    yield _event("end", offset, told)
                    return
                if not await wait_for(bell, _KEEP_ALIVE_SECONDS):
                    yield ": waiting\n\n"

    async def _readable(self, claim: str, offset: int, place: LogPlace) -> bytes:
        """The next bytes that end with a whole character, or with the log."""
        data = await self.read(claim, offset, place.end)
        is_last = place.is_over and offset + len(data) >= place.end
        return data if is_last else _whole_characters(data)


def _place(claim: ClaimRow, state: JobState) -> LogPlace:
    is_closed = claim.state in (ClaimState.SETTLED, ClaimState.INCOMPLETE)
    is_whole = claim.state is ClaimState.SETTLED and claim.log_bytes is not None
    end = contiguous(claim_store.ranges_of(claim))
    return LogPlace(claim.id, end, is_closed, is_whole, state)


def _whole_characters(data: bytes) -> bytes:
    """The data without a character that is only begun at its end."""
    for back in range(1, min(_LONGEST_CHARACTER, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = 1 if byte < 0x80 else 2 if byte >> 5 == 0b110 else 3 if byte >> 4 == 0b1110 else 4
        return data[:-back] if needed > back else data
    return data


def _event(name: str, identifier: int | None, data: dict[str, object]) -> str:
    id_line = "" if identifier is None else f"id: {identifier}\n"
    return f"event: {name}\n{id_line}data: {json.dumps(data)}\n\n"
