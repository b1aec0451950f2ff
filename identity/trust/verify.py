"""The list of refusals: what must hold before a message is believed, in one fixed order (DESIGN §5).

1. size, frame, type and version, kind, presence of a token
2. token: shape, issuer (one that is pinned), header, key, signature, claims
3. token: audience, times, revocation, the holder's key
4. envelope: its signature by that key, over the exact bytes; then those bytes are parsed
5. message: identity fields equal the token's, `ath`, and its own times within now and the token's

The first thing that does not hold is the answer; nothing behind it is computed. One function for each kind. All are
pure: bytes, `now` and what was looked up go in, `Verified`, `SignedBy` or a `Refusal` comes out, and nothing else can
make the first two. Replay is not asked here: who stores the effect stores the duplicate key beside it (`replay`).

Specifications: RFC 7519, RFC 7800 (`cnf`), RFC 8725 (JWT best practice); `ath` after RFC 9449 §4.2.
"""

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from datetime import datetime
from typing import Generic, TypeVar

from identity.keys import is_usable_public
from identity.trust.anchor import Anchor
from identity.trust.checks import (
    TOKEN_CHECKS,
    Holder,
    MessageCheck,
    Principal,
    check_addressee,
    check_identity,
    check_life,
    check_ticket_life,
    check_times,
    check_token_audience,
    check_token_hash,
    check_within_now,
    check_within_token,
)
from identity.trust.tokens import (
    SignatureMemory,
    SignedToken,
    check_signature,
    read_bound_key,
    read_claims,
    read_token,
)
from schemas import frame, registry, wire
from schemas.frame import UnverifiedFrame
from schemas.ids import provider_audience
from schemas.orders import Order
from schemas.refusals import Reason, Refusal
from schemas.reports import ClaimReport, Introduced
from schemas.statements import Receipt
from schemas.tickets import AgentTicket, SessionTicket, StoreTicket
from schemas.wire import Message

MessageT = TypeVar("MessageT", bound=Message)
MessageT_co = TypeVar("MessageT_co", bound=Message, covariant=True)
_SEAL = object()


@dataclass(frozen=True, kw_only=True)
class Verified(Generic[MessageT_co]):
    """A message that a principal said, proven by an ID token and the key bound in it. Only verifiers make one."""

    message: MessageT_co
    principal: Principal
    key: bytes
    digest: str
    """SHA-256 of the whole envelope."""
    raw: bytes
    token_id: str
    token_issued_at: datetime
    token_expires_at: datetime
    issuer_jwk: str
    """The issuer's key that signed the token, as JSON: what an auditor keeps beside a statement."""
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        _check_seal(seal)


@dataclass(frozen=True, kw_only=True)
class SignedBy(Generic[MessageT_co]):
    """A message that the holder of a known key signed. Only verifiers make one."""

    message: MessageT_co
    key: bytes
    digest: str
    raw: bytes
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        _check_seal(seal)


def _check_seal(seal: object) -> None:
    if seal is not _SEAL:
        raise TypeError("only a verifier in identity.trust makes verified values")


# -- One function for each kind


def verify_order(
    raw: bytes,
    *,
    anchors: Mapping[str, Anchor],
    audience: str,
    now: datetime,
    memory: SignatureMemory | None = None,
) -> Verified[Order] | Refusal:
    """An order of a controller, to the provider `audience` (`fedci:provider:…`)."""
    checks = (check_identity, check_token_audience, check_token_hash, check_within_now, check_within_token)
    return _verify(raw, (Order,), checks, _Knowledge(anchors, audience, now, memory))


def verify_introduction(
    raw: bytes,
    *,
    anchors: Mapping[str, Anchor],
    audience: str,
    now: datetime,
    memory: SignatureMemory | None = None,
) -> Verified[Introduced] | Refusal:
    """A report with a token (claim, refused), to the controller `audience` (`fedci:controller:…`).

    That the key belongs to the provider's agent is for its card to say.
    """
    checks = (check_identity, check_token_audience, check_token_hash)
    return _verify(raw, (Introduced,), checks, _Knowledge(anchors, audience, now, memory))


def verify_ticket(
    raw: bytes,
    *,
    anchors: Mapping[str, Anchor],
    audience: str,
    now: datetime,
    memory: SignatureMemory | None = None,
) -> Verified[SessionTicket | StoreTicket] | Refusal:
    """A controller's ticket, to the desk (`fedci:provider:…`) or the store (`fedci:store:…`)."""
    checks = (check_identity, check_token_audience, check_token_hash, check_within_now, check_within_token, check_life)
    return _verify(raw, (SessionTicket, StoreTicket), checks, _Knowledge(anchors, audience, now, memory))


def verify_receipt(
    raw: bytes,
    *,
    anchors: Mapping[str, Anchor],
    provider: str,
    now: datetime,
    memory: SignatureMemory | None = None,
) -> Verified[Receipt] | Refusal:
    """A customer's receipt to `provider`; `now` is when it was received, which is as of when it is valid."""
    audience = provider_audience(provider)
    verified = _verify(raw, (Receipt,), (check_identity, check_token_hash), _Knowledge(anchors, audience, now, memory))
    if isinstance(verified, Verified) and verified.message.provider != provider:
        return Refusal(Reason.IDENTITY_MISMATCH, "the receipt names another provider than its token is for")
    return verified


def verify_report(raw: bytes, *, key: bytes, audience: str) -> SignedBy[ClaimReport] | Refusal:
    """A report about a claim, signed by the key that the accepted claim recorded."""
    opened = _open_envelope(raw, (ClaimReport,))
    if isinstance(opened, Refusal):
        return opened
    message = _open_payload(opened, key)
    if isinstance(message, Refusal):
        return message
    return check_addressee(message.aud, audience) or _signed(opened.frame, message, key)


def verify_agent_ticket(
    raw: bytes, *, keys: Mapping[str, bytes], audience: str, now: datetime
) -> SignedBy[AgentTicket] | Refusal:
    """A ticket of one of the provider's own agents; `keys` are those enrolled, by agent.

    The agent that the unverified payload names selects the key, and nothing else, before the signature is checked.
    """
    opened = _open_envelope(raw, (AgentTicket,))
    if isinstance(opened, Refusal):
        return opened
    key = _select_agent_key(opened.frame.payload, keys)
    if isinstance(key, Refusal):
        return key
    message = _open_payload(opened, key)
    if isinstance(message, Refusal):
        return message
    return (
        check_addressee(message.aud, audience)
        or check_times(message, now)
        or check_ticket_life(message)
        or _signed(opened.frame, message, key)
    )


def verify_statement(raw: bytes, model: type[MessageT], *, key: bytes) -> SignedBy[MessageT] | Refusal:
    """A provider's statement (usage, card, rate card, invoice), signed by `key`; for good, so no time is asked."""
    opened = _open_envelope(raw, (model,))
    if isinstance(opened, Refusal):
        return opened
    message = _open_payload(opened, key)
    if isinstance(message, Refusal):
        return message
    return _signed(opened.frame, message, key)


def unverified_issuer(raw: bytes) -> str | None:
    """The issuer that an envelope's token names, good for nothing but choosing whose keys to look for."""
    parts = frame.split(raw)
    if isinstance(parts, Refusal) or parts.token is None:
        return None
    token = read_token(parts.token.encode("utf-8"))
    return None if isinstance(token, Refusal) else token.unverified_iss


# -- The story that all kinds with a token share


@dataclass(frozen=True)
class _Knowledge:
    """What a verifier is told beside the bytes."""

    anchors: Mapping[str, Anchor]
    audience: str
    now: datetime
    memory: SignatureMemory | None


@dataclass(frozen=True)
class _Opened(Generic[MessageT_co]):
    frame: UnverifiedFrame
    model: type[MessageT_co]


def _verify(
    raw: bytes, models: tuple[type[MessageT], ...], checks: tuple[MessageCheck, ...], known: _Knowledge
) -> Verified[MessageT] | Refusal:
    opened = _open_envelope(raw, models)
    if isinstance(opened, Refusal):
        return opened
    holder = _check_token(opened.frame.token or "", known)
    if isinstance(holder, Refusal):
        return holder
    message = _open_payload(opened, holder.key)
    if isinstance(message, Refusal):
        return message
    for check in checks:
        if refusal := check(message, holder, known.now):
            return refusal
    return _verified(opened.frame, message, holder)


def _open_envelope(raw: bytes, models: tuple[type[MessageT], ...]) -> _Opened[MessageT] | Refusal:
    """Size, frame, type and version, kind, and whether a token is where the type has one."""
    parts = frame.split(raw, max_bytes=max(model.MAX_BYTES for model in _leaves(models)))
    if isinstance(parts, Refusal):
        return parts
    model = registry.find(parts.type)
    if isinstance(model, Refusal):
        return model
    if not issubclass(model, models):
        return Refusal(Reason.WRONG_KIND, f"{model.TYPE} is not what is read here")
    if len(raw) > model.MAX_BYTES:
        return Refusal(Reason.TOO_LARGE, f"{len(raw)} bytes, a {model.TYPE} has at most {model.MAX_BYTES}")
    if model.CARRIES_TOKEN and parts.token is None:
        return Refusal(Reason.TOKEN_MISSING, f"a {model.TYPE} carries an ID token")
    if not model.CARRIES_TOKEN and parts.token is not None:
        return Refusal(Reason.TOKEN_UNEXPECTED, f"a {model.TYPE} carries no token")
    return _Opened(parts, model)


def _leaves(models: tuple[type[Message], ...]) -> list[type[Message]]:
    return [known for known in registry.MESSAGES if issubclass(known, models)]


def _check_token(text: str, known: _Knowledge) -> Holder | Refusal:
    """Issuer, signature, audience, times, revocation, the holder's key."""
    token_hash = frame.token_hash(text)
    signed = _check_issuer(text, token_hash, known)
    if isinstance(signed, Refusal):
        return signed
    anchor, claims = known.anchors[signed.claims.iss], signed.claims
    for check in TOKEN_CHECKS:
        if refusal := check(claims, anchor, known.audience, known.now):
            return refusal
    key = read_bound_key(claims)
    if isinstance(key, Refusal):
        return key
    return Holder(Principal(claims.iss, claims.sub), key, claims, token_hash, signed.key.jwk)


def _check_issuer(text: str, token_hash: str, known: _Knowledge) -> SignedToken | Refusal:
    """The token's claims, once a key of the pinned issuer that it names has signed them."""
    if signed := _recall(token_hash, known):
        return signed
    token = read_token(text.encode("utf-8"))
    if isinstance(token, Refusal):
        return token
    anchor = known.anchors.get(token.unverified_iss or "")
    if anchor is None:
        return Refusal(Reason.ISSUER_UNTRUSTED, "the token's issuer is not among those trusted here")
    keys = anchor.usable_keys(known.now)
    if isinstance(keys, Refusal):
        return keys
    key = check_signature(token, typ=anchor.profile.typ, algorithms=anchor.profile.algorithms, keys=keys)
    if isinstance(key, Refusal):
        return key
    claims = read_claims(token, anchor.profile)
    if isinstance(claims, Refusal):
        return claims
    signed = SignedToken(claims, key)
    if known.memory is not None:
        known.memory.keep(token_hash, signed)
    return signed


def _recall(token_hash: str, known: _Knowledge) -> SignedToken | None:
    """What is remembered of this token, while its issuer's keys still hold the one that signed it."""
    signed = known.memory.recall(token_hash) if known.memory is not None else None
    anchor = known.anchors.get(signed.claims.iss) if signed is not None else None
    if signed is None or anchor is None:
        return None
    keys = anchor.usable_keys(known.now)
    if isinstance(keys, Refusal) or keys.get(signed.key.kid) != signed.key:
        return None
    return signed


def _open_payload(opened: _Opened[MessageT], key: bytes) -> MessageT | Refusal:
    """The message, parsed from exactly the bytes that `key` signed."""
    if not is_usable_public(key) or not opened.frame.is_signed_by(key):
        return Refusal(Reason.ENVELOPE_SIGNATURE, "the envelope is not signed by the key that must sign it")
    return opened.model.from_payload(opened.frame.payload)


def _select_agent_key(payload: bytes, keys: Mapping[str, bytes]) -> bytes | Refusal:
    try:
        unverified_agent = wire.unpack_map(payload).get("agent")
    except ValueError as error:
        return Refusal(Reason.MALFORMED_PAYLOAD, f"{AgentTicket.TYPE}: {error}")
    key = keys.get(unverified_agent) if isinstance(unverified_agent, str) else None
    return key or Refusal(Reason.UNKNOWN_AGENT, "no agent of this name is enrolled here")


def _verified(opened: UnverifiedFrame, message: MessageT, holder: Holder) -> Verified[MessageT]:
    return Verified(
        message=message,
        principal=holder.principal,
        key=holder.key,
        digest=opened.digest,
        raw=opened.raw,
        token_id=holder.claims.jti,
        token_issued_at=holder.claims.issued_at,
        token_expires_at=holder.claims.expires_at,
        issuer_jwk=holder.issuer_jwk,
        seal=_SEAL,
    )


def _signed(opened: UnverifiedFrame, message: MessageT, key: bytes) -> SignedBy[MessageT]:
    return SignedBy(message=message, key=key, digest=opened.digest, raw=opened.raw, seal=_SEAL)
