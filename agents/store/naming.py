"""Names: what a stored blob is called inside its tenant, `project/run/job/attempt/path` (DESIGN §10).

A name is given once. Giving it to the same blob again changes nothing; to another one is a conflict, for whoever reads
a name twice must find one thing. It can be read by a tab that may read everything, or under whose prefix it lies.
"""

from agents.store import admission, store
from agents.store.admission import NOT_FOUND
from agents.store.tables import NameRow
from agents.store.tabs import Tab
from runtime.clock import Clock
from runtime.database import Database
from schemas.refusals import Reason, Refusal
from schemas.store_api import NamedBlob


class Naming:
    """The names of one store."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def give(self, tab: Tab, name: str, wanted: NamedBlob) -> NamedBlob | Refusal:
        """Name a blob that this tab can read; whoever looks finds no name, or the whole blob behind it."""
        refusal = admission.check_name(name, tab.row.write_prefix)
        if refusal is not None:
            return refusal
        async with self._database.write() as session:
            blob = await store.blob(session, tab.tenant, wanted.digest)
            if blob is None or not await store.is_readable(session, tab.row, wanted.digest):
                return NOT_FOUND
            if blob.size_bytes != wanted.size_bytes:
                return Refusal(Reason.INVALID_REQUEST, f"that blob has {blob.size_bytes} bytes")
            known = await store.named(session, tab.tenant, name)
            if known is not None and known.digest != wanted.digest:
                return Refusal(Reason.CONFLICT, "that name is another blob's, for good")
            if known is None:
                now = self._clock.now()
                session.add(NameRow(tenant=tab.tenant, name=name, digest=wanted.digest, named_at=now))
        return wanted

    async def find(self, tab: Tab, name: str) -> NamedBlob | Refusal:
        """The blob of a name that this tab may know of."""
        prefix = tab.row.write_prefix
        if not tab.row.reads_all and (prefix is None or not name.startswith(prefix)):
            return NOT_FOUND
        async with self._database.read() as session:
            known = await store.named(session, tab.tenant, name)
            blob = await store.blob(session, tab.tenant, known.digest) if known is not None else None
        if blob is None:
            return NOT_FOUND
        return NamedBlob(digest=blob.digest, size_bytes=blob.size_bytes)
