"""Brings snapshots that are too large to travel inside a job into the project's store, once each (DESIGN §8).

Asked by dispatch whether a snapshot is there; if not, the upload is started and the job waits with the reason. An
upload that fails is tried again after a while. One upload a store at a time: a slow store delays only its own jobs.
"""

import asyncio
from pathlib import Path
from typing import Protocol

from broker.bells import Bells
from broker.sources.snapshots import Snapshots
from broker.store import attempts as attempt_store
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import FedciError
from runtime.logging import get_logger
from schemas.refusals import Refusal

_log = get_logger(__name__)
_RETRY_SECONDS = 20.0


class BlobStores(Protocol):
    """What is asked of `broker.providers.stores`: keep this file, under its digest, in the store of that provider."""

    async def put_blob(self, provider: str, path: Path, digest: str) -> Refusal | None: ...


class Uploads:
    """The uploads of this controller; `run` does them, in one task."""

    def __init__(
        self, *, database: Database, snapshots: Snapshots, stores: BlobStores, bells: Bells, clock: Clock
    ) -> None:
        self._database = database
        self._snapshots = snapshots
        self._stores = stores
        self._bells = bells
        self._clock = clock
        self._wanted: dict[str, list[str]] = {}
        self._troubles: dict[tuple[str, str], str] = {}

    async def trouble(self, store: str, digest: str) -> str | None:
        """None when the snapshot is in the store; else why not yet, and it will be tried."""
        async with self._database.read() as session:
            if await attempt_store.is_uploaded(session, store, digest):
                return None
        waiting = self._wanted.setdefault(store, [])
        if digest not in waiting:
            waiting.append(digest)
            self._bells.uploads.set()
        return self._troubles.get((store, digest), f"its sources are being uploaded to {store}")

    async def run(self) -> None:
        """Upload what is wanted until cancelled; an upload that was cut off is begun again."""
        async with asyncio.TaskGroup() as group:
            busy: dict[str, asyncio.Task[None]] = {}
            while True:
                await self._bells.uploads.wait()
                self._bells.uploads.clear()
                for store in [name for name, digests in self._wanted.items() if digests]:
                    if store not in busy or busy[store].done():
                        busy[store] = group.create_task(self._serve(store))

    async def _serve(self, store: str) -> None:
        while self._wanted.get(store):
            digest = self._wanted[store][0]
            trouble = await self._upload(store, digest)
            if trouble is None:
                self._troubles.pop((store, digest), None)
                self._wanted[store].remove(digest)
            else:
                self._troubles[(store, digest)] = f"its sources could not be uploaded to {store}: {trouble}"
                self._wanted[store].append(self._wanted[store].pop(0))
            self._bells.offers_changed()
            if trouble is not None:
                await asyncio.sleep(_RETRY_SECONDS)

    async def _upload(self, store: str, digest: str) -> str | None:
        try:
            refusal = await self._stores.put_blob(store, self._snapshots.path(digest), digest)
            if refusal is not None:
                return str(refusal)
            async with self._database.write() as session:
                await attempt_store.note_uploaded(session, store, digest, self._clock.now())
        except (FedciError, OSError) as error:
            _log.warning("upload_failed", store=store, digest=digest, reason=str(error))
            return str(error)
        _log.info("source_uploaded", store=store, digest=digest)
        return None
