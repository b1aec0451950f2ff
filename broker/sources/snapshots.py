"""Snapshots of sources on the controller's disk, one file each, named by its SHA-256.

A file appears under its name only when it is whole, checked and on the disk; the same snapshot twice is one file.
"""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from broker.sources import tarball
from broker.sources.resolving import Snapshot
from runtime.errors import OurFault
from schemas import limits
from schemas.refusals import Reason, Refusal


class Snapshots:
    """The directory of snapshots."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def clear(self) -> None:
        """Remove what an earlier process left half made."""
        for left in self._directory.glob(".new-*"):
            left.unlink()

    def path(self, digest: str) -> Path:
        return self._directory / f"{digest}.tar"

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def size_bytes(self, digest: str) -> int:
        return self.path(digest).stat().st_size

    def fresh_path(self) -> Path:
        """A name for a file in the making, on the same file system."""
        return self._directory / f".new-{secrets.token_hex(8)}"

    async def read(self, digest: str) -> bytes:
        """The bytes of a small snapshot; raises OurFault when it is gone."""
        try:
            return await asyncio.to_thread(self.path(digest).read_bytes)
        except OSError as error:
            raise OurFault(
                f"the snapshot is gone ({error.strerror})",
                where=str(self.path(digest)),
                remedy="Restore the controller's directory from its backup, or submit the run again.",
            ) from error

    async def receive(self, digest: str, chunks: AsyncIterator[bytes]) -> Refusal | None:
        """Stream an upload to the disk and keep it if it is the snapshot that it claims to be.

        A cancel, or a sender that goes away, leaves nothing behind.
        """
        fresh = self.fresh_path()
        try:
            with fresh.open("xb") as file:
                size_bytes, counted = 0, hashlib.sha256()
                async for chunk in chunks:
                    size_bytes += len(chunk)
                    if size_bytes > limits.SNAPSHOT_BYTES:
                        return Refusal(Reason.TOO_LARGE, f"over {limits.SNAPSHOT_BYTES // limits.MIB} MiB")
                    await asyncio.to_thread(_append, file.fileno(), counted, chunk)
                await asyncio.to_thread(os.fsync, file.fileno())
            if counted.hexdigest() != digest:
                return Refusal(Reason.DIGEST_MISMATCH, "the bytes that came have another SHA-256")
            return await asyncio.to_thread(self._keep, fresh, digest)
        finally:
            fresh.unlink(missing_ok=True)

    async def adopt(self, snapshot: Snapshot) -> Refusal | None:
        """Take over a snapshot that was made in a file of `fresh_path`."""
        try:
            return await asyncio.to_thread(self._keep, snapshot.path, snapshot.digest)
        finally:
            snapshot.path.unlink(missing_ok=True)

    async def member(self, digest: str, name: str) -> bytes | None:
        """A small file inside the snapshot, such as its pipeline."""
        return await asyncio.to_thread(tarball.read_member, self.path(digest), name, limits.PIPELINE_BYTES)

    def _keep(self, fresh: Path, digest: str) -> Refusal | None:
        refusal = tarball.check_tar(fresh)
        if refusal is None:
            fresh.replace(self.path(digest))
        return refusal


def _append(descriptor: int, counted: "hashlib._Hash", chunk: bytes) -> None:
    counted.update(chunk)
    left = memoryview(chunk)
    while left:
        left = left[os.write(descriptor, left) :]
