"""Unpacks a source tar from a stranger into a fresh workspace, or says why it will not.

The bytes are hostile, the workspace is empty and nothing of the job runs yet. Every member is made through the
descriptor of its parent directory, reached one component at a time without following a link; so whatever the names
say, nothing is written outside. Refused, the first offence ends it: absolute names, `..`, a name twice (or a file
used as a directory), links that could lead out, devices and fifos, too many entries, bytes or components, and any
compression but gzip (others can demand memory before a limit applies). What has been written by then goes with the
workspace.

A symbolic link is allowed if its target is relative and its only `..` come first, no more of them than the link lies
deep: then, links in between included, it cannot lead out. A hard link must name a file of this archive.

Deterministic: owner, times and modes do not come from the archive but for the executable bit. Blocking: call it in
a thread. Format: POSIX.1-2001 (pax), ustar and GNU tar, as the standard library reads them.
"""

import errno
import gzip
import io
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

GZIP_MAGIC = b"\x1f\x8b"
COPY_BYTES = 1 << 20
MAX_COMPONENT_BYTES = 255
MAX_PATH_BYTES = 2048
MAX_LINK_BYTES = 4096
# tarfile keeps a member's headers in memory; a header is not a place for data.
MAX_HEADER_BYTES = 1 << 20
# What tarfile and its decompressors raise on bytes made to confuse them.
MALFORMED = (
    tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError, IndexError, KeyError,
    RecursionError,
)  # fmt: skip


class Offence(Enum):
    """Why a source was refused; the value is a person's sentence."""

    NOT_A_TAR = "it is not a tar archive, or is cut short"
    ABSOLUTE = "a name is absolute"
    PARENT = "a name leads upwards"
    BAD_NAME = "a name is empty, too long or not text"
    DUPLICATE = "a name occurs twice, or a file is used as a directory"
    ESCAPING_LINK = "a link could lead out of the workspace"
    SPECIAL_FILE = "a member is neither file, directory nor link"
    TOO_MANY_ENTRIES = "it has too many members"
    TOO_LARGE = "it unpacks to too many bytes"


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    total_bytes: int
    entries: int = 200_000
    depth: int = 64


@dataclass(frozen=True, slots=True)
class Unpacked:
    entries: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class UnpackRefused:
    offence: Offence
    member: str


class _Refusal(Exception):
    def __init__(self, offence: Offence) -> None:
        self.offence = offence


def unpack(source: BinaryIO, workspace: Path, owner: tuple[int, int], limits: UnpackLimits) -> Unpacked | UnpackRefused:
    """Unpacks `source`, plain or gzip, into the empty directory `workspace`; everything then belongs to `owner`.

    Raises:
        OSError: the disk refuses; that is the provider's trouble, not the source's.
    """
    member = ""
    root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    state = _State(root, owner, limits)
    try:
        with _opened(source, limits) as (archive, stream):
            while (info := archive.next()) is not None:
                member = info.name[:200]
                stream.grant(max(0, info.size) + MAX_HEADER_BYTES)
                state.add(info, archive)
                stream.grant(MAX_HEADER_BYTES)
                _forget_member(archive)
    except _Refusal as refusal:
        return UnpackRefused(refusal.offence, member)
    except MALFORMED:
        return UnpackRefused(Offence.NOT_A_TAR, member)
    finally:
        os.close(root)
    return Unpacked(state.entries, state.total_bytes)


@contextmanager
def _opened(source: BinaryIO, limits: UnpackLimits) -> Iterator[tuple[tarfile.TarFile, "_Bounded"]]:
    start = source.read(2)
    source.seek(-len(start), os.SEEK_CUR)
    plain = gzip.GzipFile(fileobj=source, mode="rb") if start == GZIP_MAGIC else source
    # Headers and padding count too: the stream as a whole is bounded before tarfile sees a byte of it.
    bounded = _Bounded(plain, limits.total_bytes + limits.entries * 2 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE)
    with tarfile.open(fileobj=bounded, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
        yield archive, bounded


def _forget_member(archive: Any) -> None:
    """Drops what tarfile keeps of every member and of global headers; typeshed knows neither attribute as a list."""
    archive.members.clear()
    archive.pax_headers.clear()


class _Bounded(io.RawIOBase):
    """Reads no more than `limit` bytes in all, and no more at a time than was granted: so no header fills memory."""

    def __init__(self, file: BinaryIO | gzip.GzipFile, limit: int) -> None:
        super().__init__()
        self._file = file
        self._left = limit
        self._granted = MAX_HEADER_BYTES

    def grant(self, size: int) -> None:
        self._granted = size

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(COPY_BYTES if size < 0 else min(size, COPY_BYTES))
        self._left -= len(data)
        self._granted -= len(data)
        if min(self._left, self._granted) < 0:
            raise _Refusal(Offence.TOO_LARGE)
        return data


@dataclass(slots=True)
class _State:
    root: int
    owner: tuple[int, int]
    limits: UnpackLimits
    entries: int = 0
    total_bytes: int = 0
    names: set[tuple[str, ...]] = field(default_factory=set)
    files: set[tuple[str, ...]] = field(default_factory=set)

    def add(self, info: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        self.entries += 1
        if info.size < 0:
            raise _Refusal(Offence.NOT_A_TAR)
        self.total_bytes += info.size if info.isreg() else 0
        if self.entries > self.limits.entries:
            raise _Refusal(Offence.TOO_MANY_ENTRIES)
        if self.total_bytes > self.limits.total_bytes:
            raise _Refusal(Offence.TOO_LARGE)
        parts = safe_parts(info.name, self.limits.depth)
        if not parts:
            if not info.isdir():
                raise _Refusal(Offence.BAD_NAME)
            return
        if parts in self.names:
            raise _Refusal(Offence.DUPLICATE)
        self.names.add(parts)
        with self._parent(parts) as parent:
            self._make(info, archive, parent, parts)

    def _make(self, info: tarfile.TarInfo, archive: tarfile.TarFile, parent: int, parts: tuple[str, ...]) -> None:
        try:
            if info.isdir():
                _make_directory(parent, parts[-1], self.owner)
            elif info.isreg():
                _make_file(info, archive, parent, parts[-1], self.owner)
                self.files.add(parts)
            elif info.issym():
                _make_symlink(safe_target(info.linkname, len(parts) - 1), parent, parts[-1], self.owner)
            elif info.islnk():
                self._make_hard_link(info, parent, parts)
            else:
                raise _Refusal(Offence.SPECIAL_FILE)
        except FileExistsError as error:
            raise _Refusal(Offence.DUPLICATE) from error
        except OSError as error:
            if error.errno == errno.EMLINK:
                raise _Refusal(Offence.TOO_MANY_ENTRIES) from error
            raise

    def _make_hard_link(self, info: tarfile.TarInfo, parent: int, parts: tuple[str, ...]) -> None:
        target = safe_parts(info.linkname, self.limits.depth)
        if target not in self.files:
            raise _Refusal(Offence.ESCAPING_LINK)
        with self._parent(target) as there:
            os.link(target[-1], parts[-1], src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
        self.files.add(parts)

    @contextmanager
    def _parent(self, parts: tuple[str, ...]) -> Iterator[int]:
        """Opens the directory of the last of `parts`, making what is missing on the way."""
        current = os.dup(self.root)
        try:
            for name in parts[:-1]:
                inner = self._enter(current, name)
                os.close(current)
                current = inner
            yield current
        finally:
            os.close(current)

    def _enter(self, directory: int, name: str) -> int:
        try:
            os.mkdir(name, 0o755, dir_fd=directory)
            os.chown(name, *self.owner, dir_fd=directory, follow_symlinks=False)
            self.entries += 1
        except FileExistsError:
            pass
        try:
            return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        except OSError as error:  # a file or a link of this archive stands there
            raise _Refusal(Offence.DUPLICATE) from error


def safe_parts(name: str, depth: int) -> tuple[str, ...]:
    """Returns the components of a member's name below the workspace; none for the workspace itself."""
    if name.startswith("/"):
        raise _Refusal(Offence.ABSOLUTE)
    encoded = name.encode("utf-8", "surrogateescape")
    if not encoded or len(encoded) > MAX_PATH_BYTES or "\0" in name:
        raise _Refusal(Offence.BAD_NAME)
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise _Refusal(Offence.PARENT)
    if len(parts) > depth or any(len(part.encode("utf-8", "surrogateescape")) > MAX_COMPONENT_BYTES for part in parts):
        raise _Refusal(Offence.BAD_NAME)
    return parts


def safe_target(target: str, link_depth: int) -> str:
    """Returns a symbolic link's target if it cannot lead out from a directory `link_depth` below the workspace."""
    parts = PurePosixPath(target).parts
    ups = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    is_plain = bool(target) and len(target) <= MAX_LINK_BYTES and "\0" not in target
    if not is_plain or target.startswith("/") or ".." in parts[ups:] or ups > link_depth:
        raise _Refusal(Offence.ESCAPING_LINK)
    return target


def _make_directory(parent: int, name: str, owner: tuple[int, int]) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        # Made on the way to a member that came before it: the same directory, not a second one.
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
    os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)


def _make_file(info: tarfile.TarInfo, archive: tarfile.TarFile, parent: int, name: str, owner: tuple[int, int]) -> None:
    content = archive.extractfile(info)
    if content is None:
        raise _Refusal(Offence.SPECIAL_FILE)
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
    with os.fdopen(descriptor, "wb") as file, content:
        shutil.copyfileobj(content, file, COPY_BYTES)
        file.flush()
        if file.tell() != info.size:
            raise _Refusal(Offence.NOT_A_TAR)
        os.fchmod(file.fileno(), 0o755 if info.mode & stat.S_IXUSR else 0o644)
        os.fchown(file.fileno(), *owner)


def _make_symlink(target: str, parent: int, name: str, owner: tuple[int, int]) -> None:
    os.symlink(target, name, dir_fd=parent)
    os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
