"""Introduces providers and keeps their cards fresh (DESIGN §4).

Trust on first use: `add` fetches the root key and the card that it signed, and pins the root; a person compares its
fingerprint with what the owner says. Every later card must verify with the pinned root. A changed root, an older serial
or two contents for one serial is an alarm: the provider gets no new work until its desk shows a right card again.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

import httpx
from sqlalchemy.exc import IntegrityError

from broker.bells import Bells
from broker.decisions.cards import SeenCard, check_card
from broker.providers.book import Book, KnownProvider
from broker.store import providers as provider_store
from broker.tables import ProviderRow
from bus.desk_client import DeskClient
from identity.keys import fingerprint
from identity.trust import SignedBy, verify_statement
from runtime.addresses import check_http_url
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import OurFault, PeerFault, WorldFault
from runtime.http_client import fetch, json_object
from runtime.logging import get_logger
from schemas.ids import sha256_hex
from schemas.refusals import Reason, Refusal
from schemas.statements import Card, RateCard

_log = get_logger(__name__)
REFRESH_SECONDS = 60.0
_SOONEST_SECONDS = 2.0
_ALARMING = frozenset(
    {Reason.ROOT_CHANGED, Reason.CARD_SIGNATURE, Reason.CARD_ROLLED_BACK, Reason.EQUIVOCATION, Reason.WRONG_KIND}
)


@dataclass(frozen=True, slots=True)
class Introduction:
    """A provider as its desk introduces it; nothing is pinned yet."""

    url: str
    root_key: bytes
    card: SignedBy[Card]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.root_key)


class Providers:
    """The providers of this controller: introduced, remembered, refreshed."""

    def __init__(
        self, *, database: Database, book: Book, client: httpx.AsyncClient, bells: Bells, clock: Clock
    ) -> None:
        self._database = database
        self._book = book
        self._client = client
        self._bells = bells
        self._clock = clock
        self._refreshed_at: dict[str, float] = {}
        self.on_added: Callable[[KnownProvider], None] = lambda _: None

    async def load(self) -> None:
        """Put all providers of the database into the book."""
        async with self._database.read() as session:
            for row in await provider_store.providers(session):
                self._book.put(_known(row))

    async def introduce(self, url: str) -> Introduction | Refusal:
        """Ask the desk at `url` who it is. Raises WorldFault when it is away, PeerFault when it answers nonsense."""
        try:
            url = check_http_url(url).rstrip("/")
        except ValueError as error:
            return Refusal(Reason.INVALID_REQUEST, str(error))
        root_key = await self._fetch_root(url)
        card = verify_statement(await DeskClient(url, self._client).card(), Card, key=root_key)
        if isinstance(card, Refusal):
            return Refusal(Reason.CARD_SIGNATURE, f"the desk's card is not signed by the root key it shows: {card}")
        if card.message.expires_at <= self._clock.now():
            return Refusal(Reason.CARD_EXPIRED, "the desk's card has expired")
        return Introduction(url, root_key, card)

    async def add(self, url: str, expected_fingerprint: str | None = None) -> KnownProvider | Refusal:
        """Introduce a provider and pin its root; refused when it is known already, or has another fingerprint."""
        introduced = await self.introduce(url)
        if isinstance(introduced, Refusal):
            return introduced
        if expected_fingerprint is not None and not _is_same(expected_fingerprint, introduced.fingerprint):
            return Refusal(Reason.ROOT_CHANGED, f"the desk's root key has the fingerprint {introduced.fingerprint}")
        row = self._row(introduced)
        try:
            async with self._database.write() as session:
                await provider_store.add_provider(session, row)
        except IntegrityError:
            return Refusal(Reason.CONFLICT, f"{row.name}, or a provider at this address, is known already")
        known = _known(row)
        self._book.put(known)
        _log.info("provider_added", provider=row.name, root=introduced.fingerprint)
        try:
            await self._learn_rate_card(known)
        except (WorldFault, PeerFault) as error:  # it is pinned by now; the next refresh asks again
            _log.warning("rate_card_not_fetched", provider=known.name, reason=str(error))
        self.on_added(known)
        self._bells.offers_changed()
        return known

    async def run(self) -> None:
        """Refresh every provider's card every minute, each in a task of its own."""
        while True:
            async with asyncio.TaskGroup() as group:
                for known in self._book.all():
                    group.create_task(self.refresh(known.name))
                group.create_task(asyncio.sleep(REFRESH_SECONDS))

    async def refresh(self, name: str) -> None:
        """Fetch a provider's card now, unless that was done a moment ago; what is wrong with it becomes an alarm."""
        known = self._book.get(name)
        last, now = self._refreshed_at.get(name), self._clock.boottime()
        if known is None or (last is not None and now - last < _SOONEST_SECONDS):
            return
        self._refreshed_at[name] = now
        try:
            raw = await DeskClient(known.url, self._client).card()
            refusal = await self._take(known, raw)
            await self._set_alarm(known, refusal)
            await self._learn_rate_card(self._book.get(name) or known)
        except (WorldFault, PeerFault) as error:
            _log.warning("card_not_fetched", provider=name, reason=str(error))

    async def _take(self, known: KnownProvider, raw: bytes) -> Refusal | None:
        signed = verify_statement(raw, Card, key=known.root_key)
        if isinstance(signed, Refusal):
            return await self._explain(known, signed)
        async with self._database.read() as session:
            row = await provider_store.provider(session, known.name)
        if row is None:
            return None
        seen = SeenCard(known.name, row.card_serial, sha256_hex(row.card))
        newer = check_card(signed.message, signed.digest, seen, self._clock.now())
        if isinstance(newer, Refusal):
            return newer
        if newer:
            async with self._database.write() as session:
                await provider_store.save_card(session, known.name, raw, signed.message.serial, self._clock.now())
            self._book.learn_card(known.name, signed.message)
            self._bells.offers_changed()
            _log.info("card_renewed", provider=known.name, serial=signed.message.serial)
        return None

    async def _explain(self, known: KnownProvider, refusal: Refusal) -> Refusal:
        root_key = await self._fetch_root(known.url)
        if root_key != known.root_key:
            text = f"its root key changed to {fingerprint(root_key)}; ask its owner before you trust it again"
            return Refusal(Reason.ROOT_CHANGED, text)
        return Refusal(Reason.CARD_SIGNATURE, f"its card does not verify with its pinned root key ({refusal})")

    async def _set_alarm(self, known: KnownProvider, refusal: Refusal | None) -> None:
        alarm = str(refusal) if refusal is not None and refusal.reason in _ALARMING else None
        if alarm == known.alarm:
            return
        async with self._database.write() as session:
            await provider_store.set_alarm(session, known.name, alarm)
            if refusal is not None and alarm is not None:
                about = f"{refusal.reason} {sha256_hex(alarm.encode())[:16]}"
                await provider_store.raise_alarm(session, known.name, "card", about, alarm, self._clock.now())
        self._book.learn_alarm(known.name, alarm)
        self._bells.offers_changed()
        _log.error("provider_alarm", provider=known.name, alarm=alarm or "over")

    async def _learn_rate_card(self, known: KnownProvider) -> None:
        """Keep the rate card that the card cites, so that costs can be shown and checked."""
        digest = known.card.rate_card
        async with self._database.read() as session:
            if await provider_store.rate_card(session, digest) is not None:
                return
        raw = await DeskClient(known.url, self._client).statement(digest)
        if isinstance(raw, Refusal) or sha256_hex(raw) != digest:
            _log.warning("rate_card_missing", provider=known.name, digest=digest)
            return
        signed = verify_statement(raw, RateCard, key=known.root_key)
        if isinstance(signed, Refusal):
            _log.warning("rate_card_refused", provider=known.name, reason=str(signed))
            return
        async with self._database.write() as session:
            await provider_store.save_rate_card(session, known.name, digest, raw, self._clock.now())

    async def _fetch_root(self, url: str) -> bytes:
        answer = await fetch(self._client, "GET", f"{url}/root", max_bytes=1024)
        try:
            text = json_object(answer)["root_key"]
            key = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise PeerFault("the desk does not show its root key", where=url) from error
        if len(key) != 32:
            raise PeerFault("the desk's root key is no Ed25519 key", where=url)
        return key

    def _row(self, introduced: Introduction) -> ProviderRow:
        card, now = introduced.card, self._clock.now()
        return ProviderRow(
            name=card.message.provider,
            url=introduced.url,
            root_key=introduced.root_key,
            card=card.raw,
            card_serial=card.message.serial,
            card_seen_at=now,
            added_at=now,
        )


def _is_same(expected: str, actual: str) -> bool:
    return expected.replace(" ", "").replace(":", "").lower() == actual.replace(" ", "")


def _known(row: ProviderRow) -> KnownProvider:
    signed = verify_statement(row.card, Card, key=row.root_key)
    if isinstance(signed, Refusal):
        raise OurFault(
            f"the stored card of {row.name} does not verify ({signed})",
            remedy="The database was changed from outside: restore it from a backup.",
        )
    return KnownProvider(row.name, row.url, row.root_key, signed.message, row.alarm)
