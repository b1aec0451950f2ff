"""The founding scenario: who is who, whom they trust, and what they charge.

Fatima and Georgina run identity servers. Alice lends unusual boards, Cecilia fast machines, Bettina keeps artifacts;
all three trust both issuers. Dinah has an account at Fatima's and trusts only her; Eliza one at Georgina's, and trusts
only her. None of them knows more of the others than stands here.
"""

from dataclasses import dataclass
from typing import Literal

from schemas.statements import Meter


@dataclass(frozen=True, slots=True)
class Rate:
    meter: Meter
    unit: str
    price: str
    per: str = "1"
    increment: str = "1"


@dataclass(frozen=True, slots=True)
class Provider:
    """Somebody who lends hardware: a desk and a ledger, and either workers or a store."""

    person: str
    lends: Literal["worker", "store"]
    agent: str
    rates: tuple[Rate, ...]
    pool: str = ""
    labels: tuple[str, ...] = ()
    slots: int = 0

    @property
    def name(self) -> str:
        return f"{self.person}.example"


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody with a project: a controller of her own, and an account at one issuer."""

    person: str
    issuer: str
    project: str


ISSUERS = ("fatima", "georgina")

_GIB = str(2**30)

PROVIDERS = (
    Provider(
        person="alice",
        lends="worker",
        agent="w1",
        pool="boards",
        labels=("machine=board",),
        slots=2,
        rates=(
            Rate("attempts", "attempt", "0.01"),
            Rate("wall-seconds", "s", "0.90", per="3600"),
            Rate("log-bytes", "B", "0.50", per=_GIB),
        ),
    ),
    Provider(
        person="cecilia",
        lends="worker",
        agent="w7",
        pool="fast",
        labels=("machine=fast",),
        slots=2,
        rates=(
            Rate("wall-seconds", "s", "1.80", per="3600"),
            Rate("cpu-seconds", "s", "0.36", per="3600", increment="0.1"),
        ),
    ),
    Provider(
        person="bettina",
        lends="store",
        agent="store",
        rates=(
            Rate("store-bytes-in", "B", "0.10", per="1000000", increment="1"),
            Rate("store-bytes-out", "B", "0.20", per="1000000", increment="1"),
            Rate("store-gib-hours", "GiB·h", "0.02", increment="0.000001"),
        ),
    ),
)

CUSTOMERS = (
    Customer("dinah", issuer="fatima", project="fedci"),
    Customer("eliza", issuer="georgina", project="almanac"),
)

CURRENCY = "EUR"
DECIMALS = 4
"""The builds of the demo take seconds and cost parts of a cent; with the usual two places there were nothing to see."""
