"""The single questions of the list of refusals; `verify` asks them in their order.

Each one asks one thing, and answers with `None` or with the refusal of that thing alone. What is wrong with a time is
said in seconds, because a wrong clock is mended by the person who reads how wrong it is. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from identity.trust.anchor import Anchor
from identity.trust.revocation import check_revocation
from identity.trust.tokens import Claims
from schemas import limits
from schemas.ids import tenant_id
from schemas.refusals import Reason, Refusal
from schemas.tickets import Ticket

_LEEWAY_SECONDS = limits.CLOCK_SKEW_SECONDS


@dataclass(frozen=True)
class Principal:
    """Who speaks: the pair, never `sub` alone (DESIGN §2)."""

    iss: str
    sub: str

    @property
    def tenant(self) -> str:
        return tenant_id(self.iss, self.sub)


@dataclass(frozen=True)
class Holder:
    """Who holds the token beside an envelope, once all that is asked of that token has held."""

    principal: Principal
    key: bytes
    claims: Claims
    token_hash: str
    issuer_jwk: str


class _Spoken(Protocol):
    @property
    def iss(self) -> str: ...
    @property
    def sub(self) -> str: ...
    @property
    def ath(self) -> str: ...


class _Addressed(Protocol):
    @property
    def aud(self) -> str: ...


class _Timed(Protocol):
    @property
    def issued_at(self) -> datetime: ...
    @property
    def expires_at(self) -> datetime: ...


# -- The token


def _check_audience(claims: Claims, _anchor: Anchor, audience: str, _now: datetime) -> Refusal | None:
    if claims.aud != audience:
        return Refusal(Reason.AUDIENCE, f"the token is for another audience than {audience}")
    return None


def _check_expiry(claims: Claims, _anchor: Anchor, _audience: str, now: datetime) -> Refusal | None:
    late_seconds = _seconds(now - claims.expires_at)
    if late_seconds > _LEEWAY_SECONDS:
        return Refusal(Reason.TOKEN_EXPIRED, f"the token ended {_past(late_seconds)}")
    return None


def _check_beginning(claims: Claims, _anchor: Anchor, _audience: str, now: datetime) -> Refusal | None:
    early_seconds = _seconds(max(claims.issued_at, claims.not_before) - now)
    if early_seconds > _LEEWAY_SECONDS:
        return Refusal(Reason.TOKEN_NOT_YET_VALID, f"the token begins {_future(early_seconds)}")
    return None


def _check_token_life(claims: Claims, anchor: Anchor, _audience: str, _now: datetime) -> Refusal | None:
    life_seconds, cap = claims.exp - claims.iat, anchor.profile.lifetime_cap_seconds
    if life_seconds > cap:
        return Refusal(Reason.TOKEN_TOO_LONG_LIVED, f"the token lives {life_seconds} s, at most {cap} s are accepted")
    return None


def _check_revoked(claims: Claims, anchor: Anchor, _audience: str, now: datetime) -> Refusal | None:
    return check_revocation(
        anchor.revocations,
        anchor.profile,
        now,
        sub=claims.sub,
        token_id=claims.jti,
        issued_at=claims.issued_at,
    )


TokenCheck = Callable[[Claims, Anchor, str, datetime], Refusal | None]
TOKEN_CHECKS: tuple[TokenCheck, ...] = (
    _check_audience,
    _check_expiry,
    _check_beginning,
    _check_token_life,
    _check_revoked,
)


# -- The message, against the token that came with it

MessageCheck = Callable[[Any, Holder, datetime], Refusal | None]


def check_identity(message: _Spoken, holder: Holder, _now: datetime) -> Refusal | None:
    if (message.iss, message.sub) != (holder.principal.iss, holder.principal.sub):
        return Refusal(Reason.IDENTITY_MISMATCH, "the message names another principal than its token")
    return None


def check_token_audience(message: _Addressed, holder: Holder, _now: datetime) -> Refusal | None:
    if message.aud != holder.claims.aud:
        return Refusal(Reason.IDENTITY_MISMATCH, "the message names another audience than its token")
    return None


def check_token_hash(message: _Spoken, holder: Holder, _now: datetime) -> Refusal | None:
    if message.ath != holder.token_hash:
        return Refusal(Reason.TOKEN_HASH_MISMATCH, "the message was made with another token than came with it")
    return None


def check_within_now(message: _Timed, _holder: Holder, now: datetime) -> Refusal | None:
    return check_times(message, now)


def check_within_token(message: _Timed, holder: Holder, _now: datetime) -> Refusal | None:
    """A message begins no earlier than its token (two clocks: with leeway), and ends no later (one clock: without)."""
    over_seconds = _seconds(message.expires_at - holder.claims.expires_at)
    if over_seconds > 0:
        return Refusal(Reason.OUTLIVES_TOKEN, f"the message ends {over_seconds:.0f} s after its token")
    early_seconds = _seconds(holder.claims.issued_at - message.issued_at)
    if early_seconds > _LEEWAY_SECONDS:
        return Refusal(Reason.OUTLIVES_TOKEN, f"the message was issued {early_seconds:.0f} s before its token")
    return None


def check_life(message: Ticket, _holder: Holder, _now: datetime) -> Refusal | None:
    return check_ticket_life(message)


# -- The message alone


def check_addressee(aud: str, audience: str) -> Refusal | None:
    if aud != audience:
        return Refusal(Reason.AUDIENCE, f"the message is for another audience than {audience}")
    return None


def check_times(message: _Timed, now: datetime) -> Refusal | None:
    late_seconds = _seconds(now - message.expires_at)
    if late_seconds > _LEEWAY_SECONDS:
        return Refusal(Reason.EXPIRED, f"the message ended {_past(late_seconds)}")
    early_seconds = _seconds(message.issued_at - now)
    if early_seconds > _LEEWAY_SECONDS:
        return Refusal(Reason.NOT_YET_VALID, f"the message was issued {_future(early_seconds)}")
    return None


def check_ticket_life(ticket: Ticket) -> Refusal | None:
    """A ticket is used within seconds, so that its id need not be remembered for long."""
    life_seconds = _seconds(ticket.expires_at - ticket.issued_at)
    if life_seconds > limits.TICKET_SECONDS:
        return Refusal(
            Reason.MALFORMED_PAYLOAD,
            f"{ticket.TYPE}: lives {life_seconds:.0f} s, a ticket at most {limits.TICKET_SECONDS} s",
        )
    return None


def _seconds(span: timedelta) -> float:
    return span.total_seconds()


def _past(seconds: float) -> str:
    return f"{seconds:.0f} s ago by this clock (leeway {_LEEWAY_SECONDS} s)"


def _future(seconds: float) -> str:
    return f"{seconds:.0f} s in the future by this clock (leeway {_LEEWAY_SECONDS} s): compare the clocks"
