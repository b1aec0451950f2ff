"""Statements: what somebody says for good, and anybody may check later (DESIGN §4, §5, §9).

A statement is one byte string for ledger, customer and auditor. A provider's statements are signed by a key of its
card, the card and the rate card by its root key; a customer's receipt by the key that its ID token binds.
"""

from collections.abc import Hashable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas import limits
from schemas.ends import EndReason
from schemas.ids import AttemptId, ClaimId, Label, MessageId, ProviderName, Sha256, sha256_hex
from schemas.orders import PoolLabel
from schemas.tickets import AgentRole, Toolchain
from schemas.wire import (
    Count,
    Instant,
    IssuerUrl,
    Kind,
    Message,
    Number,
    Part,
    PublicKey,
    Subject,
    Text,
)

Meter = Literal[
    "attempts",
    "wall-seconds",
    "cpu-seconds",
    "memory-peak-bytes",
    "log-bytes",
    "store-bytes-in",
    "store-bytes-out",
    "store-gib-hours",
]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$")]
Url = Annotated[str, Field(pattern=r"^https?://[!-~]+$", max_length=300)]


class Statement(Message):
    KIND = Kind.STATEMENT
    CARRIES_TOKEN = False
    MAX_BYTES: ClassVar[int] = limits.STATEMENT_BYTES

    provider: ProviderName


class Usage(Statement):
    """One usage fact: so much of one meter, by one subject, in one interval; attributes named as in CloudEvents 1.0.

    `id` derives from the fact, never from the sending (`usage_id`), so a repeat changes nothing. `interval` counts
    from 0 within a subject and meter. `reason` is how the attempt ended, on its last interval; `time` = `ended_at`.
    """

    TYPE: ClassVar[str] = "fedci.usage/1"
    MAX_BYTES: ClassVar[int] = limits.MESSAGE_BYTES

    id: Sha256
    source: Text
    subject: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9:/._-]*$", max_length=200)]
    agent: Label
    iss: IssuerUrl
    sub: Subject
    meter: Meter
    interval: Count
    started_at: Instant
    ended_at: Instant
    quantity: Annotated[Number, Field(ge=0)]
    is_estimate: bool = False
    rate_card: Sha256
    project: Label | None = None
    attempt: AttemptId | None = None
    claim: ClaimId | None = None
    reason: Annotated[EndReason, Field(strict=False)] | None = None

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.id)


def usage_id(provider: str, subject: str, meter: str, interval: int) -> str:
    """The id of a usage fact: SHA-256 over its parts, LF between them (no part holds one)."""
    return sha256_hex(f"{provider}\n{subject}\n{meter}\n{interval}".encode())


class Receipt(Statement):
    """The customer's answer to usage events, cited by the SHA-256 of their envelopes."""

    TYPE: ClassVar[str] = "fedci.receipt/1"
    CARRIES_TOKEN = True

    id: MessageId
    iss: IssuerUrl
    sub: Subject
    ath: Sha256
    made_at: Instant
    events: Annotated[tuple[Sha256, ...], Field(min_length=1, max_length=500)]
    verdict: Literal["accepted", "disputed"]
    reason: Text = ""

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.id)


class Rate(Part):
    """The price of one meter: `price` for each `per` units, started units of `increment` being counted whole."""

    meter: Meter
    unit: Text
    price: Annotated[Number, Field(ge=0)]
    per: Annotated[Number, Field(gt=0)]
    increment: Annotated[Number, Field(gt=0)]


class RateCard(Statement):
    """What a provider charges; named by the SHA-256 of its envelope, which every job cites. Meters not listed are free.

    Each invoice line is rounded once, half to even, to `decimals` places of the currency.
    """

    TYPE: ClassVar[str] = "fedci.rate-card/1"

    serial: Count
    currency: Currency
    decimals: Annotated[int, Field(ge=0, le=6)] = 2
    rates: Annotated[tuple[Rate, ...], Field(max_length=50)]
    valid_from: Instant
    valid_until: Instant

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.serial)


class AgentAccount(Part):
    iss: IssuerUrl
    sub: Subject


class Agent(Part):
    """An agent of the provider: its key, and the accounts under which it introduces itself to controllers."""

    name: Label
    role: AgentRole
    key: PublicKey
    accounts: Annotated[tuple[AgentAccount, ...], Field(max_length=50)]


class Pool(Part):
    """Workers with the same labels, to which a controller may publish jobs."""

    name: Label
    workers: Annotated[tuple[Label, ...], Field(max_length=1000)]
    labels: Annotated[tuple[PoolLabel, ...], Field(max_length=limits.LABELS)]
    toolchains: Annotated[tuple[Toolchain, ...], Field(max_length=50)]
    stores: Annotated[tuple[ProviderName, ...], Field(max_length=50)]
    slots: Count
    cores: Count
    memory_bytes: Count
    disk_bytes: Count
    is_network_allowed: bool


class StoreOffer(Part):
    url: Url
    ca: Text | None = None


class Card(Statement):
    """Who a provider is and what it lends, signed by its root key. A lower serial than one seen is refused."""

    TYPE: ClassVar[str] = "fedci.card/1"

    serial: Count
    desk_url: Url
    issuers: Annotated[tuple[IssuerUrl, ...], Field(max_length=100)]
    agents: Annotated[tuple[Agent, ...], Field(max_length=1000)]
    pools: Annotated[tuple[Pool, ...], Field(max_length=100)]
    store: StoreOffer | None
    rate_card: Sha256
    speaks: Annotated[tuple[Text, ...], Field(max_length=100)]
    issued_at: Instant
    expires_at: Instant

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.serial)


class InvoiceLine(Part):
    """One meter of one rate card: the sum of its events, the amount rounded once, and the events it was summed from."""

    meter: Meter
    unit: Text
    rate_card: Sha256
    quantity: Number
    amount: Number
    events: Annotated[tuple[Sha256, ...], Field(max_length=100_000)]


class Invoice(Statement):
    """What one customer owes one provider for a period. Anyone with the events and the public keys can recompute it."""

    TYPE: ClassVar[str] = "fedci.invoice/1"
    MAX_BYTES: ClassVar[int] = 64 * limits.MIB

    number: Annotated[str, Field(pattern=r"^[0-9a-z][0-9a-z-]{0,60}$")]
    agent: Label
    iss: IssuerUrl
    sub: Subject
    period_from: Instant
    period_to: Instant
    issued_at: Instant
    currency: Currency
    lines: Annotated[tuple[InvoiceLine, ...], Field(max_length=1000)]
    total: Number

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.number)
