"""An issuer's public keys, read from its JWK Set (RFC 7517); a hostile set is harmless.

Of a set only keys are taken that the issuer's profile can use: with a `kid`, of a type that one of its algorithms
needs, meant for signatures, without a private half. A `kid` that stands twice names no key at all, because two readers
could take two keys. RSA moduli are 2048 to 4096 bits: shorter ones are weak, longer ones are a way to burn our time.
What is left out is left out silently: other parties' keys are not ours to complain about, and an ID token that names
one is refused.

Pure; fetching is in `watch`.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from identity.keys import public_from_jwk
from identity.strict_json import read_object
from identity.trust.profiles import Algorithm, IssuerProfile

MAX_KEYS = 32
MAX_KEY_SET_BYTES = 64 * 1024
MAX_KID_CHARACTERS = 200
_RSA_MODULUS_CHARACTERS = (342, 684)  # base64url of 256 and of 512 bytes

_PUBLIC_MEMBERS = {"OKP": ("crv", "x"), "EC": ("crv", "x", "y"), "RSA": ("n", "e")}
_NEEDS: Mapping[Algorithm, tuple[str, str | None]] = {
    "Ed25519": ("OKP", "Ed25519"),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "RS256": ("RSA", None),
    "PS256": ("RSA", None),
}


@dataclass(frozen=True)
class IssuerKey:
    """One public key of an issuer, and the algorithms for which its profile would use it."""

    kid: str
    jwk: str
    """The public members in JSON: what an auditor keeps beside a statement (DESIGN §5)."""
    algorithms: frozenset[Algorithm]
    key: Key = field(compare=False, repr=False)


def read_key_set(document: bytes, profile: IssuerProfile) -> Mapping[str, IssuerKey]:
    """The usable keys of a JWK Set by `kid`; raises `ValueError` where the document is no such set."""
    if len(document) > MAX_KEY_SET_BYTES:
        raise ValueError(f"over {MAX_KEY_SET_BYTES} bytes")
    keys = read_object(document).get("keys")
    if not isinstance(keys, list):
        raise ValueError("not a JWK Set: `keys` is no list")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"more than {MAX_KEYS} keys")
    named = [jwk for jwk in keys if isinstance(jwk, dict) and _is_kid(jwk.get("kid"))]
    times = Counter(jwk["kid"] for jwk in named)
    usable = (_read_key(jwk, profile) for jwk in named if times[jwk["kid"]] == 1)
    return {key.kid: key for key in usable if key is not None}


def _is_kid(kid: object) -> bool:
    return isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARACTERS


def _read_key(jwk: dict[str, Any], profile: IssuerProfile) -> IssuerKey | None:
    algorithms = frozenset(name for name in profile.algorithms if _fits(jwk, name))
    if not algorithms or "d" in jwk or jwk.get("use", "sig") != "sig":
        return None
    public = {name: jwk.get(name) for name in ("kty", *_PUBLIC_MEMBERS[jwk["kty"]])}
    if not all(isinstance(value, str) for value in public.values()):
        return None
    try:
        key = _import_key({name: str(value) for name, value in public.items()})
    except (JoseError, ValueError, TypeError):
        return None
    return IssuerKey(jwk["kid"], json.dumps(public, sort_keys=True), algorithms, key)


def _fits(jwk: Mapping[str, Any], algorithm: Algorithm) -> bool:
    kind, curve = _NEEDS[algorithm]
    return (
        jwk.get("kty") == kind and (curve is None or jwk.get("crv") == curve) and jwk.get("alg", algorithm) == algorithm
    )


def _import_key(public: dict[str, str]) -> Key:
    if public["kty"] == "OKP":
        public_from_jwk(public)
        return OKPKey.import_key({**public})
    if public["kty"] == "EC":
        return ECKey.import_key({**public})
    shortest, longest = _RSA_MODULUS_CHARACTERS
    if not shortest <= len(public["n"]) <= longest or len(public["e"]) > 8:
        raise ValueError("an RSA key of 2048 to 4096 bits is expected")
    return RSAKey.import_key({**public})
