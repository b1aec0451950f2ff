"""Every exchange, queue, binding, routing key and right on a provider's bus: the table of DESIGN §6 as data.

The only place with names and keys. Pure: it declares nothing, `bus.provisioner` does.

Rules:
* One virtual host holds one provider. Parts of a name are joined by dots; a tenant id and a label hold none, and a
  name's place tells its parts, so two different facts never give one name of one kind.
* Rights go by exact name, written as escaped and anchored regular expressions; `configure` is nothing for all. There
  are no topic rights: before RabbitMQ 4.0.3 the headers CC and BCC walk around them.
* The origin of a message is the exchange it was published to: RabbitMQ says so, and only its writers may write there.
  For a dead letter it is the routing key, which the queue's argument fixes; `x-death` can be forged by a publisher.
* Queues with a limit refuse (`reject-publish`), so that a publisher learns of it and nothing is dropped in silence;
  dead-lettering at least once needs the same (RabbitMQ guide "Quorum Queues").
* The arguments of a queue never change after its first declaration: RabbitMQ refuses other ones for the same name.

Delivery limits are explicit because RabbitMQ 4 would otherwise drop after 20 returns, and a lost connection counts as
one for every message it held, also for innocent ones that were only prefetched. Returns of a surplus delivery by an
idle worker (`bus.taking`) count too before 4.3. Hence a limit far above what bad networks do, and still an end for a
message that kills whoever takes it.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from schemas import ids, limits
from schemas.tickets import AgentRole

ExchangeType = Literal["direct", "fanout", "topic"]
Argument = str | int

NOTHING = "^$"
"""The pattern that matches no name: RabbitMQ checks the default exchange as `amq.default`."""

MAX_TENANTS = 500
"""Tenants that an agent may serve: RabbitMQ refuses a permission whose regular expression is longer than this gives."""

_DAY_SECONDS = 24 * 3600
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_TENANT = re.compile(r"t[a-z2-7]{26}")
_PROVIDER = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*")
_METER = re.compile(r"[a-z][a-z0-9-]{0,60}")


@dataclass(frozen=True)
class BusLimits:
    """How much may wait, set by the owner of the desk before the first declaration; all queues refuse when full."""

    job_messages: int = 2_000
    """Jobs of one tenant waiting for one pool."""
    job_bytes: int = 256 * limits.MIB
    control_messages: int = 10_000
    control_seconds: int = 300
    """Longer than a lease, so that a cancel survives an outage that the job survives; then it is pointless."""
    reply_messages: int = 200_000
    reply_bytes: int = 256 * limits.MIB
    log_bytes: int = 256 * limits.MIB
    receipt_bytes: int = 256 * limits.MIB
    billing_bytes: int = 1 * limits.GIB
    stream_seconds: int = 400 * _DAY_SECONDS
    """How long usage events can be read again by offset; a year and a month, for the yearly accounts."""
    stream_bytes: int = 20 * limits.GIB
    stream_segment_bytes: int = 16 * limits.MIB
    """Retention works in whole segments; RabbitMQ's own 500 MB would keep a small stream for ever."""
    dead_messages: int = 100_000
    dead_bytes: int = 512 * limits.MIB
    job_deliveries: int = 1_000
    deliveries: int = 1_000_000
    """For queues whose messages are never given up: their readers judge them, the bus does not."""


@dataclass(frozen=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: ExchangeType


@dataclass(frozen=True)
class Queue:
    """A durable queue; `arguments` as RabbitMQ names them."""

    name: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)


@dataclass(frozen=True)
class Binding:
    """Messages to `exchange` whose key matches `key` go to `queue` too."""

    exchange: str
    queue: str
    key: str = ""


Declaration = Exchange | Queue | Binding


@dataclass(frozen=True)
class Rights:
    """What a RabbitMQ user may read and write, as the regular expressions of RabbitMQ's permissions."""

    read: str = NOTHING
    write: str = NOTHING

    @property
    def configure(self) -> str:
        """Nobody but the desk declares anything."""
        return NOTHING


@dataclass(frozen=True)
class DeadLetterOrigin:
    """Whose job came to nothing, and for which pool: what a dead letter's routing key says."""

    tenant: str
    pool: str


@dataclass(frozen=True)
class ProviderNames:
    """All names on the bus of one provider.

    Raises `ValueError` for a provider, tenant, label or meter that breaks its grammar (`schemas.ids`): such a value
    was never verified, and must not become part of a name or of a right.
    """

    provider: str

    def __post_init__(self) -> None:
        if len(self.provider) > 100 or not _PROVIDER.fullmatch(self.provider):
            raise ValueError(f"not a provider's name: {self.provider[:120]!r}")

    def jobs_exchange(self, tenant: str) -> str:
        return self._of_tenant("jobs", tenant)

    def jobs_queue(self, tenant: str, pool: str) -> str:
        return f"{self.jobs_exchange(tenant)}.{jobs_key(pool)}"

    def control_exchange(self, tenant: str) -> str:
        return self._of_tenant("control", tenant)

    def control_queue(self, tenant: str, worker: str) -> str:
        return f"{self.control_exchange(tenant)}.{control_key(worker)}"

    def replies(self, tenant: str) -> str:
        """Name of the exchange and of its only queue."""
        return self._of_tenant("replies", tenant)

    def logs(self, tenant: str) -> str:
        """Name of the exchange and of its only queue."""
        return self._of_tenant("logs", tenant)

    def receipts_exchange(self, tenant: str) -> str:
        return self._of_tenant("receipts", tenant)

    @property
    def receipts_queue(self) -> str:
        return f"receipts.{self.provider}"

    @property
    def billing_exchange(self) -> str:
        return f"billing.{self.provider}"

    @property
    def billing_ledger_queue(self) -> str:
        return f"billing.{self.provider}.ledger"

    @property
    def billing_stream(self) -> str:
        return f"billing.{self.provider}.stream"

    @property
    def dead_exchange(self) -> str:
        return f"dead.{self.provider}"

    @property
    def dead_queue(self) -> str:
        return f"dead.{self.provider}"

    def tenant_of(self, exchange: str) -> str | None:
        """The tenant whose exchange this is, or None for one that belongs to no tenant of this provider."""
        kind, _, rest = exchange.partition(".")
        tenant = rest.removeprefix(f"{self.provider}.")
        if kind not in _TENANT_EXCHANGES or not _TENANT.fullmatch(tenant):
            return None
        return tenant if exchange == self._of_tenant(kind, tenant) else None

    def provider_declarations(self, bounds: BusLimits | None = None) -> tuple[Declaration, ...]:
        """What the bus has before there is any tenant, in the order in which it must be declared."""
        sizes = bounds or BusLimits()
        billing, dead = self.billing_exchange, self.dead_exchange
        return (
            Exchange(dead, "fanout"),
            Queue(self.dead_queue, _quorum(sizes.deliveries, sizes.dead_bytes, sizes.dead_messages)),
            Binding(dead, self.dead_queue),
            Queue(self.receipts_queue, _quorum(sizes.deliveries, sizes.receipt_bytes)),
            Exchange(billing, "topic"),
            Queue(self.billing_ledger_queue, _quorum(sizes.deliveries, sizes.billing_bytes)),
            Queue(self.billing_stream, _stream(sizes)),
            Binding(billing, self.billing_ledger_queue, "usage.#"),
            Binding(billing, self.billing_stream, "usage.#"),
        )

    def tenant_declarations(
        self, tenant: str, pools: Collection[str], workers: Collection[str], bounds: BusLimits | None = None
    ) -> tuple[Declaration, ...]:
        """What the bus has for one tenant; the provider's own declarations come first."""
        sizes = bounds or BusLimits()
        replies, logs, receipts = self.replies(tenant), self.logs(tenant), self.receipts_exchange(tenant)
        return (
            Exchange(self.jobs_exchange(tenant), "direct"),
            *(part for pool in pools for part in self._jobs(tenant, pool, sizes)),
            Exchange(self.control_exchange(tenant), "direct"),
            *(part for worker in workers for part in self._control(tenant, worker, sizes)),
            Exchange(replies, "fanout"),
            Queue(replies, _quorum(sizes.deliveries, sizes.reply_bytes, sizes.reply_messages)),
            Binding(replies, replies),
            Exchange(logs, "fanout"),
            Queue(logs, {"x-max-length-bytes": sizes.log_bytes, "x-overflow": "reject-publish"}),
            Binding(logs, logs),
            Exchange(receipts, "fanout"),
            Binding(receipts, self.receipts_queue),
        )

    def declarations(
        self, tenant: str, pools: Collection[str], workers: Collection[str], bounds: BusLimits | None = None
    ) -> tuple[Declaration, ...]:
        """The provider's and one tenant's, together and in order."""
        return self.provider_declarations(bounds) + self.tenant_declarations(tenant, pools, workers, bounds)

    def is_of_tenant(self, name: str, tenant: str) -> bool:
        """Whether this exchange or queue exists for that tenant alone, so that it goes when the tenant goes."""
        own = {self._of_tenant(kind, tenant) for kind in _TENANT_EXCHANGES}
        prefix, _, label = name.rpartition(".")
        is_lane = prefix in (self.jobs_exchange(tenant), self.control_exchange(tenant))
        return name in own or (is_lane and ids.is_label(label))

    def _of_tenant(self, kind: str, tenant: str) -> str:
        return f"{kind}.{self.provider}.{_checked(_TENANT, tenant, 'tenant id')}"

    def _jobs(self, tenant: str, pool: str, sizes: BusLimits) -> tuple[Declaration, ...]:
        exchange, queue = self.jobs_exchange(tenant), self.jobs_queue(tenant, pool)
        arguments = _quorum(sizes.job_deliveries, sizes.job_bytes, sizes.job_messages) | {
            "x-dead-letter-exchange": self.dead_exchange,
            "x-dead-letter-routing-key": f"{tenant}.{pool}",
            "x-dead-letter-strategy": "at-least-once",
        }
        return Queue(queue, arguments), Binding(exchange, queue, jobs_key(pool))

    def _control(self, tenant: str, worker: str, sizes: BusLimits) -> tuple[Declaration, ...]:
        exchange, queue = self.control_exchange(tenant), self.control_queue(tenant, worker)
        arguments: dict[str, Argument] = {
            "x-message-ttl": sizes.control_seconds * 1000,
            "x-max-length": sizes.control_messages,
            "x-overflow": "reject-publish",
        }
        return Queue(queue, arguments), Binding(exchange, queue, control_key(worker))


_TENANT_EXCHANGES = ("jobs", "control", "replies", "logs", "receipts")


def jobs_key(pool: str) -> str:
    """Routing key of a job order: the pool it is for."""
    return _checked(_LABEL, pool, "pool")


def control_key(worker: str) -> str:
    """Routing key of every other order: the worker it is for."""
    return _checked(_LABEL, worker, "worker")


def usage_key(tenant: str, meter: str) -> str:
    """Routing key of a usage event on the billing exchange."""
    return f"usage.{_checked(_TENANT, tenant, 'tenant id')}.{_checked(_METER, meter, 'meter')}"


FANOUT_KEY = ""
"""Routing key of what goes to a fanout exchange, which looks at none."""


def dead_letter_origin(routing_key: str) -> DeadLetterOrigin | None:
    """Where a dead letter came from, or None when it was not dead-lettered by a queue of ours."""
    tenant, _, pool = routing_key.partition(".")
    if not _TENANT.fullmatch(tenant) or not ids.is_label(pool):
        return None
    return DeadLetterOrigin(tenant, pool)


def controller_rights(provider: str, tenant: str) -> Rights:
    """What a tenant may do at the bus: write its own three exchanges, read its own two queues."""
    names = ProviderNames(provider)
    return Rights(
        read=_exactly(names.replies(tenant), names.logs(tenant)),
        write=_exactly(names.jobs_exchange(tenant), names.control_exchange(tenant), names.receipts_exchange(tenant)),
    )


def agent_rights(
    role: AgentRole, provider: str, tenants: Collection[str], *, worker: str = "", pools: Sequence[str] = ()
) -> Rights:
    """What an agent of the provider may do; a worker says its own name and the pools it serves.

    All agents may answer a tenant (a refusal goes to the owner of the exchange); only those that measure may bill;
    only a worker sends logs, and reads orders. Raises `ValueError` for more than `MAX_TENANTS` tenants.
    """
    names, served = ProviderNames(provider), sorted(set(tenants))
    if len(served) > MAX_TENANTS:
        raise ValueError(f"{len(served)} tenants, an agent serves at most {MAX_TENANTS}")
    replies = _for_tenants(names, ("replies",), served)
    match role:
        case "worker":
            reads = [_for_tenants(names, ("jobs",), served, jobs_key(pool)) for pool in sorted(set(pools))]
            own = _for_tenants(names, ("control",), served, control_key(worker))
            answers = _for_tenants(names, ("replies", "logs"), served)
            return Rights(read=_any(*reads, own), write=_any(re.escape(names.billing_exchange), answers))
        case "store":
            return Rights(write=_any(re.escape(names.billing_exchange), replies))
        case "ledger":
            books = (names.receipts_queue, names.billing_ledger_queue, names.billing_stream)
            return Rights(read=_exactly(*books), write=_any(replies))
        case "desk":
            return Rights(read=_exactly(names.dead_queue), write=_any(replies))


def _for_tenants(names: ProviderNames, kinds: Sequence[str], tenants: Sequence[str], last: str = "") -> str:
    """Pattern of `kind.provider.tenant[.last]`: written once for all, because RabbitMQ compiles it for every check."""
    if not tenants:
        return ""
    kind = "|".join(kinds)
    tenant = "|".join(_checked(_TENANT, tenant, "tenant id") for tenant in tenants)
    end = re.escape(f".{last}") if last else ""
    return rf"(?:{kind})\.{re.escape(names.provider)}\.(?:{tenant}){end}"


def _exactly(*names: str) -> str:
    return _any(*(re.escape(name) for name in names))


def _any(*patterns: str) -> str:
    """One anchored pattern that matches what one of `patterns` matches; nothing when there is none."""
    given = [pattern for pattern in patterns if pattern]
    return f"^(?:{'|'.join(given)})$" if given else NOTHING


def _checked(grammar: re.Pattern[str], text: str, what: str) -> str:
    if not grammar.fullmatch(text):
        raise ValueError(f"not a {what}: {text[:80]!r}")
    return text


def _quorum(deliveries: int, max_bytes: int, max_messages: int | None = None) -> dict[str, Argument]:
    arguments: dict[str, Argument] = {
        "x-queue-type": "quorum",
        "x-delivery-limit": deliveries,
        "x-max-length-bytes": max_bytes,
        "x-overflow": "reject-publish",
    }
    if max_messages is not None:
        arguments["x-max-length"] = max_messages
    return arguments


def _stream(sizes: BusLimits) -> dict[str, Argument]:
    return {
        "x-queue-type": "stream",
        "x-max-age": f"{sizes.stream_seconds}s",
        "x-max-length-bytes": sizes.stream_bytes,
        "x-stream-max-segment-size-bytes": sizes.stream_segment_bytes,
    }
