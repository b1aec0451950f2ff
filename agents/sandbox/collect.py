"""Finds a job's artifacts in the workspace it left, and opens them, without being led out of it.

The job is dead, its files are hostile: the workspace may be full of links, fifos, deep or huge trees. Directories and
files are opened one component at a time with O_NOFOLLOW, so no symbolic link is ever followed, not even one that
stays inside; special files are refused before they are opened. A pattern names a file, a directory (all files below
it) or a glob of files (`*`, `?`, `[...]` within a component, `**` for any number of components). Each file is one
artifact under its path in the workspace; order is by path, so the same workspace gives the same list.

A link or special file named outright is refused with its reason; one that a glob or a directory merely meets is
listed as skipped. Limits refuse the whole collection: half of a job's artifacts is not a result. Blocking: call it in
a thread; it hashes every file.
"""

import errno
import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

READ_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_VISITED = 1_000_000
GLOB = re.compile(r"[*?\[]")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Fault(Enum):
    """Why artifacts were refused; the value is a person's sentence."""

    BAD_PATTERN = "the path is absolute, empty or leads upwards"
    MISSING = "there is no such file"
    LINK = "it is a symbolic link, or lies behind one"
    SPECIAL_FILE = "it is neither file nor directory"
    UNREADABLE = "it cannot be read, or is not named in text"
    TOO_DEEP = "directories are nested too deep"
    TOO_MANY = "there are too many files"
    TOO_LARGE = "the files have too many bytes"
    CHANGED = "it is not the file that was collected"


@dataclass(frozen=True, slots=True)
class CollectLimits:
    total_bytes: int
    files: int = 10_000


@dataclass(frozen=True, slots=True)
class Artifact:
    """A regular file of the workspace; `path` is relative to it, with `/`. `identity` is (device, inode)."""

    path: str
    size_bytes: int
    sha256: str
    identity: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Collected:
    artifacts: tuple[Artifact, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CollectRefused:
    fault: Fault
    path: str


class CollectError(Exception):
    """A collected file is not there any more as it was."""


class _Refusal(Exception):
    def __init__(self, fault: Fault, path: str) -> None:
        self.fault = fault
        self.path = path


def collect(workspace: Path, patterns: Sequence[str], limits: CollectLimits) -> Collected | CollectRefused:
    """Returns the files that `patterns` name, with their digests, or the first reason why not."""
    root = os.open(workspace, _DIRECTORY)
    try:
        finder = _Finder(root, limits)
        for pattern in patterns:
            finder.add(pattern)
        return Collected(finder.artifacts(), tuple(sorted(finder.skipped)))
    except _Refusal as refusal:
        return CollectRefused(refusal.fault, refusal.path)
    finally:
        os.close(root)


@contextmanager
def open_artifact(workspace: Path, artifact: Artifact) -> Iterator[BinaryIO]:
    """Opens a collected file for reading its `size_bytes`.

    Raises:
        CollectError: it was replaced or changed its size since.
    """
    root = os.open(workspace, _DIRECTORY)
    try:
        descriptor = _open_file(root, artifact.path.split("/"))
    except _Refusal as refusal:
        raise CollectError(f"{artifact.path}: {refusal.fault.value}") from refusal
    finally:
        os.close(root)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) != artifact.identity or status.st_size != artifact.size_bytes:
            raise CollectError(f"{artifact.path}: {Fault.CHANGED.value}")
        yield file


class _Finder:
    def __init__(self, root: int, limits: CollectLimits) -> None:
        self._root = root
        self._limits = limits
        self._found: dict[str, os.stat_result] = {}
        self._total_bytes = 0
        self._visited = 0
        self.skipped: set[str] = set()

    def add(self, pattern: str) -> None:
        parts = split_pattern(pattern)
        fixed = next((n for n, part in enumerate(parts) if GLOB.search(part)), len(parts))
        if fixed == len(parts):
            self._add_named(parts)
            return
        with _opened_directory(self._root, parts[:fixed]) as start:
            is_any = self._walk(start, parts[:fixed], parts[fixed:], expand({0}, parts[fixed:]))
        if not is_any:
            raise _Refusal(Fault.MISSING, pattern)

    def _add_named(self, parts: list[str]) -> None:
        path = "/".join(parts)
        with _opened_directory(self._root, parts[:-1]) as parent:
            status = _status(parent, parts[-1], path)
            if stat.S_ISREG(status.st_mode):
                self._take(path, status)
            elif stat.S_ISDIR(status.st_mode):
                with _opened_directory(parent, parts[-1:]) as start:
                    self._walk(start, parts, ["**"], expand({0}, ["**"]))
            else:
                raise _Refusal(Fault.LINK if stat.S_ISLNK(status.st_mode) else Fault.SPECIAL_FILE, path)

    def _walk(self, directory: int, above: list[str], pattern: list[str], reached: set[int]) -> bool:
        """Takes the matching files below `directory`; `reached` is how far in `pattern` the way here may be."""
        if len(above) > MAX_DEPTH:
            raise _Refusal(Fault.TOO_DEEP, "/".join(above)[:200])
        is_any = False
        for name, status in self._entries(directory, above):
            further = step(reached, name, pattern)
            if stat.S_ISDIR(status.st_mode):
                if further - {len(pattern)}:
                    with _opened_directory(directory, [name]) as inner:
                        is_any |= self._walk(inner, [*above, name], pattern, further)
            elif len(pattern) in further:
                is_any |= self._take_met("/".join([*above, name]), status)
        return is_any

    def _entries(self, directory: int, above: list[str]) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries)
        self._visited += len(names)
        if self._visited > MAX_VISITED:
            raise _Refusal(Fault.TOO_MANY, "/".join(above)[:200])
        for name in names:
            yield name, _status(directory, name, "/".join([*above, name]))

    def _take_met(self, path: str, status: os.stat_result) -> bool:
        if not stat.S_ISREG(status.st_mode):
            self.skipped.add(path)
            return False
        self._take(path, status)
        return True

    def _take(self, path: str, status: os.stat_result) -> None:
        if not path.isprintable():  # bytes that are no text come as surrogates, which are not printable either
            raise _Refusal(Fault.UNREADABLE, ascii(path))
        if path not in self._found:
            self._total_bytes += status.st_size
        self._found[path] = status
        if len(self._found) > self._limits.files:
            raise _Refusal(Fault.TOO_MANY, path)
        if self._total_bytes > self._limits.total_bytes:
            raise _Refusal(Fault.TOO_LARGE, path)

    def artifacts(self) -> tuple[Artifact, ...]:
        return tuple(self._artifact(path, status) for path, status in sorted(self._found.items()))

    def _artifact(self, path: str, seen: os.stat_result) -> Artifact:
        with os.fdopen(_open_file(self._root, path.split("/")), "rb") as file:
            status = os.fstat(file.fileno())
            digest, size = _digest(file, seen.st_size)
        if size != seen.st_size or (status.st_dev, status.st_ino) != (seen.st_dev, seen.st_ino):
            raise _Refusal(Fault.CHANGED, path)
        return Artifact(path, size, digest, (seen.st_dev, seen.st_ino))


def split_pattern(pattern: str) -> list[str]:
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if not parts or pattern.startswith("/") or ".." in parts or "\0" in pattern or len(parts) > MAX_DEPTH:
        raise _Refusal(Fault.BAD_PATTERN, pattern[:200])
    return parts


def expand(reached: set[int], pattern: list[str]) -> set[int]:
    """Adds the places that `**` reaches by standing for nothing."""
    places = set(reached)
    for place in range(len(pattern)):
        if place in places and pattern[place] == "**":
            places.add(place + 1)
    return places


def step(reached: set[int], name: str, pattern: list[str]) -> set[int]:
    """Returns the places in `pattern` that are reached with one more component; all at once, so never exponential."""
    further = set()
    for place in reached - {len(pattern)}:
        if pattern[place] == "**":
            further.add(place)
        elif fnmatch.fnmatchcase(name, pattern[place]):
            further.add(place + 1)
    return expand(further, pattern)


def _status(directory: int, name: str, path: str) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError as error:
        raise _Refusal(Fault.MISSING, path) from error
    except (OSError, UnicodeError) as error:
        raise _Refusal(Fault.UNREADABLE, ascii(path)) from error


@contextmanager
def _opened_directory(start: int, parts: Sequence[str]) -> Iterator[int]:
    current = os.dup(start)
    try:
        for name in parts:
            inner = _open(current, name, _DIRECTORY)
            os.close(current)
            current = inner
        yield current
    finally:
        os.close(current)


def _open_file(root: int, parts: Sequence[str]) -> int:
    """Opens a regular file; a fifo put in its place would not block, and is refused."""
    with _opened_directory(root, parts[:-1]) as parent:
        if not stat.S_ISREG(_status(parent, parts[-1], "/".join(parts)).st_mode):
            raise _Refusal(Fault.CHANGED, "/".join(parts))
        return _open(parent, parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _open(directory: int, name: str, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=directory)
    except OSError as error:
        raise _Refusal(_fault_of(error, directory, name), name) from error


def _fault_of(error: OSError, directory: int, name: str) -> Fault:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        is_link = stat.S_ISLNK(_status(directory, name, name).st_mode)
        return Fault.LINK if is_link else Fault.MISSING
    return Fault.MISSING if error.errno == errno.ENOENT else Fault.UNREADABLE


def _digest(file: BinaryIO, size: int) -> tuple[str, int]:
    """Returns SHA-256 and length, reading at most one byte more than `size`."""
    digest = hashlib.sha256()
    read = 0
    while read <= size and (data := file.read(min(READ_BYTES, size + 1 - read))):
        digest.update(data)
        read += len(data)
    return digest.hexdigest(), read
