"""Issuers as an operator lists them: what can be configured, and what cannot."""

from pathlib import Path
from typing import Any

import pytest

from identity.trust.profiles import IssuerProfile, is_same_origin
from runtime.settings import Settings, SettingsError, load


class _Trusting(Settings):
    issuers: tuple[IssuerProfile, ...]


def _load(tmp_path: Path, text: str) -> IssuerProfile:
    path = tmp_path / "desk.toml"
    path.write_text(f"[[issuers]]\n{text}\n")
    (profile,) = load(path, _Trusting).issuers
    return profile


def test_a_fedci_issuer_needs_its_url_and_nothing_else(tmp_path: Path) -> None:
    profile = _load(tmp_path, 'url = "https://id.fatima.example"')
    assert profile.algorithms == ("Ed25519",)
    assert (profile.typ, profile.binding, profile.revocation) == ("fedci-id+jwt", "cnf-jwk", "list")
    assert profile.discovery_url == "https://id.fatima.example/.well-known/openid-configuration"
    assert profile.revocation_list_url == "https://id.fatima.example/revocations"
    assert profile.lifetime_cap_seconds == 24 * 3600


def test_a_foreign_issuer_is_described_by_its_profile(tmp_path: Path) -> None:
    profile = _load(
        tmp_path,
        'url = "https://idp.example/realm/"\nalgorithms = ["RS256"]\ntyp = "JWT"\nsubject_claim = "email"\n'
        'revocation = "none-short-lived"\njwks_url = "https://keys.example/set"',
    )
    assert profile.discovery_url == "https://idp.example/realm/.well-known/openid-configuration"
    assert profile.lifetime_cap_seconds == 900


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "url: missing"),
        ('url = "http://id.fatima.example"', "plaintext"),
        ('url = "ftp://id.fatima.example"', "https"),
        ('url = "https://id.fatima.example"\nalgorithms = ["none"]', "algorithms"),
        ('url = "https://id.fatima.example"\nalgorithms = ["HS256"]', "algorithms"),
        ('url = "https://id.fatima.example"\nalgorithms = []', "algorithms"),
        ('url = "https://id.fatima.example"\nverify = false', "unknown key"),
        ('url = "https://id.fatima.example"\nrevocation = "none"', "revocation"),
        ('url = "https://id.fatima.example"\nstale_after_seconds = 0', "stale_after_seconds"),
        ('url = "https://id.fatima.example"\nmax_token_seconds = 100_000', "max_token_seconds"),
        (
            'url = "https://id.fatima.example"\nrevocation = "none-short-lived"\nmax_token_seconds = 3600',
            "without revocation",
        ),
    ],
)
def test_what_would_weaken_trust_cannot_be_configured(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        _load(tmp_path, text)


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        ("https://id.example/jwks", True),
        ("https://id.example:443/jwks", True),
        ("https://ID.example/jwks", True),
        ("https://id.example:8443/jwks", False),
        ("http://id.example/jwks", False),
        ("https://id.example.evil/jwks", False),
        ("https://id.example@evil/jwks", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(other: str, is_same: Any) -> None:
    assert is_same_origin("https://id.example/", other) is is_same
