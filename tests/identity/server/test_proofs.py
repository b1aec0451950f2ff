"""Each way in which a DPoP proof can be wrong (RFC 9449 §4.3)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.keys import SigningKey
from identity.server.proofs import MAX_PROOF_CHARACTERS, Proof, ProofRefused, check_proof
from tests.clocks import START, ManualClock
from tests.identity.server.issuing import URL, Holder

RSA = {"kty": "RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx", "e": "AQAB"}
SMALL_ORDER = {"kty": "OKP", "crv": "Ed25519", "x": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}


@pytest.fixture
def dinah(clock: ManualClock) -> Holder:
    return Holder("dinah", "", SigningKey.generate(), clock)


def check(*fields: str, url: str = f"{URL}/token") -> Proof | ProofRefused:
    return check_proof(fields, method="POST", url=url, now=START)


def why(*fields: str) -> str:
    answer = check(*fields)
    assert isinstance(answer, ProofRefused)
    # RFC 6749 §5.2 allows nothing else in an error_description.
    assert all(" " <= character <= "~" and character not in '"\\' for character in answer.description)
    return answer.description


def test_a_sound_proof_shows_its_key_and_how_long_it_must_be_remembered(dinah: Holder) -> None:
    proof = check(dinah.proof())
    assert isinstance(proof, Proof)
    assert proof.key == dinah.key.public
    assert proof.forget_at > START + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"typ": "JWT"}, "typ"),
        ({"typ": None}, "typ"),
        ({"alg": "none"}, "alg"),
        ({"alg": "HS256"}, "alg"),
        ({"alg": "RS256", "jwk": RSA}, "alg"),
        ({"alg": "EdDSA"}, "alg"),
        ({"jwk": RSA}, "jwk"),
        ({"jwk": None}, "jwk"),
        ({"jwk": "a key"}, "jwk"),
        ({"jwk": SMALL_ORDER}, "jwk"),
        ({"jwk": SigningKey.generate().private_jwk()}, "only that"),
        ({"jwk": SigningKey.generate().public_jwk()}, "not signed"),
        ({"crit": ["x"], "x": 1}, "not signed"),
    ],
)
def test_a_proof_with_a_wrong_header_is_refused(dinah: Holder, header: dict[str, Any], reason: str) -> None:
    assert reason in why(dinah.proof(header=header))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"htm": "GET"}, "htm"),
        ({"htm": "post"}, "htm"),
        ({"htu": f"{URL}/revoke"}, "htu"),
        ({"htu": "http://127.0.0.1:8102/token"}, "htu"),
        ({"htu": "https://127.0.0.1:8101/token"}, "htu"),
        ({"htu": "http://[bad/token"}, "htu"),
        ({"htu": "http://127.0.0.1:99999999/token"}, "htu"),
        ({"iat": int(START.timestamp()) - 61}, "61 s"),
        ({"iat": int(START.timestamp()) + 31}, "-31 s"),
        ({"iat": str(int(START.timestamp()))}, "iat"),
        ({"iat": START.timestamp() + 0.5}, "iat"),
        ({"iat": True}, "iat"),
        ({"iat": 10**20}, "iat"),
        ({"jti": "short"}, "jti"),
        ({"jti": "x" * 201}, "jti"),
        ({"jti": "half a pair \ud800"}, "jti"),
        *(({name: None}, name) for name in ("jti", "htm", "htu", "iat")),
    ],
)
def test_a_proof_with_wrong_claims_is_refused(dinah: Holder, claims: dict[str, Any], reason: str) -> None:
    assert reason in why(dinah.proof(**claims))


@pytest.mark.parametrize(
    "spelling", ["HTTP://127.0.0.1:8101/token", "http://127.0.0.1:8101/token?a=b#c", "http://127.0.0.1:08101/token"]
)
def test_another_spelling_of_the_same_url_is_accepted(dinah: Holder, spelling: str) -> None:
    assert isinstance(check(dinah.proof(htu=spelling)), Proof)


def test_the_default_port_may_be_written_or_left_out(dinah: Holder) -> None:
    proof = dinah.proof(htu="https://id.example:443/token")
    assert isinstance(check(proof, url="https://id.example/token"), Proof)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda proof: "",
        lambda proof: proof + ".x",
        lambda proof: proof.replace(".", ""),
        lambda proof: proof[: proof.rindex(".") + 1],
        lambda proof: proof[:-10] + "A" * 10,
        lambda proof: "é" + proof,
        lambda proof: "e30." * 2 + "A" * 86,
        lambda proof: proof + "A" * MAX_PROOF_CHARACTERS,
    ],
)
def test_what_is_no_signed_proof_is_refused(dinah: Holder, spoil: Callable[[str], str]) -> None:
    assert why(spoil(dinah.proof()))


def test_a_claim_that_stands_twice_is_refused(dinah: Holder) -> None:
    from tests.issuers import sign_jwt

    claims = b'{"jti":"12345678","htm":"GET","htm":"POST","htu":"%b/token","iat":%d}' % (
        URL.encode(),
        int(START.timestamp()),
    )
    assert why(sign_jwt(dinah.key, dinah.header(), claims))


def test_no_proof_and_two_proofs_are_refused(dinah: Holder) -> None:
    assert "exactly one" in why()
    assert "exactly one" in why(dinah.proof(), dinah.proof())


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_proof_with_any_byte_changed_never_proves_another_key(position: int, change: int) -> None:
    dinah = Holder("dinah", "", SigningKey(_KEY.private), ManualClock())
    proof = dinah.proof()
    index = position % len(proof)
    spoilt = proof[:index] + chr(ord(proof[index]) ^ change) + proof[index + 1 :]
    answer = check(spoilt)
    assert isinstance(answer, ProofRefused) or answer.key == _KEY.public


_KEY = SigningKey.generate()
