"""Signing keys: in files, as JWKs, and the ones that are refused."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OKPKey

from identity.keys import KeyFileError, SigningKey, b64url, check_public, public_from_jwk, thumbprint
from runtime.secrets import SecretError

P = 2**255 - 19


def test_a_saved_key_is_the_same_key_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    key = SigningKey.generate()
    key.save(tmp_path / "key.pem")
    assert SigningKey.load(tmp_path / "key.pem").public == key.public
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600


def test_saving_never_overwrites_a_key(tmp_path: Path) -> None:
    SigningKey.generate().save(tmp_path / "key.pem")
    with pytest.raises(SecretError):
        SigningKey.generate().save(tmp_path / "key.pem")


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    SigningKey.generate().save(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o644)
    with pytest.raises(SecretError, match="0644"):
        SigningKey.load(tmp_path / "key.pem")


def test_a_file_that_holds_another_kind_of_key_is_refused_by_name(tmp_path: Path) -> None:
    other = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(KeyFileError, match=r"agent\.pem"):
        SigningKey.from_pem(other, where="agent.pem")
    with pytest.raises(KeyFileError):
        SigningKey.from_pem(b"not a key")


def test_the_private_half_is_not_in_the_repr() -> None:
    key = SigningKey.generate()
    assert key.private_jwk()["d"] not in repr(key)
    assert key.thumbprint in repr(key)


def test_jwks_and_thumbprints_are_those_of_another_implementation() -> None:
    key = SigningKey.generate()
    theirs = OKPKey.import_key({**key.private_jwk()})
    assert theirs.as_dict(private=False) | key.public_jwk() == theirs.as_dict(private=False)
    assert theirs.thumbprint() == key.thumbprint == thumbprint(key.public)
    assert SigningKey.from_private_jwk(key.private_jwk()).public == key.public


def test_the_thumbprint_of_rfc_8037_appendix_a() -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert thumbprint(public_from_jwk(jwk)) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_a_private_jwk_whose_halves_do_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match="public half"):
        SigningKey.from_private_jwk(SigningKey.generate().private_jwk() | SigningKey.generate().public_jwk())


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "EC"},
        {"crv": "X25519"},
        {"x": None},
        {"x": 7},
        {"x": "AAAA"},
        {"x": "!" * 43},
        {"x": "é" * 43},
        {"x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURp"},
    ],
    ids=str,
)
def test_a_jwk_that_is_not_exactly_an_ed25519_key_is_refused(change: dict[str, object]) -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    with pytest.raises(ValueError, match=r"Ed25519|base64url|past its end"):
        public_from_jwk(jwk | change)


def _multiples_of_a_torsion_point() -> list[bytes]:
    """All points of small order, found by the curve's arithmetic and not by our list (RFC 8032 §5.1)."""
    d = -121665 * pow(121666, -1, P) % P

    def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        product = d * a[0] * b[0] * a[1] * b[1]
        x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, P)
        y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P)
        return x % P, y % P

    # One point of order 8; that its multiples are eight points shows that it is one.
    y = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
    square = (y * y - 1) * pow(d * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    points, point = [], (x, y)
    for _ in range(8):
        points.append((point[1] | (point[0] & 1) << 255).to_bytes(32, "little"))
        point = add(point, (x, y))
    assert len(set(points)) == 8
    assert (1).to_bytes(32, "little") in points
    return points


@pytest.mark.parametrize("point", _multiples_of_a_torsion_point(), ids=bytes.hex)
def test_every_point_of_small_order_is_refused(point: bytes) -> None:
    with pytest.raises(ValueError, match="small order"):
        check_public(point)


@given(st.binary(min_size=32, max_size=32))
def test_a_key_reads_back_from_its_jwk(seed: bytes) -> None:
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(seed))
    assert public_from_jwk(key.public_jwk()) == key.public
    assert SigningKey.from_private_jwk({**key.public_jwk(), "d": b64url(seed)}).thumbprint == key.thumbprint
