"""A job's log on the worker's disk: the bytes, and how they were cut into messages.

Two files a claim: `<claim>.log` holds the bytes, `<claim>.cuts` one record for each log message that was ever made:
offset, length, when. A message that is sent again is so made of the same bytes with the same offset and time, and as
Ed25519 is deterministic (RFC 8032) the same envelope comes out: a resend is never an equivocation.

A record is written before its message leaves. After a crash of the machine the files may end early; records that
point past the log's end are dropped. The calls block: they belong into a thread. Nothing is sent from here.
"""

import errno
import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas import limits

_RECORD = struct.Struct(">QIQ")
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Cut:
    """One log message: its place in the log, and when it was made, in milliseconds since the epoch."""

    offset: int
    length: int
    made_at_ms: int

    @property
    def end(self) -> int:
        return self.offset + self.length


class SpoolReader:
    """A claim's log and its cuts, for reading; may be open beside the `Spool` that still writes it."""

    def __init__(self, directory: Path, claim: str, flags: int = os.O_RDONLY) -> None:
        self._log = os.open(directory / f"{claim}.log", flags | os.O_CLOEXEC, 0o600)
        self._cuts = os.open(directory / f"{claim}.cuts", flags | os.O_CLOEXEC, 0o600)

    def cuts(self, start: int, end: int) -> Iterator[Cut]:
        """The messages that hold bytes of `[start, end)`, in order."""
        number = self._first_cut_after(start)
        while (cut := self._cut_at(number)) is not None and cut.offset < end:
            yield cut
            number += 1

    def read(self, cut: Cut) -> bytes:
        return os.pread(self._log, cut.length, cut.offset)

    def close(self) -> None:
        os.close(self._log)
        os.close(self._cuts)

    def _first_cut_after(self, offset: int) -> int:
        """The number of the first record that ends behind `offset`, by bisection."""
        low, high = 0, self._cut_count()
        while low < high:
            middle = (low + high) // 2
            cut = self._cut_at(middle)
            if cut is not None and cut.end <= offset:
                low = middle + 1
            else:
                high = middle
        return low

    def _cut_count(self) -> int:
        return os.fstat(self._cuts).st_size // _RECORD.size

    def _cut_at(self, number: int) -> Cut | None:
        record = os.pread(self._cuts, _RECORD.size, number * _RECORD.size)
        return Cut(*_RECORD.unpack(record)) if len(record) == _RECORD.size else None


class Spool(SpoolReader):
    """A claim's log while it is written, or sent; one at a time. Not for several threads at once."""

    def __init__(self, directory: Path, claim: str) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        super().__init__(directory, claim, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._hash = hashlib.sha256()
        self.length = 0
        self._read_what_is_there()
        self.cut_to = self._drop_broken_cuts()

    @property
    def sha256(self) -> str:
        return self._hash.copy().hexdigest()

    @property
    def uncut(self) -> int:
        """How many bytes are in no message yet."""
        return self.length - self.cut_to

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._log, view)
            self._hash.update(view[:written])
            self.length += written
            view = view[written:]

    def cut(self, made_at_ms: int) -> Cut | None:
        """Make the next message of what was appended; None where nothing was.

        Raises OSError where the disk has no room for its record: then it can be made later.
        """
        if not self.uncut:
            return None
        cut = Cut(self.cut_to, min(self.uncut, limits.LOG_CHUNK_BYTES), made_at_ms)
        self._write_record(_RECORD.pack(cut.offset, cut.length, cut.made_at_ms))
        self.cut_to = cut.end
        return cut

    def sync(self) -> None:
        """Return when the bytes are on the disk."""
        os.fdatasync(self._log)

    def _write_record(self, record: bytes) -> None:
        count = self._cut_count()
        if os.write(self._cuts, record) < len(record):
            # Half of one would shift all that come after it.
            os.ftruncate(self._cuts, count * _RECORD.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _read_what_is_there(self) -> None:
        while data := os.pread(self._log, _READ_BYTES, self.length):
            self._hash.update(data)
            self.length += len(data)

    def _drop_broken_cuts(self) -> int:
        count = self._cut_count()
        while count and (last := self._cut_at(count - 1)) is not None and last.end > self.length:
            count -= 1
        os.ftruncate(self._cuts, count * _RECORD.size)
        last = self._cut_at(count - 1) if count else None
        return last.end if last else 0


def spooled_claims(directory: Path) -> list[str]:
    """The claims that have a log here."""
    return sorted(path.stem for path in directory.glob("*.log"))


def delete_spool(directory: Path, claim: str) -> None:
    """Remove a claim's log, whoever has it open still."""
    (directory / f"{claim}.log").unlink(missing_ok=True)
    (directory / f"{claim}.cuts").unlink(missing_ok=True)
