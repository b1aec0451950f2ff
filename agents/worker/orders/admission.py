"""Whether this worker takes a verified job: every reason why not, in a fixed order (DESIGN §6, §7.2).

In: a job whose envelope `identity.trust` has verified, the tenant whose exchange it came through, and what this worker
lends. Out: `Admitted` or `Refused`. It asks nobody and changes nothing; that the envelope is genuine was decided
before, whether the attempt may start is decided by the grant.

A refusal is *final* when every worker of this provider would say the same, and *here* when another one might take it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from agents.sandbox.executor import UNEXPORTABLE
from schemas.orders import Job, Resources
from schemas.refusals import Reason

Scope = Literal["final", "here"]

_FINAL = frozenset({Reason.WRONG_ORIGIN, Reason.POOL_UNKNOWN, Reason.RATE_CARD_UNKNOWN, Reason.INVALID_REQUEST})


@dataclass(frozen=True, slots=True)
class Lent:
    """What one slot of this worker offers, and under which rate cards."""

    pool: str
    labels: frozenset[str]
    toolchains: frozenset[str]
    stores: frozenset[str]
    slot: Resources
    is_network_allowed: bool
    rate_cards: frozenset[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A verified job, the tenant of its verified principal, and the tenant that owns the exchange it came through."""

    job: Job
    tenant: str
    origin: str


@dataclass(frozen=True, slots=True)
class Admitted:
    job: Job
    tenant: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Why not, how far the refusal reaches, and one sentence for whoever wrote the job."""

    reason: Reason
    scope: Scope
    detail: str


def admit(asked: Asked, lent: Lent, *, is_draining: bool) -> Admitted | Refused:
    """Take the job or say the first reason against it."""
    if is_draining:
        return refuse(Reason.DRAINING, "this worker is stopping and takes nothing new")
    for reason, find_problem in _CHECKS:
        problem = find_problem(asked, lent)
        if problem is not None:
            return refuse(reason, problem)
    return Admitted(asked.job, asked.tenant)


def refuse(reason: Reason, detail: str) -> Refused:
    return Refused(reason, "final" if reason in _FINAL else "here", detail)


def _origin(asked: Asked, _lent: Lent) -> str | None:
    if asked.tenant == asked.origin:
        return None
    return f"signed by tenant {asked.tenant}, but it came through the exchange of {asked.origin}"


def _pool(asked: Asked, lent: Lent) -> str | None:
    return None if asked.job.pool == lent.pool else f"this worker serves the pool {lent.pool}, not {asked.job.pool}"


def _labels(asked: Asked, lent: Lent) -> str | None:
    return _missing("this worker does not carry the labels", asked.job.labels, lent.labels)


def _toolchains(asked: Asked, lent: Lent) -> str | None:
    return _missing("not offered here:", asked.job.toolchains, lent.toolchains)


def _resources(asked: Asked, lent: Lent) -> str | None:
    wanted, slot = asked.job.resources, lent.slot
    over = [
        f"{name} {getattr(wanted, name)} > {getattr(slot, name)}"
        for name in Resources.model_fields
        if getattr(wanted, name) > getattr(slot, name)
    ]
    return f"larger than one slot: {', '.join(over)}" if over else None


def _store(asked: Asked, lent: Lent) -> str | None:
    store = asked.job.store
    if store is None:
        return "files to fetch or to keep, but no store is named" if needs_store(asked.job) else None
    return None if store in lent.stores else f"this worker's owner has not configured the store {store}"


def _network(asked: Asked, lent: Lent) -> str | None:
    return "jobs have no network here" if asked.job.network and not lent.is_network_allowed else None


def _rate_card(asked: Asked, lent: Lent) -> str | None:
    known = asked.job.rate_card in lent.rate_cards
    return None if known else "the job cites a rate card that is not this provider's current one"


def _environment(asked: Asked, _lent: Lent) -> str | None:
    reserved = sorted({*asked.job.env, *asked.job.secrets} & UNEXPORTABLE)
    if reserved:
        return f"a shell keeps these variables for itself: {', '.join(reserved)}"
    texts = (*asked.job.env.values(), *(step.run for step in asked.job.steps))
    return "a NUL byte in a script or a variable" if any("\0" in text for text in texts) else None


def needs_store(job: Job) -> bool:
    """Whether the job moves files that do not travel inside it."""
    return job.source.inline is None or bool(job.inputs) or bool(job.artifacts)


def _missing(sentence: str, wanted: tuple[str, ...], offered: frozenset[str]) -> str | None:
    missing = sorted(set(wanted) - offered)
    return f"{sentence} {', '.join(missing)}" if missing else None


# The origin comes first: nothing about this worker is told to somebody who used another's exchange.
_CHECKS: tuple[tuple[Reason, Callable[[Asked, Lent], str | None]], ...] = (
    (Reason.WRONG_ORIGIN, _origin),
    (Reason.POOL_UNKNOWN, _pool),
    (Reason.INVALID_REQUEST, _environment),
    (Reason.LABELS_NOT_OFFERED, _labels),
    (Reason.TOOLCHAIN_NOT_OFFERED, _toolchains),
    (Reason.RESOURCES_TOO_LARGE, _resources),
    (Reason.STORE_NOT_REACHABLE, _store),
    (Reason.NETWORK_NOT_ALLOWED, _network),
    (Reason.RATE_CARD_UNKNOWN, _rate_card),
)
