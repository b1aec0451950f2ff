"""Uploads: bytes into a tab's file, and into the store when they are whole and what their digest says (DESIGN §10).

Rules:
- what the tab can read already is not sent again. Only that: a stranger's knowing a digest must neither tell it that
  the tenant has the blob nor let it read it, so everybody else sends the bytes, and they are stored once;
- room is kept (`admission.check_room`) from the first byte until the upload is whole or the tab over;
- a newer request for the same blob ends the older one: whoever asks again has lost that one;
- a body that stalls or breaks off leaves what has arrived, to be continued. So does a full disk (`STORE_FULL`). Other
  bytes than the digest's are thrown away (`DIGEST_MISMATCH`);
- the blob's row, the bytes counted for the bill and the end of the upload share one transaction, with the file in its
  place before it commits. A crash in between leaves a file without a row, which is overwritten or swept.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from agents.store import admission, store
from agents.store.admission import Room
from agents.store.disk import Disk, DiskFull, Partial
from agents.store.tables import BlobRow, UploadRow
from agents.store.tabs import Tab, bytes_left, ended, the_tab
from agents.store.transfers import undivided
from runtime.clock import Clock
from runtime.database import Database
from runtime.logging import get_logger
from schemas.refusals import Reason, Refusal
from schemas.store_api import UploadState

WRITE_BYTES = 256 * 1024
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What one store takes."""

    blob_bytes: int
    quota_bytes: int
    keep: timedelta
    stall_seconds: float = 60


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request wants to upload."""

    tab: Tab
    digest: str
    size: int

    @property
    def key(self) -> tuple[str, str]:
        return (self.tab.id, self.digest)


class Uploads:
    """All uploads of one store."""

    def __init__(self, database: Database, disk: Disk, limits: UploadLimits, clock: Clock) -> None:
        self._database = database
        self._disk = disk
        self._limits = limits
        self._clock = clock
        self._incoming: dict[tuple[str, str], _Incoming] = {}

    async def state(self, wanted: Wanted) -> UploadState | Refusal:
        """Where an upload can go on, or why there would be none; keeps no room yet.

        What is there is kept as long as if it had been uploaded now.
        """
        if await self._renew(wanted):
            return UploadState(offset=wanted.size, is_complete=True)
        async with self._database.read() as session:
            begun = await store.upload(session, wanted.tab.id, wanted.digest)
            stored = await self._stored(wanted)
            if begun is None:
                refusal = admission.check_room(wanted.size, await self._room(session, wanted))
            else:
                refusal = admission.check_offset(stored, wanted.size, begun.size_bytes, stored)
        return refusal or self._full(wanted.size - stored) or UploadState(offset=stored, is_complete=False)

    async def receive(self, wanted: Wanted, offset: int, body: AsyncIterator[bytes]) -> UploadState | Refusal:
        """Take the bytes from `offset` on; the blob is durable when the answer says that it is complete.

        At least once for its sender: doing it again is harmless. A cancel leaves what has arrived.
        Raises WorldFault or OSError when database or disk fail otherwise than by being full.
        """
        older = self._incoming.get(wanted.key)
        incoming = self._incoming[wanted.key] = _Incoming(self._limits.stall_seconds, older)
        try:
            await incoming.take_over()
            begun = await self._begin(wanted, offset)
            if not isinstance(begun, _GoOn):
                return begun
            return await self._write_all(wanted, offset, body, incoming)
        except DiskFull:
            _log.warning("store_full", tab=wanted.tab.id, tenant=wanted.tab.tenant)
            return admission.store_full()
        finally:
            incoming.end()
            if self._incoming.get(wanted.key) is incoming:
                self._give_back(wanted.key, incoming)

    # -- beginning

    def _give_back(self, key: tuple[str, str], ended: "_Incoming") -> None:
        """Leave the place of a request that is over to the one before it, should that still be at work."""
        older = ended.unended_older()
        if older is None:
            del self._incoming[key]
        else:
            self._incoming[key] = older

    async def _begin(self, wanted: Wanted, offset: int) -> "_GoOn | UploadState | Refusal":
        """Keep room for an upload, or find that it has room, or is not needed."""
        stored = await self._stored(wanted)
        async with self._database.write() as session:
            if await self._is_there(session, wanted):
                return UploadState(offset=wanted.size, is_complete=True)
            begun = await store.upload(session, wanted.tab.id, wanted.digest)
            if begun is None:
                refusal = admission.check_room(wanted.size, await self._room(session, wanted))
                refusal = refusal or admission.check_offset(offset, wanted.size, wanted.size, stored)
                if refusal is None:
                    session.add(_new_upload(wanted, self._clock))
            else:
                refusal = admission.check_offset(offset, wanted.size, begun.size_bytes, stored)
        return refusal or self._full(wanted.size - stored) or _GoOn()

    async def _is_there(self, session: AsyncSession, wanted: Wanted) -> bool:
        row = await store.blob(session, wanted.tab.tenant, wanted.digest)
        return row is not None and await store.is_readable(session, wanted.tab.row, wanted.digest)

    async def _renew(self, wanted: Wanted) -> bool:
        async with self._database.read() as session:
            if not await self._is_there(session, wanted):
                return False
        async with self._database.write() as session:
            row = await store.blob(session, wanted.tab.tenant, wanted.digest)
            if row is not None:
                row.expires_at = max(row.expires_at, self._clock.now() + self._limits.keep)
        return row is not None

    async def _room(self, session: AsyncSession, wanted: Wanted) -> Room:
        row = await the_tab(session, wanted.tab.id)
        used = await store.used_by_tenant(session, wanted.tab.tenant)
        return Room(
            in_ticket=await bytes_left(session, row),
            in_quota=self._limits.quota_bytes - used,
            on_disk=self._disk.free_bytes(),
            per_blob=self._limits.blob_bytes,
        )

    async def _stored(self, wanted: Wanted) -> int:
        return await asyncio.to_thread(self._disk.partial_size, *wanted.key)

    def _full(self, missing: int) -> Refusal | None:
        return admission.store_full() if missing > self._disk.free_bytes() else None

    # -- receiving

    async def _write_all(
        self, wanted: Wanted, offset: int, body: AsyncIterator[bytes], incoming: "_Incoming"
    ) -> UploadState | Refusal:
        partial = self._disk.open_partial(*wanted.key)
        try:
            await undivided(asyncio.to_thread(partial.load))
            if partial.size != offset:
                return Refusal(Reason.CONFLICT, f"{partial.size} bytes are stored; go on from there")
            refusal = await self._write(partial, wanted.size, body, incoming)
            if refusal is not None:
                return refusal
            if partial.size < wanted.size:
                return UploadState(offset=partial.size, is_complete=False)
            return await self._finish(wanted, partial)
        finally:
            partial.close()

    async def _write(
        self, partial: Partial, size: int, body: AsyncIterator[bytes], incoming: "_Incoming"
    ) -> Refusal | None:
        pending = bytearray()
        missing = size - partial.size
        while True:
            chunk = await incoming.next_of(body)
            if isinstance(chunk, Refusal) or not chunk:
                await undivided(asyncio.to_thread(partial.write, bytes(pending)))
                return chunk if isinstance(chunk, Refusal) else None
            pending += chunk
            if len(pending) > missing:
                return Refusal(Reason.INVALID_REQUEST, "the body is longer than the size says")
            if len(pending) >= WRITE_BYTES:
                await undivided(asyncio.to_thread(partial.write, bytes(pending)))
                missing -= len(pending)
                pending.clear()

    # -- keeping

    async def _finish(self, wanted: Wanted, partial: Partial) -> UploadState | Refusal:
        if partial.digest != wanted.digest:
            await self._throw_away(wanted)
            return Refusal(Reason.DIGEST_MISMATCH, "these are not the bytes of that digest; they were thrown away")
        await undivided(asyncio.to_thread(partial.sync))
        async with self._database.write() as session:
            refusal = await self._keep(session, wanted)
        if refusal is not None:
            await self._throw_away(wanted)
            return refusal
        _log.info("blob_stored", tab=wanted.tab.id, tenant=wanted.tab.tenant, size_bytes=wanted.size)
        return UploadState(offset=wanted.size, is_complete=True)

    async def _keep(self, session: AsyncSession, wanted: Wanted) -> Refusal | None:
        row, now = await the_tab(session, wanted.tab.id), self._clock.now()
        refusal = ended(row, now)
        if refusal is not None:
            return refusal
        row.bytes_in += wanted.size
        await store.end_upload(session, wanted.tab.id, wanted.digest)
        await store.make_readable(session, wanted.tab.id, wanted.digest)
        blob = await store.any_blob(session, wanted.tab.tenant, wanted.digest)
        if blob is not None and blob.damaged_at is None:
            blob.expires_at = max(blob.expires_at, now + self._limits.keep)
            await undivided(asyncio.to_thread(self._disk.discard_partial, *wanted.key))
            return None
        if blob is None:
            blob = BlobRow(tenant=wanted.tab.tenant, digest=wanted.digest, size_bytes=wanted.size, project=row.project)
            session.add(blob)
        blob.stored_at = blob.metered_until = now
        blob.expires_at = now + self._limits.keep
        blob.damaged_at = None
        await session.flush()
        await undivided(asyncio.to_thread(self._disk.keep, wanted.tab.id, wanted.tab.tenant, wanted.digest))
        return None

    async def _throw_away(self, wanted: Wanted) -> None:
        await undivided(asyncio.to_thread(self._disk.discard_partial, *wanted.key))
        async with self._database.write() as session:
            await store.end_upload(session, *wanted.key)


class _GoOn:
    """Room is kept; the bytes may come."""


class _Incoming:
    """One request's body: ends when it stalls, and when a newer request takes over; follows the `older` one."""

    def __init__(self, stall_seconds: float, older: "_Incoming | None") -> None:
        self._older = older
        self._stall_seconds = stall_seconds
        self._is_cut = False
        self._waiting: asyncio.Timeout | None = None
        self._ended = asyncio.Event()

    async def take_over(self) -> None:
        """End the older request, and return when nothing of it writes any more."""
        if self._older is not None:
            await self._older.cut()
            self._older = None

    def unended_older(self) -> "_Incoming | None":
        return None if self._older is None or self._older._ended.is_set() else self._older  # noqa: SLF001 - its own class

    async def next_of(self, body: AsyncIterator[bytes]) -> bytes | Refusal:
        """The next bytes; empty at the end of the body."""
        if self._is_cut:
            return _taken_over()
        try:
            async with asyncio.timeout(self._stall_seconds) as self._waiting:
                return await anext(body, b"")
        except TimeoutError:
            return self._why_ended()
        finally:
            self._waiting = None

    def _why_ended(self) -> Refusal:
        return _taken_over() if self._is_cut else Refusal(Reason.UNAVAILABLE, "the body stalled; go on later")

    async def cut(self) -> None:
        """End this request's upload, and return when nothing of it writes any more."""
        self._is_cut = True
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())
        await self._ended.wait()
        # Given up while it waited for its own turn, it never saw the end of the one before it.
        await self.take_over()

    def end(self) -> None:
        self._ended.set()


def _taken_over() -> Refusal:
    return Refusal(Reason.CONFLICT, "a newer request goes on with this upload")


def _new_upload(wanted: Wanted, clock: Clock) -> UploadRow:
    return UploadRow(
        tab=wanted.tab.id,
        digest=wanted.digest,
        tenant=wanted.tab.tenant,
        size_bytes=wanted.size,
        begun_at=clock.now(),
    )
