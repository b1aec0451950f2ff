"""DPoP proofs (RFC 9449): that whoever asks for a token holds the key that the token is to be bound to.

A proof is a JWT signed by the very key in its header, for one method and URL, seconds ago, good once. Checked in the
order of RFC 9449 §4.3: one header field, well-formed, `typ`, `alg`, `jwk` without a private half, signature, claims,
`htm`, `htu`, `iat`. What needs a look-up (`jti` seen before) is the caller's.

Only `alg` `Ed25519` (RFC 9864) is read: envelopes are Ed25519, so no other key is of use in a token, and the older
spelling `EdDSA` does not say which curve. Keys of small order are refused in `identity.keys`.

Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from identity.keys import public_from_jwk
from identity.server.jwts import ALGORITHM, UnverifiedJwt, take_apart
from schemas import limits

PROOF_TYPE = "dpop+jwt"
PROOF_SECONDS = 60
"""How old a proof may be; it is remembered until then, so that it is good once."""
MAX_PROOF_CHARACTERS = 2048
_YEAR_9999 = 253_402_300_799
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class ProofRefused:
    """Why a proof does not count, in the printable ASCII that RFC 6749 §5.2 wants."""

    description: str


@dataclass(frozen=True)
class Proof:
    """A key whose holder asked for this very request; only `check_proof` makes one."""

    key: bytes
    jti: str
    forget_at: datetime


class _Claims(BaseModel):
    # RFC 9449 §4.2; further claims are allowed and mean nothing here.
    model_config = ConfigDict(strict=True, frozen=True)

    jti: Annotated[str, Field(pattern=r"^[!-~]+$", min_length=8, max_length=200)]
    htm: str
    htu: Annotated[str, Field(max_length=1000)]
    iat: Annotated[int, Field(ge=0, le=_YEAR_9999)]


def check_proof(fields: Sequence[str], *, method: str, url: str, now: datetime) -> Proof | ProofRefused:
    """The key proven by the request's `DPoP` header fields, or why none is."""
    if len(fields) != 1:
        return ProofRefused("exactly one DPoP header is needed: a proof of the key to be bound (RFC 9449)")
    token = take_apart(fields[0], max_characters=MAX_PROOF_CHARACTERS)
    if token is None:
        return ProofRefused(f"the DPoP proof is not a compact JWT of at most {MAX_PROOF_CHARACTERS} characters")
    key = _check_header(token.unverified_header)
    if isinstance(key, ProofRefused):
        return key
    if not token.is_signed_by(key):
        return ProofRefused("the DPoP proof is not signed by the key in its header")
    return _check_claims(token, key, method=method, url=url, now=now)


def _check_header(header: Mapping[str, Any]) -> bytes | ProofRefused:
    if header.get("typ") != PROOF_TYPE:
        return ProofRefused("the typ of a DPoP proof is dpop+jwt")
    if header.get("alg") != ALGORITHM:
        return ProofRefused("the alg of the DPoP proof is not Ed25519 (RFC 9864), the only one accepted here")
    jwk = header.get("jwk")
    if not isinstance(jwk, dict) or "d" in jwk:
        return ProofRefused("the DPoP proof carries its public key, and only that, in the header jwk")
    try:
        return public_from_jwk(jwk)
    except ValueError:
        return ProofRefused("the jwk of the DPoP proof is not a usable Ed25519 key (kty OKP, crv Ed25519)")


def _check_claims(token: UnverifiedJwt, key: bytes, *, method: str, url: str, now: datetime) -> Proof | ProofRefused:
    try:
        claims = _Claims.model_validate(token.unverified_claims)
    except ValidationError:
        return ProofRefused("the DPoP proof lacks jti (8 to 200 ASCII characters), htm, htu or iat (whole seconds)")
    if claims.htm != method:
        return ProofRefused(f"the htm of the DPoP proof is not {method}")
    if not _is_same_url(claims.htu, url):
        return ProofRefused(f"the htu of the DPoP proof is not {url}")
    issued_at = datetime.fromtimestamp(claims.iat, UTC)
    age_seconds = (now - issued_at).total_seconds()
    if not -limits.CLOCK_SKEW_SECONDS <= age_seconds <= PROOF_SECONDS:
        return ProofRefused(
            f"the iat of the DPoP proof is {age_seconds:.0f} s before the clock of this server, 0 to {PROOF_SECONDS} s "
            f"are accepted: make a fresh proof, and check both clocks"
        )
    return Proof(key, claims.jti, issued_at + timedelta(seconds=PROOF_SECONDS + 1))


def _is_same_url(claimed: str, url: str) -> bool:
    """RFC 9449 §4.3 item 9: query and fragment are ignored; spelling is normalised as in RFC 3986 §6.2.2–6.2.3."""
    try:
        return _normal(urlsplit(claimed)) == _normal(urlsplit(url))
    except ValueError:
        return False


def _normal(parts: SplitResult) -> tuple[str, str | None, int | None, str]:
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme), parts.path or "/"
