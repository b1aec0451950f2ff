"""The envelope: one signed wrapper around every message (DESIGN §5).

On the wire it is a msgpack array `[1, type, payload, signature, token]`. The signature is Ed25519 (RFC 8032) over the
pre-authentication encoding of DSSE (secure-systems-lab/dsse, protocol.md): it covers the type and the exact payload
bytes, so neither can be changed, nor one type be read as another. The token, where the type carries one, is bound by
its SHA-256 inside the payload (`ath`).

This module splits and joins bytes and checks one signature. Whose key it is, it does not know: see `identity.trust`.
"""

from dataclasses import dataclass

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schemas import limits, wire
from schemas.ids import sha256_hex
from schemas.refusals import Reason, Refusal

FRAME_VERSION = 1
SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class UnverifiedFrame:
    """An envelope taken apart; nothing in it has been checked but its shape."""

    type: str
    payload: bytes
    signature: bytes
    token: str | None
    raw: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the whole envelope: how statements are cited and duplicates are told from equivocation."""
        return sha256_hex(self.raw)

    def is_signed_by(self, public_key: bytes) -> bool:
        """Whether the raw 32-byte Ed25519 `public_key` signed exactly this type and payload."""
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(self.signature, pae(self.type, self.payload))
        except (InvalidSignature, ValueError):
            return False
        return True


def pae(message_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: `"DSSEv1" SP len(type) SP type SP len(payload) SP payload`."""
    kind = message_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(message: wire.Message, key: Ed25519PrivateKey, token: str | None = None) -> bytes:
    """Sign a message and wrap it; the bytes go on the wire as they are.

    Raises `ValueError` where the envelope would be over its type's limit, or its token missing or out of place: this
    is our own fault, found before anything is sent.
    """
    if (token is not None) != message.CARRIES_TOKEN:
        raise ValueError(f"{message.TYPE} {'carries' if message.CARRIES_TOKEN else 'does not carry'} a token")
    payload = message.to_payload()
    signature = key.sign(pae(message.TYPE, payload))
    raw: bytes = msgpack.packb([FRAME_VERSION, message.TYPE, payload, signature, token], use_bin_type=True)
    if len(raw) > message.MAX_BYTES:
        raise ValueError(f"{message.TYPE} is {len(raw)} bytes, over its limit of {message.MAX_BYTES}")
    return raw


def split(raw: bytes, max_bytes: int = limits.BUS_MESSAGE_BYTES) -> UnverifiedFrame | Refusal:
    """Take an envelope apart without believing any of it."""
    if len(raw) > max_bytes:
        return Refusal(Reason.TOO_LARGE, f"{len(raw)} bytes, at most {max_bytes} are read")
    try:
        parts = wire.unpack(raw)
    except ValueError as error:
        return Refusal(Reason.MALFORMED_FRAME, str(error))
    if not isinstance(parts, tuple) or len(parts) != 5:
        return Refusal(Reason.MALFORMED_FRAME, "an envelope is an array of five")
    version, message_type, payload, signature, token = parts
    if type(version) is not int or version != FRAME_VERSION:
        return Refusal(Reason.UNKNOWN_VERSION, f"envelope version {FRAME_VERSION} is read here")
    if not isinstance(message_type, str) or not 0 < len(message_type) <= limits.TYPE_CHARACTERS:
        return Refusal(Reason.MALFORMED_FRAME, "the type is a short text")
    if not isinstance(payload, bytes) or not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        return Refusal(Reason.MALFORMED_FRAME, "payload and signature are bytes, the signature 64 of them")
    if token is not None and (not isinstance(token, str) or len(token) > limits.TOKEN_BYTES):
        return Refusal(
            Reason.MALFORMED_FRAME, f"the token is a text of at most {limits.TOKEN_BYTES} characters, or nil"
        )
    return UnverifiedFrame(message_type, payload, signature, token, bytes(raw))


def token_hash(token: str) -> str:
    """`ath`: the SHA-256 that ties a payload to the token beside it (after RFC 9449 §4.2)."""
    return sha256_hex(token.encode("utf-8"))
