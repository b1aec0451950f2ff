"""The provider's card, made of what is enrolled and what its live workers offer; pure (DESIGN §4).

A pool is all workers that name it. It promises only what each of its workers can do: the labels, toolchains and stores
that all of them have, the smallest size of a slot, and network only where every worker allows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from schemas.registry import SPEAKS
from schemas.statements import Agent, Card, Pool, StoreOffer
from schemas.tickets import WorkerOffer

CARD_LIFE = timedelta(days=30)

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class CardFacts:
    """All that a card says beyond its serial and its dates; equal facts need no new card."""

    provider: str
    desk_url: str
    issuers: tuple[str, ...]
    agents: tuple[Agent, ...]
    pools: tuple[Pool, ...]
    store: StoreOffer | None
    rate_card: str


def pools_of(offers: Mapping[str, WorkerOffer]) -> tuple[Pool, ...]:
    """The pools of these workers' offers, by name; `offers` maps a worker to its offer."""
    names = sorted({offer.pool for offer in offers.values()})
    return tuple(
        _pool(name, {worker: offer for worker, offer in sorted(offers.items()) if offer.pool == name}) for name in names
    )


def _pool(name: str, offers: Mapping[str, WorkerOffer]) -> Pool:
    each = tuple(offers.values())
    return Pool(
        name=name,
        workers=tuple(offers),
        labels=_in_all([offer.labels for offer in each]),
        toolchains=_in_all([offer.toolchains for offer in each]),
        stores=_in_all([offer.stores for offer in each]),
        slots=sum(offer.slots for offer in each),
        cores=min(offer.cores for offer in each),
        memory_bytes=min(offer.memory_bytes for offer in each),
        disk_bytes=min(offer.disk_bytes for offer in each),
        is_network_allowed=all(offer.is_network_allowed for offer in each),
    )


def _in_all(lists: Sequence[tuple[Item, ...]]) -> tuple[Item, ...]:
    first, *others = lists
    return tuple(item for item in first if all(item in other for other in others))


def next_card(facts: CardFacts, last: Card | None, now: datetime) -> Card | None:
    """The card to sign now, or None while the last one still says the same and has half of its life left."""
    is_fresh = last is not None and last.expires_at - now > CARD_LIFE / 2
    if last is not None and is_fresh and _facts_of(last) == facts:
        return None
    return Card(
        provider=facts.provider,
        serial=last.serial + 1 if last else 1,
        desk_url=facts.desk_url,
        issuers=facts.issuers,
        agents=facts.agents,
        pools=facts.pools,
        store=facts.store,
        rate_card=facts.rate_card,
        speaks=SPEAKS,
        issued_at=now,
        expires_at=now + CARD_LIFE,
    )


def _facts_of(card: Card) -> CardFacts:
    return CardFacts(
        provider=card.provider,
        desk_url=card.desk_url,
        issuers=card.issuers,
        agents=card.agents,
        pools=card.pools,
        store=card.store,
        rate_card=card.rate_card,
    )
