"""The logs of jobs on the controller's disk: one file a claim, each chunk at its own offset (DESIGN §7.3).

Rules: writing is idempotent, a chunk that comes again changes nothing; other bytes at the same place are equivocation,
and the first ones stay; a chunk beyond the cap of a log is refused. Before a batch of deliveries is acknowledged, every
file of it was written and flushed to the disk (one fdatasync a file and batch), then its ranges were committed; a crash
between the two only means that the chunk comes again.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from broker.decisions.settling import Ranges, add_range
from schemas import limits
from schemas.reports import Log

MAX_LOG_BYTES = limits.JOB_LOG_BYTES + limits.MIB
"""What a job may log, and a little for what the worker itself says in its log."""
MAX_RANGES = 1000
"""Pieces of a log with gaps between: an honest worker sends in order, and a resend begins at the first gap."""
READ_BYTES = 256 * limits.KIB


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a batch of chunks of one log."""

    ranges: Ranges
    refused: tuple[str, ...]


class LogFiles:
    """The directory of logs. Its calls block; services put them into threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, claim_id: str) -> Path:
        return self._directory / claim_id[1:3] / f"{claim_id}.log"

    def take(self, claim_id: str, ranges: Ranges, chunks: Iterable[Log]) -> Taken:
        """Write chunks of one claim and flush them; `ranges` is what was there before."""
        path = self.path(claim_id)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        refused: list[str] = []
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for chunk in chunks:
                start, end = chunk.offset, chunk.offset + len(chunk.data)
                if end > MAX_LOG_BYTES:
                    refused.append(f"bytes {start} to {end} are beyond the cap of a log")
                elif len(grown := add_range(ranges, start, end)) > MAX_RANGES:
                    refused.append(f"the log came in over {MAX_RANGES} pieces with gaps between")
                elif differs_at := _first_difference(descriptor, ranges, chunk):
                    refused.append(differs_at)
                else:
                    _write_at(descriptor, chunk.data, start)
                    ranges = grown
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        return Taken(ranges, tuple(refused))

    def digest(self, claim_id: str, length: int) -> str:
        """SHA-256 of the first `length` bytes, which must be there without a gap."""
        counted = hashlib.sha256()
        if length == 0:
            return counted.hexdigest()
        with self.path(claim_id).open("rb") as file:
            while length > 0 and (data := file.read(min(length, READ_BYTES * 4))):
                counted.update(data)
                length -= len(data)
        return counted.hexdigest()

    def read(self, claim_id: str, offset: int, end: int) -> bytes:
        """Up to `READ_BYTES` from `offset`, never beyond `end`."""
        try:
            with self.path(claim_id).open("rb") as file:
                file.seek(offset)
                return file.read(max(0, min(READ_BYTES, end - offset)))
        except FileNotFoundError:
            return b""


def _first_difference(descriptor: int, ranges: Ranges, chunk: Log) -> str | None:
    """Where the chunk contradicts bytes that are there already."""
    start, end = chunk.offset, chunk.offset + len(chunk.data)
    for known_start, known_end in ranges:
        low, high = max(start, known_start), min(end, known_end)
        if low < high and os.pread(descriptor, high - low, low) != chunk.data[low - start : high - start]:
            return f"bytes {low} to {high} differ from what was sent before"
    return None


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written
