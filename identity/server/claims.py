"""ID tokens: what they say (DESIGN §4).

Header `alg` Ed25519 (RFC 9864), `typ` of their own (RFC 8725 §3.11), `kid`. Claims `iss`, `sub`, one `aud`, `iat`,
`exp`, `jti`, and `cnf` with the holder's key as a JWK (RFC 7800 §3.2); nothing else. Pure.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from identity.keys import public_jwk
from schemas import ids

ID_TOKEN_TYPE = "fedci-id+jwt"  # noqa: S105  # a media type

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
