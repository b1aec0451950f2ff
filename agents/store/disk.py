"""Blobs and unfinished uploads as files. Blocking: everything here is called in threads (`Disk` keeps no state).

`data/<tenant>/<first two digits>/<digest>` are blobs, `partial/<tab>-<digest>` are uploads under way. Directories have
mode 0700, files 0600; every part of a path is an id or a digest that was checked, never a name that somebody gave.
A blob comes into its place by a rename, after fsync, so that what is there is whole, also after a power cut.
"""

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

READ_BYTES = 256 * 1024
_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_TENANT = re.compile(r"t[a-z2-7]{26}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PARTIAL = re.compile(r"(b[a-z2-7]{26})-([0-9a-f]{64})")


class DiskFull(Exception):
    """No room for what was to be written; what was written before stays."""


@dataclass(frozen=True, slots=True)
class Stray:
    """A file of a blob or an upload, with its age: for those who look for what no row knows."""

    owner: str
    """A tenant, or the tab of an upload."""
    digest: str
    age_seconds: float


class Partial:
    """An upload under way: the file so far, and the hash of what is in it."""

    def __init__(self, path: Path) -> None:
        """Open or begin one; `load` it next. Raises DiskFull, or OSError."""
        with _telling_full():
            self._descriptor = os.open(path, _APPEND, _FILE_MODE)
        self._hash = hashlib.sha256()
        self.size = 0

    def load(self) -> None:
        """Read and hash what is there from earlier requests."""
        for chunk in _chunks(self._descriptor):
            self._hash.update(chunk)
            self.size += len(chunk)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Append all of `data`; raises DiskFull where only a part has room, which then is in the file and counted."""
        view = memoryview(data)
        while view:
            with _telling_full():
                written = os.write(self._descriptor, view)
            self._hash.update(view[:written])
            self.size += written
            view = view[written:]

    def sync(self) -> None:
        """Return when the bytes are on the disk; raises DiskFull, or OSError."""
        with _telling_full():
            os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class Blob:
    """An open blob, to be read from its beginning; it stays readable when its file is removed meanwhile."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._descriptor = os.open(path, _READ)
        self._hash = hashlib.sha256()
        self.size = os.fstat(self._descriptor).st_size

    @property
    def digest(self) -> str:
        """The digest of what was read so far."""
        return self._hash.hexdigest()

    def read(self) -> bytes:
        """The next bytes; empty at the end."""
        chunk = os.read(self._descriptor, READ_BYTES)
        self._hash.update(chunk)
        return chunk

    def close(self) -> None:
        os.close(self._descriptor)


class Disk:
    """The files of one store."""

    def __init__(self, root: Path, *, keep_free_bytes: int = 0) -> None:
        self._data = root / "data"
        self._partial = root / "partial"
        self._keep_free_bytes = keep_free_bytes

    def prepare(self) -> None:
        for directory in (self._data, self._partial):
            directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
            directory.chmod(_DIRECTORY_MODE)

    def free_bytes(self) -> int:
        """Room for new blobs: what the file system has left for us, less what the owner wants kept free."""
        status = os.statvfs(self._data)
        return max(0, status.f_bavail * status.f_frsize - self._keep_free_bytes)

    # -- uploads

    def open_partial(self, tab: str, digest: str) -> Partial:
        return Partial(self._partial_path(tab, digest))

    def partial_size(self, tab: str, digest: str) -> int:
        try:
            return self._partial_path(tab, digest).stat().st_size
        except FileNotFoundError:
            return 0

    def discard_partial(self, tab: str, digest: str) -> None:
        self._partial_path(tab, digest).unlink(missing_ok=True)

    def discard_partials(self, tab: str) -> None:
        for path in self._partial.glob(f"{tab}-*"):
            path.unlink(missing_ok=True)

    def keep(self, tab: str, tenant: str, digest: str) -> None:
        """Make a blob of a synced upload; whatever has its place is replaced. Raises DiskFull, or OSError."""
        place = self._blob_path(tenant, digest)
        with _telling_full():
            for directory in (place.parent.parent, place.parent):
                if not directory.exists():
                    directory.mkdir(mode=_DIRECTORY_MODE)
                    _sync_directory(directory.parent)
            self._partial_path(tab, digest).replace(place)
            _sync_directory(place.parent)

    # -- blobs

    def open_blob(self, tenant: str, digest: str) -> Blob:
        return Blob(self._blob_path(tenant, digest))

    def remove(self, tenant: str, digest: str) -> None:
        self._blob_path(tenant, digest).unlink(missing_ok=True)

    # -- looking around

    def blobs(self) -> Iterator[Stray]:
        """Every blob's file; `owner` is the tenant."""
        now = time.time()
        for path in self._data.glob("t*/??/*"):
            tenant = path.parent.parent.name
            if _TENANT.fullmatch(tenant) and _DIGEST.fullmatch(path.name):
                yield Stray(tenant, path.name, _age(path, now))

    def partials(self) -> Iterator[Stray]:
        """Every unfinished upload's file; `owner` is the tab."""
        now = time.time()
        for path in self._partial.iterdir():
            match = _PARTIAL.fullmatch(path.name)
            if match is not None:
                yield Stray(match[1], match[2], _age(path, now))

    def _blob_path(self, tenant: str, digest: str) -> Path:
        if not (_TENANT.fullmatch(tenant) and _DIGEST.fullmatch(digest)):
            raise ValueError("a blob's place is made of a tenant id and a digest")
        return self._data / tenant / digest[:2] / digest

    def _partial_path(self, tab: str, digest: str) -> Path:
        name = f"{tab}-{digest}"
        if not _PARTIAL.fullmatch(name):
            raise ValueError("an upload's file is named by a tab id and a digest")
        return self._partial / name


class _telling_full:  # noqa: N801  # reads as a statement
    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise DiskFull(error.strerror) from error


def _chunks(descriptor: int) -> Iterator[bytes]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    while chunk := os.read(descriptor, READ_BYTES):
        yield chunk


def _age(path: Path, now: float) -> float:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    # A link or directory in a file's place is none of ours, and never old enough to touch.
    return now - status.st_mtime if stat.S_ISREG(status.st_mode) else 0


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
