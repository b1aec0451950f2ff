"""Secrets sealed for one claim open for its key, attempt and claim, and for nothing else."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from schemas import sealing

KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()


@given(st.binary(max_size=2000))
def test_the_claims_key_opens_what_was_sealed(plaintext: bytes) -> None:
    box = sealing.seal_for_claim(plaintext, PUBLIC, attempt="a1", claim="c1")
    assert sealing.open_for_claim(box, KEY, attempt="a1", claim="c1") == plaintext


def test_another_claim_attempt_or_key_opens_nothing() -> None:
    box = sealing.seal_for_claim(b"secret", PUBLIC, attempt="a1", claim="c1")
    assert sealing.open_for_claim(box, KEY, attempt="a1", claim="c2") is None
    assert sealing.open_for_claim(box, KEY, attempt="a2", claim="c1") is None
    assert sealing.open_for_claim(box, X25519PrivateKey.generate(), attempt="a1", claim="c1") is None


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_box_opens_nothing(position: int, noise: int) -> None:
    box = bytearray(sealing.seal_for_claim(b"secret", PUBLIC, attempt="a1", claim="c1"))
    box[position % len(box)] ^= noise
    assert sealing.open_for_claim(bytes(box), KEY, attempt="a1", claim="c1") is None


@given(st.binary(max_size=100))
def test_garbage_opens_nothing(box: bytes) -> None:
    assert sealing.open_for_claim(box, KEY, attempt="a1", claim="c1") is None
