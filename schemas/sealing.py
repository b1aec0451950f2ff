"""Secrets for one claim only: HPKE (RFC 9180) to the worker's one-time key.

Base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305. `info` binds the box to its attempt and claim, so
that a box moved to another claim does not open. Who sealed it is not said here: the box travels inside a signed grant.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def _info(attempt: str, claim: str) -> bytes:
    return b"fedci.grant/1\n%b\n%b" % (attempt.encode("ascii"), claim.encode("ascii"))


def is_sealable_to(grant_key: bytes) -> bool:
    """Whether a box can be sealed to this key: a point of small order gives no secret (RFC 7748 §6.1)."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(grant_key))
    except ValueError:
        return False
    return True


def seal_for_claim(plaintext: bytes, grant_key: bytes, *, attempt: str, claim: str) -> bytes:
    """Encrypt for the holder of the one-time key `grant_key` (32 raw bytes) of this claim."""
    return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(grant_key), _info(attempt, claim))


def open_for_claim(box: bytes, key: X25519PrivateKey, *, attempt: str, claim: str) -> bytes | None:
    """The plaintext, or None when the box was not sealed to this key for this attempt and claim."""
    try:
        return _SUITE.decrypt(box, key, _info(attempt, claim))
    except (InvalidTag, ValueError):
        return None
