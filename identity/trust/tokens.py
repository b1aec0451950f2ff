"""Reading a signed token: apart, then its signature, then its claims (RFC 7515, RFC 7519, RFC 8725).

A token is taken apart without believing any of it; its `iss` may then *select* a pinned issuer, its `kid` one of that
issuer's keys, and nothing else. Its algorithm must be one of the profile's before any key is touched. Headers by which
a token would bring or fetch its own key (`jwk`, `jku`, `x5c`, `x5u`), or change what is signed (`crit`, `b64`), are
refused: no honest issuer needs them here.

Pure, but for `SignatureMemory`, which changes how fast an answer comes, never what it is. The order in which things are
asked is in `verify`.
"""

import base64
import binascii
import math
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from joserfc import jws
from joserfc.errors import JoseError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from identity.keys import public_from_jwk
from identity.strict_json import read_object
from identity.trust.keyset import IssuerKey
from identity.trust.profiles import IssuerProfile
from schemas.refusals import Reason, Refusal
from schemas.wire import Audience, Subject

_FORBIDDEN_HEADERS = ("jwk", "jku", "x5c", "x5u", "crit", "b64")
_HEADER_CHARACTERS = 2048
_YEAR_9999 = 253_402_300_799


def _whole_seconds(value: object) -> object:
    return math.floor(value) if isinstance(value, float) and math.isfinite(value) else value


NumericDate = Annotated[int, BeforeValidator(_whole_seconds), Field(ge=0, le=_YEAR_9999)]
"""Seconds since the epoch (RFC 7519 §2); parts of a second are cut off."""


class _Registry(jws.JWSRegistry):
    """The library's checks with room for our sizes, which were checked before; foreign headers are ignored (§4.1)."""

    max_header_length = _HEADER_CHARACTERS
    max_payload_length = 8 * 1024 * 1024


@dataclass(frozen=True)
class UnverifiedToken:
    """A compact JWS taken apart; nothing in it has been checked but its shape."""

    raw: bytes
    header: Mapping[str, Any]
    payload: bytes
    unverified_claims: Mapping[str, Any]

    @property
    def unverified_iss(self) -> str | None:
        iss = self.unverified_claims.get("iss")
        return iss if isinstance(iss, str) else None


class Claims(BaseModel):
    """The claims of an ID token that fedci reads; others are ignored (RFC 7519 §4)."""

    model_config = ConfigDict(strict=True, frozen=True)

    iss: str
    sub: Subject
    aud: Audience
    iat: NumericDate
    nbf: NumericDate | None = None
    exp: NumericDate
    jti: Annotated[str, Field(min_length=1, max_length=200)]
    cnf: dict[str, Any] | None = None

    @property
    def issued_at(self) -> datetime:
        return datetime.fromtimestamp(self.iat, UTC)

    @property
    def not_before(self) -> datetime:
        return datetime.fromtimestamp(self.iat if self.nbf is None else self.nbf, UTC)

    @property
    def expires_at(self) -> datetime:
        return datetime.fromtimestamp(self.exp, UTC)


@dataclass(frozen=True)
class SignedToken:
    """An ID token that a key of its pinned issuer signed; whether it holds here and now is still open."""

    claims: Claims
    key: IssuerKey


class SignatureMemory:
    """Remembers which token texts were well signed by which key, so that one token's many uses cost one check.

    What is remembered counts only while the issuer's present key of that `kid` is the one that signed, and audience,
    times and revocation are asked anew each time (`verify`): so it outlives neither a key nor a revocation. Bounded;
    the longest unused goes first.
    """

    def __init__(self, entries: int = 1024) -> None:
        self._entries = entries
        self._signed: OrderedDict[str, SignedToken] = OrderedDict()

    def recall(self, token_hash: str) -> SignedToken | None:
        signed = self._signed.get(token_hash)
        if signed is not None:
            self._signed.move_to_end(token_hash)
        return signed

    def keep(self, token_hash: str, signed: SignedToken) -> None:
        self._signed[token_hash] = signed
        if len(self._signed) > self._entries:
            self._signed.popitem(last=False)

    def __len__(self) -> int:
        return len(self._signed)


def read_token(raw: bytes) -> UnverifiedToken | Refusal:
    """Take a compact JWS apart: three parts, strict base64url, header and payload one JSON object each."""
    parts = raw.split(b".")
    if len(parts) != 3:
        return Refusal(Reason.TOKEN_MALFORMED, "a token is three parts with dots between")
    if len(parts[0]) > _HEADER_CHARACTERS:
        return Refusal(Reason.TOKEN_MALFORMED, "the token's header is too long")
    try:
        header, payload = (_decode(part) for part in parts[:2])
        return UnverifiedToken(raw, read_object(header), payload, read_object(payload))
    except ValueError as error:
        return Refusal(Reason.TOKEN_MALFORMED, f"the token's header or payload: {error}")


def check_signature(
    token: UnverifiedToken, *, typ: str, algorithms: Collection[str], keys: Mapping[str, IssuerKey]
) -> IssuerKey | Refusal:
    """The pinned issuer's key that signed this token for this use, or why none did."""
    if refusal := _check_header(token.header, typ, algorithms):
        return refusal
    key = keys.get(token.header["kid"])
    if key is None:
        return Refusal(Reason.KEY_UNKNOWN, "the issuer publishes no usable key under the token's `kid`")
    if token.header["alg"] not in key.algorithms:
        return Refusal(Reason.ALGORITHM_FORBIDDEN, "the issuer's key is not for the token's algorithm")
    if not _is_signed(token.raw, key):
        return Refusal(Reason.TOKEN_SIGNATURE, "the issuer's key did not sign this token")
    return key


def read_claims(token: UnverifiedToken, profile: IssuerProfile) -> Claims | Refusal:
    """The claims of a token whose signature holds, the subject being where the profile says."""
    try:
        return Claims.model_validate(
            {**token.unverified_claims, "sub": token.unverified_claims.get(profile.subject_claim)}
        )
    except ValidationError as error:
        wrong = sorted({str(problem["loc"][0]) for problem in error.errors(include_url=False, include_input=False)})
        return Refusal(Reason.CLAIMS_MALFORMED, f"missing or of the wrong form: {', '.join(wrong)}")


def read_bound_key(claims: Claims) -> bytes | Refusal:
    """The Ed25519 key of the token's holder: `cnf.jwk` (RFC 7800 §3.2)."""
    jwk = (claims.cnf or {}).get("jwk")
    if not isinstance(jwk, dict):
        return Refusal(Reason.KEY_UNBOUND, "the token names no holder's key (`cnf.jwk`)")
    if "d" in jwk:
        return Refusal(Reason.KEY_UNBOUND, "the token gives away the private half of its holder's key")
    try:
        return public_from_jwk(jwk)
    except ValueError as error:
        return Refusal(Reason.KEY_UNBOUND, f"the holder's key in `cnf.jwk`: {error}")


def _check_header(header: Mapping[str, Any], typ: str, algorithms: Collection[str]) -> Refusal | None:
    # RFC 8725 §3.1: the allow-list is asked before anything is computed with a key.
    if header.get("alg") not in algorithms:
        return Refusal(Reason.ALGORITHM_FORBIDDEN, f"this issuer's tokens are signed with {', '.join(algorithms)}")
    # RFC 8725 §3.11: explicit typing, so that no other JWT of the issuer passes for this one.
    if header.get("typ") != typ:
        return Refusal(Reason.TOKEN_MALFORMED, f"the token's `typ` is not {typ}")
    if forbidden := [name for name in _FORBIDDEN_HEADERS if name in header]:
        return Refusal(Reason.TOKEN_MALFORMED, f"the header `{forbidden[0]}` has no place in this token")
    if not isinstance(header.get("kid"), str):
        return Refusal(Reason.TOKEN_MALFORMED, "the token names no key (`kid`)")
    return None


def _is_signed(raw: bytes, key: IssuerKey) -> bool:
    registry = _Registry(algorithms=sorted(key.algorithms), strict_check_header=False)
    try:
        jws.deserialize_compact(raw, key.key, registry=registry)
    except (JoseError, ValueError):
        return False
    return True


def _decode(part: bytes) -> bytes:
    """Base64url without padding, and without a second spelling of the same bytes (RFC 7515 §2)."""
    try:
        data = base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64url") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part:
        raise ValueError("not base64url")
    return data
