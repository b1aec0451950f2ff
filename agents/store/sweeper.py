"""What happens by itself: tabs that are over are settled, stored hours are stated, blobs expire, orphans go.

Every round may be cut off anywhere and repeated: each piece is one transaction, and what is stated is marked in it. A
blob is removed only when every hour before the present one has been stated, so nothing stored goes unbilled and nothing
is billed twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, islice

from agents.store import metering, store
from agents.store.billing import Billing
from agents.store.disk import Disk, Stray
from agents.store.metering import Fact
from agents.store.tables import BlobRow
from agents.store.tabs import Tabs, customer_of
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import WorldFault
from runtime.logging import get_logger
from runtime.outbox_table import OutboxTable

ROUND_SECONDS = 30.0
BLOBS_AT_ONCE = 200
HOURS_AT_ONCE = 24
OLD_SECONDS = 24 * 3600
"""A file that no row knows may belong to an upload that is being kept just now; a day later it does not."""
KEEP_TABS = timedelta(days=7)
KEEP_SENT = timedelta(days=14)
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is in the store."""

    blobs: int = 0
    size_bytes: int = 0


class Sweeper:
    """The store's housekeeping; one of them. `kept` is what the last sweep found."""

    def __init__(
        self, *, tabs: Tabs, billing: Billing, database: Database, disk: Disk, outbox: OutboxTable, clock: Clock
    ) -> None:
        self._tabs = tabs
        self._billing = billing
        self._database = database
        self._disk = disk
        self._outbox = outbox
        self._clock = clock
        self._searched_at: datetime | None = None
        self.kept = Kept()

    async def run(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Sweep until cancelled; what the world fails is done in the next round."""
        while True:
            try:
                await self.sweep()
            except (WorldFault, OSError) as error:
                _log.warning("sweep_failed", why=str(error))
            await sleep(ROUND_SECONDS)

    async def sweep(self) -> None:
        """Do all that is due now."""
        while await self._tabs.settle_ended():
            pass
        while await self.state_hours():
            pass
        while await self.remove_expired():
            pass
        await self._forget()
        await self._search_orphans()

    async def state_hours(self) -> int:
        """State the hours that are over for some blobs; returns for how many."""
        if not await self._billing.is_ready():
            return 0
        this_hour = metering.hour_of(self._clock.now())
        async with self._database.write() as session:
            due = await store.blobs_to_meter(session, this_hour, BLOBS_AT_ONCE)
            for tenant, blobs in groupby(sorted(due, key=_tenant), key=_tenant):
                facts = [fact for blob in blobs for fact in _meter(blob, this_hour)]
                self._billing.state(session, await customer_of(session, tenant), facts)
        return len(due)

    async def remove_expired(self) -> int:
        """Remove some blobs whose time is over and whose hours are all stated; returns how many."""
        this_hour = metering.hour_of(self._clock.now())
        async with self._database.write() as session:
            expired = await store.expired_blobs(session, self._clock.now(), this_hour, BLOBS_AT_ONCE)
            for blob in expired:
                await session.delete(blob)
            await session.flush()
            # Before the commit: an upload of the same digest that comes next must not lose its file.
            await asyncio.to_thread(self._remove_files, [(blob.tenant, blob.digest) for blob in expired])
        if expired:
            _log.info("blobs_expired", count=len(expired))
        return len(expired)

    # -- what nobody waits for

    async def _forget(self) -> None:
        now = self._clock.now()
        async with self._database.write() as session:
            await store.forget_tabs(session, now - KEEP_TABS)
        await self._outbox.purge(now - KEEP_SENT)
        async with self._database.read() as session:
            self.kept = Kept(*await store.totals(session))

    async def _search_orphans(self) -> None:
        """Once a day, remove old files that no row knows: left by a crash between a file and its row."""
        now = self._clock.now()
        if self._searched_at is not None and now - self._searched_at < timedelta(days=1):
            return
        self._searched_at = now
        for tenant, strays in groupby(await asyncio.to_thread(_old, self._disk.blobs()), key=lambda each: each.owner):
            await self._remove_orphans(tenant, list(strays))
        partials = await asyncio.to_thread(_old, self._disk.partials())
        async with self._database.read() as session:
            known = await store.open_uploads(session)
        for stray in partials:
            if (stray.owner, stray.digest) not in known:
                await asyncio.to_thread(self._disk.discard_partial, stray.owner, stray.digest)

    async def _remove_orphans(self, tenant: str, strays: list[Stray]) -> None:
        async with self._database.write() as session:  # a write, so that nothing is kept meanwhile
            for batch in _batches((stray.digest for stray in strays), BLOBS_AT_ONCE):
                orphans = set(batch) - await store.known_digests(session, tenant, batch)
                await asyncio.to_thread(self._remove_files, [(tenant, digest) for digest in orphans])
                if orphans:
                    _log.warning("orphans_removed", tenant=tenant, count=len(orphans))

    def _remove_files(self, blobs: list[tuple[str, str]]) -> None:
        for tenant, digest in blobs:
            self._disk.remove(tenant, digest)


def _meter(blob: BlobRow, until: datetime) -> list[Fact]:
    """The facts of a blob's next hours, and the note on it that they were stated."""
    facts = []
    for start, end in metering.hours_between(blob.metered_until, until)[:HOURS_AT_ONCE]:
        facts.append(metering.stored(blob.tenant, blob.digest, blob.size_bytes, blob.project, start, end))
        blob.metered_until = end
    return facts


def _old(files: Iterator[Stray]) -> list[Stray]:
    return sorted((each for each in files if each.age_seconds > OLD_SECONDS), key=lambda each: each.owner)


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _tenant(blob: BlobRow) -> str:
    return blob.tenant
