"""Which part of a blob a request asks for (RFC 9110 §14): one range of bytes, or the whole.

What is no single byte range is ignored, as §14.2 allows: the whole is then the answer. A range behind the end is
refused by the caller, never answered with the whole.
"""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes `start` to `end` (excluded) of a blob of `size`."""

    start: int
    end: int
    size: int

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def is_whole(self) -> bool:
        return self.length == self.size

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def read_range(header: str | None, size: int) -> Part | None:
    """The part that a `Range` header asks for; None where it lies behind the end."""
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or not (match[1] or match[2]):
        return Part(0, size, size)
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return Part(0, size, size)
    return Part(start, end, size) if start < end else None
