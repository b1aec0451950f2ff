"""The controller's own dealings with stores: uploads of snapshots, downloads of artifacts (DESIGN §10).

Each goes through a tab of its own, opened by a ticket that the controller signs for its own key and closed at once, so
that the store's account of it is complete. The store's address stands in its provider's card, which the pinned root
signed.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx

from broker.providers.book import Book
from broker.voice import Voice
from identity.keys import SigningKey
from runtime.clock import Clock
from runtime.errors import PeerFault, WorldFault
from runtime.logging import get_logger
from runtime.store_client import BlobStream, StoreClient, Tab
from schemas.ids import store_audience
from schemas.refusals import Reason, Refusal
from schemas.statements import StoreOffer
from schemas.tickets import StoreTicket

_log = get_logger(__name__)
_TAB_LIVES = timedelta(hours=1)
OpenClient = Callable[[StoreOffer], httpx.AsyncClient]


class Stores:
    """The stores that this controller uses."""

    def __init__(self, *, book: Book, voice: Voice, key: SigningKey, open_client: OpenClient, clock: Clock) -> None:
        self._book = book
        self._voice = voice
        self._key = key
        self._open_client = open_client
        self._clock = clock
        self._clients: dict[StoreOffer, httpx.AsyncClient] = {}

    async def put_blob(self, provider: str, path: Path, digest: str) -> Refusal | None:
        """Bring a file into the store; raises WorldFault when the store stays away."""
        size_bytes = path.stat().st_size
        async with self._tab(provider, write_bytes=size_bytes) as tab:
            return tab if isinstance(tab, Refusal) else await tab.put_file(path, digest, size_bytes)

    @asynccontextmanager
    async def stream(self, provider: str, digest: str) -> AsyncIterator[BlobStream | Refusal]:
        """Open an artifact for reading; its bytes are checked on the way, a wrong end is a PeerFault."""
        async with self._tab(provider) as tab:
            if isinstance(tab, Refusal):
                yield tab
                return
            async with tab.stream(digest) as blob:
                yield blob

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    @asynccontextmanager
    async def _tab(self, provider: str, write_bytes: int = 0) -> AsyncIterator[Tab | Refusal]:
        tab = await self._open(provider, write_bytes)
        yield tab
        if isinstance(tab, Tab):
            try:
                await tab.close()
            except (WorldFault, PeerFault) as error:
                # It ends by itself; only the bill comes later.
                _log.info("tab_not_closed", store=provider, reason=str(error))

    async def _open(self, provider: str, write_bytes: int) -> Tab | Refusal:
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
            write_prefix="sources/" if write_bytes else None,
            write_bytes=write_bytes,
            tab_ends_at=self._clock.now() + _TAB_LIVES,
        )
        return await StoreClient(offer.url, self._clients[offer], self._key.private, self._clock).open_tab(ticket)
