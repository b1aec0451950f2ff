"""Who is asked to run a job: a ranked choice of pools, and for everybody else the reason why not (DESIGN §7.1, §11).

A provider is asked when, in this order: project and job allow it; its card is known, unexpired and undisputed; the
card trusts our issuer and speaks our messages; our session at its bus is up; it has not refused this job. A pool of it
is asked when it has workers, offers the labels, toolchains, size and network that the job wants, reaches the job's
store, not every worker of it has refused, and our own orders do not fill it already.

Of those that remain, providers where this job has not yet met an error come first, then the less loaded ones.

Every obstacle is one sentence for the person who can remove it: "why is it not running?" always has an answer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import chain

from broker.decisions.retry import Bars, PastRefusal
from schemas.orders import Job, Resources
from schemas.statements import Card, Pool

QUEUED_PER_SLOT = 2
QUEUED_EXTRA = 2
"""Orders of ours that wait or run at one pool: more would only wait there instead of going elsewhere."""


class Obstacle(StrEnum):
    """Why a provider or a pool is not asked; where a refusal of the contract says the same, in its words."""

    NO_PROVIDER = "no-provider"
    NOT_WANTED = "not-wanted"
    ALARM = "alarm"
    CARD_MISSING = "card-missing"
    CARD_EXPIRED = "card-expired"
    ISSUER_UNTRUSTED = "issuer-untrusted"
    UNKNOWN_VERSION = "unknown-version"
    NO_SESSION = "no-session"
    NOT_SIGNED = "not-signed"
    REFUSED = "refused"
    NO_POOL = "no-pool"
    NO_WORKER = "no-worker"
    LABELS_NOT_OFFERED = "labels-not-offered"
    TOOLCHAIN_NOT_OFFERED = "toolchain-not-offered"
    RESOURCES_TOO_LARGE = "resources-too-large"
    NETWORK_NOT_ALLOWED = "network-not-allowed"
    STORE_NOT_REACHABLE = "store-not-reachable"
    QUEUE_FULL = "queue-full"
    SECRET_MISSING = "secret-missing"  # noqa: S105 - a reason, no password
    WAITING = "waiting"


Found = tuple[Obstacle, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a job asks of whoever runs it; empty `providers` leave the choice free."""

    issuer: str
    labels: tuple[str, ...] = ()
    toolchains: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    network: bool = False
    store: str | None = None
    providers: tuple[str, ...] = ()
    project_providers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """A provider as the controller knows it now. `in_flight` counts our unfinished attempts, by pool."""

    provider: str
    card: Card | None
    alarm: str | None = None
    session_trouble: str | None = None
    in_flight: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WhyNot:
    """One obstacle, for people. `provider` is empty where it is not about one provider."""

    provider: str
    obstacle: Obstacle
    detail: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A pool that may be asked."""

    provider: str
    pool: str
    rate_card: str


@dataclass(frozen=True, slots=True)
class Placement:
    """The pools to ask, best first; empty means that the job waits, for `why_not`."""

    choices: tuple[Choice, ...]
    why_not: tuple[WhyNot, ...]


def place(wanted: Wanted, offers: tuple[Offer, ...], bars: Bars, burned: frozenset[str], now: datetime) -> Placement:
    """Rank the pools that may run the job. `burned` are the providers where it already ended in an error."""
    if not offers:
        text = "this controller knows no provider yet: `fedci controller provider add URL` introduces one"
        return Placement((), (WhyNot("", Obstacle.NO_PROVIDER, text),))
    ranked: list[tuple[tuple[bool, float, str, str], Choice]] = []
    why_not: list[WhyNot] = []
    for offer in offers:
        obstacle = _provider_obstacle(wanted, offer, bars, now)
        if obstacle is not None or offer.card is None:
            why_not.extend([obstacle] if obstacle else [])
            continue
        suitable, unsuitable = _sort_pools(wanted, offer, offer.card, bars)
        why_not.extend(unsuitable)
        ranked.extend(
            (
                (offer.provider in burned, _load(offer, pool), offer.provider, pool.name),
                Choice(offer.provider, pool.name, offer.card.rate_card),
            )
            for pool in suitable
        )
    return Placement(tuple(choice for _, choice in sorted(ranked, key=lambda pair: pair[0])), tuple(why_not))


def _load(offer: Offer, pool: Pool) -> float:
    return (offer.in_flight.get(pool.name, 0) + 1) / pool.slots


def _provider_obstacle(wanted: Wanted, offer: Offer, bars: Bars, now: datetime) -> WhyNot | None:
    obstacles = chain(
        _wish_obstacles(wanted, offer.provider), _trust_obstacles(wanted, offer, now), _state_obstacles(offer, bars)
    )
    found = next(obstacles, None)
    return None if found is None else WhyNot(offer.provider, *found)


def _wish_obstacles(wanted: Wanted, name: str) -> Iterator[Found]:
    if wanted.project_providers and name not in wanted.project_providers:
        yield Obstacle.NOT_WANTED, "the project is not set to use it"
    if wanted.providers and name not in wanted.providers:
        yield Obstacle.NOT_WANTED, f"the job asks for {_listed(wanted.providers)}"


def _trust_obstacles(wanted: Wanted, offer: Offer, now: datetime) -> Iterator[Found]:
    card = offer.card
    if offer.alarm is not None:
        yield Obstacle.ALARM, offer.alarm
    if card is None:
        yield Obstacle.CARD_MISSING, "its card could not be fetched yet"
        return
    if card.expires_at <= now:
        yield Obstacle.CARD_EXPIRED, f"its card expired at {card.expires_at:%Y-%m-%d %H:%M} UTC and no newer one came"
    if wanted.issuer not in card.issuers:
        yield Obstacle.ISSUER_UNTRUSTED, f"it does not trust our issuer {wanted.issuer}"
    if Job.TYPE not in card.speaks:
        yield Obstacle.UNKNOWN_VERSION, f"it does not speak {Job.TYPE}; one of us must be brought up to date"


def _state_obstacles(offer: Offer, bars: Bars) -> Iterator[Found]:
    if offer.session_trouble is not None:
        yield Obstacle.NO_SESSION, offer.session_trouble
    if offer.provider in bars.providers:
        yield Obstacle.REFUSED, _refused_text(bars.providers[offer.provider])
    if offer.card is not None and not offer.card.pools:
        yield Obstacle.NO_POOL, "it has no pool of workers at the moment"


def _refused_text(refusal: PastRefusal) -> str:
    return f"{refusal.agent} refused this job at {refusal.at:%H:%M:%S} UTC: {refusal.reason}"


def _sort_pools(wanted: Wanted, offer: Offer, card: Card, bars: Bars) -> tuple[list[Pool], list[WhyNot]]:
    suitable: list[Pool] = []
    unsuitable: list[WhyNot] = []
    for pool in card.pools:
        found = next(_pool_obstacles(wanted, offer, pool, bars), None)
        if found is None:
            suitable.append(pool)
        else:
            unsuitable.append(WhyNot(offer.provider, found[0], f"pool {pool.name}: {found[1]}"))
    return suitable, unsuitable


def _pool_obstacles(wanted: Wanted, offer: Offer, pool: Pool, bars: Bars) -> Iterator[Found]:
    if missing := _missing(wanted.labels, pool.labels):
        yield Obstacle.LABELS_NOT_OFFERED, f"has not {_listed(missing)}; it has {_listed(pool.labels) or 'no labels'}"
    offered = tuple(toolchain.name for toolchain in pool.toolchains)
    if missing := _missing(wanted.toolchains, offered):
        yield (
            Obstacle.TOOLCHAIN_NOT_OFFERED,
            f"has no toolchain {_listed(missing)}; it has {_listed(offered) or 'none'}",
        )
    if too_large := _too_large(wanted.resources, pool):
        yield Obstacle.RESOURCES_TOO_LARGE, f"the job wants {too_large}"
    if wanted.network and not pool.is_network_allowed:
        yield Obstacle.NETWORK_NOT_ALLOWED, "gives no network to jobs"
    if wanted.store is not None and wanted.store not in pool.stores:
        yield Obstacle.STORE_NOT_REACHABLE, f"cannot reach the store {wanted.store}"
    if pool.slots == 0 or not pool.workers:
        yield Obstacle.NO_WORKER, "no worker of it is at work"
    elif all((offer.provider, worker) in bars.workers for worker in pool.workers):
        last = max((bars.workers[(offer.provider, worker)] for worker in pool.workers), key=lambda found: found.at)
        yield Obstacle.REFUSED, f"all its workers refused this job; {_refused_text(last)}"
    room = pool.slots * QUEUED_PER_SLOT + QUEUED_EXTRA
    if offer.in_flight.get(pool.name, 0) >= room:
        yield Obstacle.QUEUE_FULL, f"{offer.in_flight[pool.name]} jobs of ours wait or run there on {pool.slots} slots"


def _missing(wanted: tuple[str, ...], offered: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in wanted if name not in offered)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _too_large(wanted: Resources, pool: Pool) -> str:
    sizes = (
        ("cores", wanted.cores, pool.cores),
        ("bytes of memory", wanted.memory_bytes, pool.memory_bytes),
        ("bytes of disk", wanted.disk_bytes, pool.disk_bytes),
    )
    over = (f"{asked} {unit} where there are {there}" for unit, asked, there in sizes if asked > there)
    return ", ".join(over)
