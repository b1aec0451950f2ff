"""JSON Web Tokens as this server makes and reads them (RFC 7515, RFC 7519): compact, signed with Ed25519 (RFC 9864).

Header and payload are read as JSON with one reading only (`identity.strict_json`); joserfc signs and checks. This house
stands apart from `identity.trust`, so that an identity server needs no HTTP client; a test holds the two together.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from identity.keys import SigningKey, public_jwk
from identity.strict_json import read_object

ALGORITHM = "Ed25519"


@dataclass(frozen=True)
class UnverifiedJwt:
    """A compact JWT taken apart; nothing in it has been checked but its shape."""

    raw: bytes
    unverified_header: Mapping[str, Any]
    unverified_claims: Mapping[str, Any]

    def is_signed_by(self, public: bytes) -> bool:
        """Whether this Ed25519 key signed it, under the one algorithm and with no header that joserfc does not know."""
        try:
            jws.deserialize_compact(self.raw, OKPKey.import_key({**public_jwk(public)}), algorithms=[ALGORITHM])
        except (JoseError, ValueError):
            return False
        return True


def take_apart(text: str, *, max_characters: int) -> UnverifiedJwt | None:
    """A compact JWT in its parts; None for any other text."""
    if len(text) > max_characters or text.count(".") != 2:
        return None
    try:
        raw = text.encode("ascii")
        header, payload, _ = (_decode(part) for part in raw.split(b"."))
        return UnverifiedJwt(raw, read_object(header), read_object(payload))
    except ValueError:
        return None


def sign(claims: Mapping[str, Any], key: SigningKey, *, typ: str) -> str:
    """A JWT of this issuer, whose `kid` is the key's thumbprint."""
    header = {"alg": ALGORITHM, "typ": typ, "kid": key.thumbprint}
    payload = json.dumps(claims, separators=(",", ":"))
    return jws.serialize_compact(header, payload, OKPKey.import_key({**key.private_jwk()}), algorithms=[ALGORITHM])


def _decode(part: bytes) -> bytes:
    try:
        return base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error
