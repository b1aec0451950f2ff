"""Files on their way to and from a store: read and written in threads, in constant memory.

A blob lands in a temporary file beside its place and is moved there only when its SHA-256 is right, so that whoever
finds a file at the place finds the whole blob. Reading tells a file that changed on the way from a network that failed.
"""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from runtime.errors import WorldFault

CHUNK_BYTES = 256 * 1024


class FileChanged(Exception):
    """A file has fewer bytes than its sender said."""


class FileFault(WorldFault):
    """A local file cannot be read or written; asking the store again does not mend that."""


async def read_chunks(path: Path, offset: int, size: int) -> AsyncIterator[bytes]:
    """Yield the bytes `offset` to `size` of a file; raises FileChanged where it ends before, or FileFault."""
    file = await asyncio.to_thread(_open, path, offset)
    try:
        left = size - offset
        while left > 0:
            chunk = await asyncio.to_thread(_read, file, min(CHUNK_BYTES, left))
            if not chunk:
                raise FileChanged(str(path))
            left -= len(chunk)
            yield chunk
    finally:
        file.close()


async def cut(data: bytes, offset: int) -> AsyncIterator[bytes]:
    """Yield `data` from `offset` on, in chunks as of a file."""
    for start in range(offset, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


class Landing:
    """A blob on its way into a file. End it with `settle` or `discard`; neither twice."""

    def __init__(self, path: Path) -> None:
        """`path` may exist: it is replaced as a whole. Raises FileFault where the directory cannot be written."""
        self._path = path
        self._partial = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.partial")
        self._hash = hashlib.sha256()
        self.offset = 0
        with _worldly(path):
            self._file: BinaryIO = open(self._partial, "xb")  # noqa: SIM115, PTH123  # closed by `settle` or `discard`

    async def write(self, chunk: bytes) -> None:
        with _worldly(self._path):
            await asyncio.to_thread(self._write, chunk)
        self.offset += len(chunk)

    def restart(self) -> None:
        """Forget what has landed: the store sends the blob from its beginning."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self.offset = 0

    async def settle(self, digest: str) -> bool:
        """Move the file to its place if these are the bytes of `digest`; else throw it away."""
        if self._hash.hexdigest() != digest:
            self.discard()
            return False
        with _worldly(self._path):
            await asyncio.to_thread(self._publish)
        return True

    def discard(self) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def _write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)

    def _publish(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)


class _worldly:  # noqa: N801  # reads as a statement
    """Turns I/O errors inside the block into FileFault that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise FileFault(
                f"the file cannot be read or written ({error.strerror})",
                where=str(self._path),
                remedy="See the free space, and who owns the directory.",
            ) from error


def _open(path: Path, offset: int) -> BinaryIO:
    with _worldly(path):
        file = open(path, "rb")  # noqa: SIM115, PTH123  # closed by the generator
        file.seek(offset)
        return file


def _read(file: BinaryIO, size: int) -> bytes:
    with _worldly(Path(file.name)):
        return file.read(size)
