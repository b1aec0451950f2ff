"""The controller's own dealings with stores: its tab, uploads of snapshots, downloads of artifacts (DESIGN §10).

A tab is opened by a ticket that the controller signs for its own key, and used until shortly before its end. The
store's address stands in its provider's card, which the pinned root signed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx

from broker.book import Book
from broker.voice import Voice
from identity.keys import SigningKey
from runtime.clock import Clock
from runtime.store_client import BlobStream, StoreClient, Tab
from schemas import limits
from schemas.ids import store_audience
from schemas.refusals import Reason, Refusal
from schemas.statements import StoreOffer
from schemas.tickets import StoreTicket

_TAB_LIVES = timedelta(hours=1)
_TAB_MARGIN = timedelta(minutes=5)
OpenClient = Callable[[StoreOffer], httpx.AsyncClient]


class Stores:
    """The stores that this controller uses, each with one tab at a time."""

    def __init__(self, *, book: Book, voice: Voice, key: SigningKey, open_client: OpenClient, clock: Clock) -> None:
        self._book = book
        self._voice = voice
        self._key = key
        self._open_client = open_client
        self._clock = clock
        self._tabs: dict[str, Tab] = {}
        self._clients: dict[StoreOffer, httpx.AsyncClient] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def put_blob(self, provider: str, path: Path, digest: str) -> Refusal | None:
        """Bring a file into the store; raises WorldFault when the store stays away."""
        tab = await self._tab(provider)
        if isinstance(tab, Refusal):
            return tab
        size_bytes = path.stat().st_size
        return await tab.put_file(path, digest, size_bytes)

    @asynccontextmanager
    async def stream(self, provider: str, digest: str) -> AsyncIterator[BlobStream | Refusal]:
        """Open an artifact for reading; its bytes are checked on the way, a wrong end is a PeerFault."""
        tab = await self._tab(provider)
        if isinstance(tab, Refusal):
            yield tab
            return
        async with tab.stream(digest) as blob:
            yield blob

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def _tab(self, provider: str) -> Tab | Refusal:
        async with self._locks.setdefault(provider, asyncio.Lock()):
            tab = self._tabs.get(provider)
            if tab is None or tab.ends_at - _TAB_MARGIN <= self._clock.now():
                opened = await self._open(provider)
                if isinstance(opened, Refusal):
                    return opened
                self._tabs[provider] = tab = opened
            return tab

    async def _open(self, provider: str) -> Tab | Refusal:
        known = self._book.store_of(provider)
        if known is None or known.card.store is None:
            return Refusal(Reason.NOT_FOUND, f"no provider {provider} with a store is known here")
        offer = known.card.store
        if offer not in self._clients:
            self._clients[offer] = self._open_client(offer)
        ticket = await self._voice.speaker.ticket(
            store_audience(provider),
            StoreTicket,
            holder_key=self._key.public,
            attempt=None,
            reads_all=True,
            write_prefix="sources/",
            write_bytes=4 * limits.SNAPSHOT_BYTES,
            tab_ends_at=self._clock.now() + _TAB_LIVES,
        )
        return await StoreClient(offer.url, self._clients[offer], self._key.private, self._clock).open_tab(ticket)
