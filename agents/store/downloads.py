"""Downloads: a blob of the tab's tenant, or a part of it, checked while it is sent (DESIGN §10).

The whole blob is hashed, also when a part is asked for, and the last bytes are held back until its digest has come out
right. If it does not, the answer ends unfinished, an alarm is logged, and the blob counts as damaged: it is not served,
and an upload of the same digest mends it. What was really sent is counted for the tab, cut off or not.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from agents.store import store
from agents.store.admission import NOT_FOUND
from agents.store.disk import Blob, Disk
from agents.store.ranges import Part, read_range
from agents.store.tabs import Tab
from agents.store.transfers import undivided
from runtime.clock import Clock
from runtime.database import Database
from runtime.logging import get_logger
from schemas.refusals import Reason, Refusal

_log = get_logger(__name__)


class Damaged(Exception):
    """The bytes on the disk are not those of the digest."""


@dataclass(frozen=True, slots=True)
class Download:
    """A blob that is open; end it with `Downloads.end`."""

    tab: Tab
    digest: str
    blob: Blob
    part: Part


class Downloads:
    """All downloads of one store."""

    def __init__(self, database: Database, disk: Disk, clock: Clock) -> None:
        self._database = database
        self._disk = disk
        self._clock = clock

    async def open(self, tab: Tab, digest: str, range_header: str | None) -> Download | Refusal:
        """Open what is asked for; a tab that may not read it learns no more than that it is not there."""
        async with self._database.read() as session:
            is_readable = await store.is_readable(session, tab.row, digest)
            row = await store.blob(session, tab.tenant, digest) if is_readable else None
        if row is None:
            return NOT_FOUND
        part = read_range(range_header, row.size_bytes)
        if part is None:
            return Refusal(
                Reason.INVALID_REQUEST, f"the range lies behind the end; the blob has {row.size_bytes} bytes"
            )
        try:
            blob = self._disk.open_blob(tab.tenant, digest)
        except FileNotFoundError:
            await self._mark_damaged(tab.tenant, digest, "the file is gone")
            return NOT_FOUND
        if blob.size != row.size_bytes:
            blob.close()
            await self._mark_damaged(tab.tenant, digest, f"the file has {blob.size} bytes, not {row.size_bytes}")
            return NOT_FOUND
        return Download(tab, digest, blob, part)

    async def chunks(self, download: Download) -> AsyncIterator[bytes]:
        """Yield the part's bytes; raises Damaged in place of the last ones. Close the download afterwards."""
        held, position = b"", 0
        while chunk := await asyncio.to_thread(download.blob.read):
            wanted = _within(download.part, position, chunk)
            position += len(chunk)
            if wanted:
                if held:
                    yield held
                held = wanted
        if download.blob.digest != download.digest:
            await self._mark_damaged(download.tab.tenant, download.digest, "the bytes are others")
            raise Damaged
        if held:
            yield held

    async def end(self, download: Download, sent_bytes: int) -> None:
        """Close the blob and count what was sent; done whole also when the request is cancelled meanwhile."""
        download.blob.close()
        if sent_bytes:
            await undivided(self._count(download.tab.id, sent_bytes))

    async def _count(self, tab_id: str, sent_bytes: int) -> None:
        async with self._database.write() as session:
            await store.count_bytes_out(session, tab_id, sent_bytes)

    async def _mark_damaged(self, tenant: str, digest: str, why: str) -> None:
        _log.error("blob_damaged", tenant=tenant, digest=digest, why=why)
        async with self._database.write() as session:
            row = await store.blob(session, tenant, digest)
            if row is not None:
                row.damaged_at = self._clock.now()


def _within(part: Part, position: int, chunk: bytes) -> bytes:
    """What of a chunk at `position` lies in the part."""
    return chunk[max(0, part.start - position) : max(0, part.end - position)]
