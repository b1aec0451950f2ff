"""JWK Sets of issuers: what is taken from one, and that a hostile one is harmless."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, RSAKey

from identity.keys import SigningKey, b64url
from identity.trust.keyset import MAX_KEY_SET_BYTES, read_key_set
from identity.trust.profiles import IssuerProfile

PROFILE = IssuerProfile(url="https://id.fatima.example")
FOREIGN = IssuerProfile(url="https://idp.example", algorithms=("RS256", "ES256"), typ="JWT")
GOOD: dict[str, Any] = {**SigningKey.generate().public_jwk(), "kid": "good", "use": "sig", "alg": "Ed25519"}


def _read(*keys: object, profile: IssuerProfile = PROFILE) -> list[str]:
    return sorted(read_key_set(json.dumps({"keys": keys}).encode(), profile))


def test_usable_keys_are_found_by_their_kid() -> None:
    assert _read(GOOD, {**SigningKey.generate().public_jwk(), "kid": "bare"}) == ["bare", "good"]


@pytest.mark.parametrize(
    "change",
    [
        {"kid": None},
        {"kid": ""},
        {"kid": 7},
        {"kid": "k" * 201},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": ["OKP"]},
        {"crv": "Ed448"},
        {"x": "AAAA"},
        {"x": "A" * 43},
        {"x": ["A"]},
        {"use": "enc"},
        {"alg": "EdDSA"},
        {"alg": "none"},
        {"d": "c2VjcmV0"},
    ],
    ids=str,
)
def test_a_key_that_cannot_be_used_is_left_out_and_the_others_stay(change: dict[str, Any]) -> None:
    assert _read({**GOOD, "kid": "bad", **change}, GOOD) == ["good"]


@pytest.mark.parametrize("odd", [None, 7, "key", [], {}, {"kid": "x"}], ids=str)
def test_what_is_no_key_is_left_out(odd: object) -> None:
    assert _read(odd, GOOD) == ["good"]


def test_a_kid_that_stands_twice_names_no_key() -> None:
    assert _read(GOOD, {**SigningKey.generate().public_jwk(), "kid": "good"}) == []


def test_keys_of_foreign_issuers_are_of_their_profile_s_types_only() -> None:
    rsa = {**RSAKey.generate_key(2048).as_dict(private=False), "kid": "rsa"}
    ec = {**ECKey.generate_key("P-256").as_dict(private=False), "kid": "ec"}
    wrong_curve = {**ECKey.generate_key("P-384").as_dict(private=False), "kid": "wrong"}
    off_the_curve = {**ec, "kid": "off", "y": ec["x"]}
    assert _read(rsa, ec, wrong_curve, off_the_curve, GOOD, profile=FOREIGN) == ["ec", "rsa"]


@pytest.mark.parametrize("modulus_bytes", [128, 4096], ids=["weak", "huge"])
def test_an_rsa_modulus_has_2048_to_4096_bits(modulus_bytes: int) -> None:
    assert _read({"kty": "RSA", "kid": "r", "n": b64url(b"\xff" * modulus_bytes), "e": "AQAB"}, profile=FOREIGN) == []


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [], "keys": []}',
        b'{"keys": [NaN]}',
        b"\xff",
        b'{"keys":' + b"[" * 20_000,
        json.dumps({"keys": [GOOD] * 33}).encode(),
        b" " * MAX_KEY_SET_BYTES + b'{"keys": []}',
    ],
    ids=lambda document: str(document[:20]),
)
def test_a_document_that_is_no_key_set_is_refused_whole(document: bytes) -> None:
    with pytest.raises(ValueError, match="."):  # noqa: RUF043 - any sentence
        read_key_set(document, PROFILE)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*GOOD, "y", "n", "e"]), inner),
    max_leaves=12,
)


@given(st.lists(_JSON, max_size=5))
def test_no_key_set_breaks_the_reader(keys: list[object]) -> None:
    for profile in (PROFILE, FOREIGN):
        read_key_set(json.dumps({"keys": keys}).encode(), profile)
