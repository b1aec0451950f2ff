"""The statements that a desk publishes under the provider's root key: the card and the rate card (DESIGN §4, §9).

The card is made anew whenever what it says has changed, and half-way through its life; its serial only grows. The rate
card is made anew when the owner has changed a price. All that was ever signed is kept and served by its digest, since
jobs and usage facts cite it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from agents.desk import store
from agents.desk.cards import CardFacts, next_card, pools_of
from agents.desk.settings import DeskSettings
from identity.keys import SigningKey
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import OurFault
from runtime.logging import get_logger
from schemas import frame
from schemas.ids import sha256_hex
from schemas.refusals import Refusal
from schemas.statements import Card, Rate, RateCard, Statement, StoreOffer

RATE_CARD_LIFE = timedelta(days=3650)
_log = get_logger(__name__)
Said = TypeVar("Said", bound=Statement)


@dataclass(frozen=True, slots=True)
class Published:
    raw: bytes
    digest: str


class Publications:
    """Signs, keeps and gives out the provider's card and rate cards."""

    def __init__(
        self, settings: DeskSettings, root: SigningKey, database: Database, clock: Clock, ca: str | None
    ) -> None:
        self._settings = settings
        self._root = root
        self._database = database
        self._clock = clock
        self._store = StoreOffer(url=settings.store_url, ca=ca) if settings.store_url else None

    async def rate_card(self) -> Published:
        """The rate card in force, signed anew where the settings' prices differ from the last one's."""
        now = self._clock.now()
        async with self._database.write() as session:
            row = await store.last_statement(session, RateCard.TYPE)
            last = _read(RateCard, row.raw) if row else None
            if row is not None and last is not None and self._has_same_prices(last):
                return Published(row.raw, row.digest)
            return self._publish(session, self._new_rate_card(last.serial + 1 if last else 1, now), now)

    async def card(self) -> Published:
        """The card that is true now."""
        rates = await self.rate_card()
        now = self._clock.now()
        async with self._database.write() as session:
            row = await store.last_statement(session, Card.TYPE)
            card = next_card(await self._facts(session, rates.digest), _read(Card, row.raw) if row else None, now)
            if card is not None:
                return self._publish(session, card, now)
            if row is None:
                raise OurFault("there is no card to publish", where="the desk's database")
            return Published(row.raw, row.digest)

    async def by_digest(self, digest: str) -> bytes | None:
        async with self._database.read() as session:
            row = await store.statement_by_digest(session, digest)
            return row.raw if row else None

    def _publish(self, session: AsyncSession, statement: Card | RateCard, now: datetime) -> Published:
        raw = frame.seal(statement, self._root.private)
        published = Published(raw, sha256_hex(raw))
        store.add_statement(session, statement.TYPE, statement.serial, published.digest, raw, now)
        _log.info("statement_signed", type=statement.TYPE, serial=statement.serial, digest=published.digest)
        return published

    async def _facts(self, session: AsyncSession, rate_card: str) -> CardFacts:
        return CardFacts(
            provider=self._settings.provider,
            desk_url=self._settings.url,
            issuers=tuple(issuer.url for issuer in self._settings.issuers),
            agents=await store.agents(session),
            pools=pools_of(await store.offers(session)),
            store=self._store,
            rate_card=rate_card,
        )

    def _rates(self) -> tuple[Rate, ...]:
        return tuple(
            Rate(meter=rate.meter, unit=rate.unit, price=rate.price, per=rate.per, increment=rate.increment)
            for rate in self._settings.rates
        )

    def _has_same_prices(self, last: RateCard) -> bool:
        wanted = (self._settings.currency, self._settings.decimals, self._rates())
        return (last.currency, last.decimals, last.rates) == wanted

    def _new_rate_card(self, serial: int, now: datetime) -> RateCard:
        return RateCard(
            provider=self._settings.provider,
            serial=serial,
            currency=self._settings.currency,
            decimals=self._settings.decimals,
            rates=self._rates(),
            valid_from=now,
            valid_until=now + RATE_CARD_LIFE,
        )


def _read(model: type[Said], raw: bytes) -> Said:
    """Read back what this desk signed itself; another version of fedci may have written it."""
    envelope = frame.split(raw)
    said = envelope if isinstance(envelope, Refusal) else model.from_payload(envelope.payload)
    if isinstance(said, Refusal):
        raise OurFault(f"cannot read back our own {model.TYPE}: {said}", where="the desk's database")
    return said
