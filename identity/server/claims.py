"""ID tokens: what they say, how they are signed, and how our own are recognised (DESIGN §4).

Header `alg` Ed25519 (RFC 9864), `typ` of their own (RFC 8725 §3.11), `kid`. Claims `iss`, `sub`, one `aud`, `iat`,
`exp`, `jti`, and `cnf` with the holder's key as a JWK (RFC 7800 §3.2); nothing else. Pure.
"""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from pydantic import TypeAdapter, ValidationError

from identity.keys import SigningKey, public_jwk
from identity.trust.profiles import ID_TOKEN_TYPE
from identity.trust.tokens import UnverifiedToken, read_token
from schemas import ids, limits
from schemas.refusals import Refusal

_AUDIENCE = re.compile(r"fedci:(provider|store|controller):(.+)", re.DOTALL)
_NAMES: Mapping[str, TypeAdapter[str]] = {
    "provider": TypeAdapter(ids.ProviderName),
    "store": TypeAdapter(ids.ProviderName),
    "controller": TypeAdapter(ids.TenantId),
}
AUDIENCE_GRAMMAR = "fedci:provider:NAME, fedci:store:NAME or fedci:controller:TENANT"


@dataclass(frozen=True)
class IdTokenFacts:
    """What one ID token says; instants are whole seconds."""

    iss: str
    sub: str
    aud: str
    issued_at: datetime
    expires_at: datetime
    jti: str
    holder_key: bytes

    def claims(self) -> dict[str, Any]:
        return {
            "iss": self.iss,
            "sub": self.sub,
            "aud": self.aud,
            "iat": int(self.issued_at.timestamp()),
            "exp": int(self.expires_at.timestamp()),
            "jti": self.jti,
            "cnf": {"jwk": public_jwk(self.holder_key)},
        }


def new_jti() -> str:
    """128 random bits: no two tokens share one."""
    return secrets.token_urlsafe(16)


def is_audience(text: str) -> bool:
    """Whether a token can be for this party; that it exists is not this server's to know."""
    match = _AUDIENCE.fullmatch(text)
    if match is None:
        return False
    try:
        _NAMES[match[1]].validate_python(match[2])
    except ValidationError:
        return False
    return True


def sign(claims: Mapping[str, Any], key: SigningKey, typ: str) -> str:
    """A compact JWT of this issuer."""
    header = {"alg": "Ed25519", "typ": typ, "kid": key.thumbprint}
    payload = json.dumps(claims, separators=(",", ":"))
    return jws.serialize_compact(header, payload, OKPKey.import_key({**key.private_jwk()}), algorithms=["Ed25519"])


def read_unverified(token: str) -> UnverifiedToken | None:
    """A text that looks like one of our ID tokens, taken apart; None for everything else."""
    if len(token) > limits.TOKEN_BYTES:
        return None
    parts = read_token(token.encode("utf-8"))
    if isinstance(parts, Refusal) or parts.header.get("typ") != ID_TOKEN_TYPE:
        return None
    named = (parts.header.get("kid"), parts.unverified_claims.get("jti"))
    return parts if all(isinstance(name, str) for name in named) else None


def is_signed(token: UnverifiedToken, public: bytes) -> bool:
    try:
        jws.deserialize_compact(token.raw, OKPKey.import_key({**public_jwk(public)}), algorithms=["Ed25519"])
    except (JoseError, ValueError):
        return False
    return True
