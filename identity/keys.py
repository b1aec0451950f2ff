"""Ed25519 signing keys: made, kept in a file, and written as JWKs.

A private key is a PEM file (PKCS #8, RFC 8410) of mode 0600; a public key is its 32 raw bytes (RFC 8032), or the JWK
`{"kty": "OKP", "crv": "Ed25519", "x": ...}` (RFC 8037) whose thumbprint (RFC 7638) is its name. Keys of small order are
refused: under such a key one signature fits many messages, so that its holder could deny what it signed.

It knows nothing of whose key it is, nor of rotation.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from runtime.errors import OurFault
from runtime.secrets import read_secret, write_secret

KEY_BYTES = 32
_B64URL_CHARACTERS = 43

# The y coordinates of the eight points of small order, canonical or not, the sign bit (of x) left out.
_SMALL_ORDER = frozenset(
    bytes.fromhex(y)
    for y in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)


class KeyFileError(OurFault):
    """A key file does not hold an Ed25519 private key."""


class SigningKey:
    """An Ed25519 key pair. Its `repr` shows the thumbprint, never the private half."""

    __slots__ = ("private", "public", "thumbprint")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self.private = private
        self.public: bytes = private.public_key().public_bytes_raw()
        self.thumbprint: str = thumbprint(self.public)

    @classmethod
    def generate(cls) -> Self:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key file; raises `KeyFileError`, or `runtime.secrets.SecretError` where others could read it."""
        return cls.from_pem(read_secret(path), where=str(path))

    @classmethod
    def from_pem(cls, pem: bytes, *, where: str = "") -> Self:
        """Read a PEM private key; `where` names its place in the error."""
        try:
            private = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyFileError(
                "this is not an unencrypted Ed25519 private key in PEM",
                where=where,
                remedy="Restore it from your backup, or make a new one with the command that owns it.",
            )
        return cls(private)

    def save(self, path: Path) -> None:
        """Write a key file of mode 0600; raises `SecretError` where a file is already there."""
        write_secret(path, self.to_pem())

    def to_pem(self) -> bytes:
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(data)

    def public_jwk(self) -> dict[str, str]:
        return public_jwk(self.public)

    def private_jwk(self) -> dict[str, str]:
        """The JWK with its private half `d`: for a JOSE library, never for the wire or a log."""
        return {**self.public_jwk(), "d": b64url(self.private.private_bytes_raw())}

    @classmethod
    def from_private_jwk(cls, jwk: Mapping[str, object]) -> Self:
        """Read a private JWK; raises `ValueError` where `d` and `x` are not one Ed25519 key."""
        key = cls(Ed25519PrivateKey.from_private_bytes(_read_member(jwk, "d")))
        if key.public != public_from_jwk(jwk):
            raise ValueError("`x` is not the public half of `d`")
        return key

    def __repr__(self) -> str:
        return f"SigningKey({self.thumbprint})"


def b64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def public_jwk(public: bytes) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": b64url(public)}


def thumbprint(public: bytes) -> str:
    """The RFC 7638 thumbprint of the JWK: its required members in lexical order (RFC 8037 §2), SHA-256, base64url."""
    canonical = f'{{"crv":"Ed25519","kty":"OKP","x":"{b64url(public)}"}}'
    return b64url(hashlib.sha256(canonical.encode("ascii")).digest())


def fingerprint(public: bytes) -> str:
    """What people compare: SHA-256 of the raw key in hexadecimal, in groups of four."""
    digest = hashlib.sha256(public).hexdigest()
    return " ".join(digest[start : start + 4] for start in range(0, len(digest), 4))


def public_from_jwk(jwk: Mapping[str, object]) -> bytes:
    """The 32 raw bytes of an Ed25519 JWK; raises `ValueError` with what is wrong with it."""
    if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
        raise ValueError("expected an Ed25519 key (kty OKP, crv Ed25519)")
    public = _read_member(jwk, "x")
    check_public(public)
    return public


def public_from_b64url(text: str) -> bytes:
    """The raw bytes of a public key as people pass it on; raises `ValueError` with what is wrong with it."""
    return public_from_jwk({"kty": "OKP", "crv": "Ed25519", "x": text})


def check_public(public: bytes) -> None:
    """Raise `ValueError` unless these are the raw bytes of a usable Ed25519 public key."""
    if len(public) != KEY_BYTES:
        raise ValueError("an Ed25519 public key has 32 bytes")
    if public[:-1] + bytes([public[-1] & 0x7F]) in _SMALL_ORDER:
        raise ValueError("this Ed25519 key has small order and proves nothing")
    Ed25519PublicKey.from_public_bytes(public)


def is_usable_public(public: bytes) -> bool:
    try:
        check_public(public)
    except ValueError:
        return False
    return True


def _read_member(jwk: Mapping[str, object], name: str) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str) or len(text) != _B64URL_CHARACTERS:
        raise ValueError(f"`{name}` is 32 bytes in base64url")
    try:
        data = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(f"`{name}` is 32 bytes in base64url") from None
    if b64url(data) != text:
        raise ValueError(f"`{name}` has bits set past its end")
    return data
