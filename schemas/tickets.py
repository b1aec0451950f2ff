"""Tickets: what opens a door, once, within seconds (DESIGN §5, §6, §10)."""

from collections.abc import Hashable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas import limits
from schemas.ids import AttemptId, Label, MessageId, ProviderName, Sha256
from schemas.orders import PoolLabel
from schemas.wire import Audience, Count, Instant, IssuerUrl, Kind, Message, Part, PublicKey, Subject

AgentRole = Literal["desk", "worker", "store", "ledger"]


class Ticket(Message):
    """What all tickets say: an id that is good once, and seconds to use it in."""

    KIND = Kind.TICKET

    id: MessageId
    aud: Audience
    issued_at: Instant
    expires_at: Instant

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.id)


class SessionTicket(Ticket):
    """A controller asks a desk for a session at the bus."""

    TYPE: ClassVar[str] = "fedci.session-ticket/1"
    CARRIES_TOKEN = True

    iss: IssuerUrl
    sub: Subject
    ath: Sha256


class Toolchain(Part):
    """A toolchain that a pool offers: jobs name it, people read its description."""

    name: Label
    description: Annotated[str, Field(max_length=200)] = ""


class WorkerOffer(Part):
    """What a worker brings along; the desk makes the card's pools of the offers of its live workers."""

    pool: Label
    labels: Annotated[tuple[PoolLabel, ...], Field(max_length=limits.LABELS)]
    toolchains: Annotated[tuple[Toolchain, ...], Field(max_length=50)]
    stores: Annotated[tuple[ProviderName, ...], Field(max_length=50)]
    slots: Annotated[int, Field(ge=1, le=1024)]
    cores: Annotated[int, Field(ge=1)]
    memory_bytes: Count
    disk_bytes: Count
    is_network_allowed: bool


class AgentTicket(Ticket):
    """One of the provider's own agents asks its desk for a session; signed by the key enrolled there, no token."""

    TYPE: ClassVar[str] = "fedci.agent-ticket/1"
    CARRIES_TOKEN = False

    agent: Label
    offer: WorkerOffer | None = None


class StoreTicket(Ticket):
    """A controller lets the holder of a key use its store for one attempt: opens a *tab* (DESIGN §10).

    The holder may read the blobs named in `reads`, and write up to `write_bytes` under `write_prefix`, until
    `tab_ends_at`; where `reads_all` is set, it may read all of the tenant's blobs (the controller's own tab).
    """

    TYPE: ClassVar[str] = "fedci.store-ticket/1"
    MAX_BYTES: ClassVar[int] = limits.GRANT_BYTES // 4
    CARRIES_TOKEN = True

    iss: IssuerUrl
    sub: Subject
    ath: Sha256
    holder_key: PublicKey
    attempt: AttemptId | None
    reads: Annotated[tuple[Sha256, ...], Field(max_length=limits.FILES + 1)] = ()
    reads_all: bool = False
    write_prefix: Annotated[str, Field(pattern=r"^(?:[a-z0-9][a-z0-9-]*/)+$", max_length=300)] | None = None
    write_bytes: Count = 0
    tab_ends_at: Instant
