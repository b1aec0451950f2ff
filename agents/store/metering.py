"""From transfers and stored hours to usage facts (DESIGN §9). Pure.

* Transfers: one fact for each tab and direction, when the tab is over, with the subject `<tab>:in` or `<tab>:out`. In
  are the bytes of uploads that were completed, each once however often it was resumed; out are the bytes really sent.
* Storage: one fact for each blob and clock hour, `<tenant>:<32 digits of the digest>:<hour>`, stated when the hour is
  over, the first one from the moment of storing. The hour in which a blob is removed is not billed, so that a blob
  stored again in that hour cannot give one subject two meanings. GiB·h are rounded to 12 decimals, which is what the
  wire carries: one byte in one hour is 931 of the last place.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal

from schemas import limits
from schemas.statements import Meter, Usage, usage_id

HOUR = timedelta(hours=1)
_PLACES = Decimal(1).scaleb(-12)
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Fact:
    """So much of one meter, between two instants."""

    subject: str
    meter: Meter
    quantity: Decimal
    started_at: datetime
    ended_at: datetime
    project: str | None = None
    attempt: str | None = None


@dataclass(frozen=True, slots=True)
class Customer:
    tenant: str
    iss: str
    sub: str


@dataclass(frozen=True, slots=True)
class Meterer:
    """Who measured."""

    provider: str
    agent: str


def hour_of(at: datetime) -> datetime:
    """The beginning of the clock hour (UTC) that an instant lies in."""
    return at.replace(minute=0, second=0, microsecond=0)


def hours_between(start: datetime, until: datetime) -> list[tuple[datetime, datetime]]:
    """The pieces of whole clock hours from `start` on that are over at `until`; only the first may be a part."""
    pieces = []
    while (end := hour_of(start) + HOUR) <= until:
        pieces.append((start, end))
        start = end
    return pieces


def gib_hours(size_bytes: int, length: timedelta) -> Decimal:
    byte_milliseconds = Decimal(size_bytes) * (length // _MILLISECOND)
    return _EXACT.divide(byte_milliseconds, Decimal(limits.GIB * (HOUR // _MILLISECOND))).quantize(
        _PLACES, context=_EXACT
    )


def stored(
    tenant: str, digest: str, size_bytes: int, project: str | None, started_at: datetime, ended_at: datetime
) -> Fact:
    """A blob lay here for a part of one clock hour, or all of it."""
    hour = f"{hour_of(started_at):%Y-%m-%dt%H}"
    subject = f"{tenant}:{digest[:32]}:{hour}"
    return Fact(subject, "store-gib-hours", gib_hours(size_bytes, ended_at - started_at), started_at, ended_at, project)


def moved(
    tab: str,
    bytes_in: int,
    bytes_out: int,
    started_at: datetime,
    ended_at: datetime,
    project: str | None,
    attempt: str | None,
) -> tuple[Fact, ...]:
    """What went through a tab that is over; a direction in which nothing went is no fact."""
    directions: tuple[tuple[str, Meter, int], ...] = (
        ("in", "store-bytes-in", bytes_in),
        ("out", "store-bytes-out", bytes_out),
    )
    return tuple(
        Fact(f"{tab}:{direction}", meter, Decimal(count), started_at, ended_at, project, attempt)
        for direction, meter, count in directions
        if count > 0
    )


def usage_of(meterer: Meterer, customer: Customer, rate_card: str, fact: Fact) -> Usage:
    return Usage(
        provider=meterer.provider,
        id=usage_id(meterer.provider, fact.subject, fact.meter, 0),
        source=f"fedci:provider:{meterer.provider}/store/{meterer.agent}",
        subject=fact.subject,
        agent=meterer.agent,
        iss=customer.iss,
        sub=customer.sub,
        meter=fact.meter,
        interval=0,
        started_at=fact.started_at,
        ended_at=fact.ended_at,
        quantity=fact.quantity,
        rate_card=rate_card,
        project=fact.project,
        attempt=fact.attempt,
    )
