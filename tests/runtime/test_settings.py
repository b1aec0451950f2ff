"""What a person is told about a settings file that cannot be used."""

from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from runtime.settings import AmqpUrl, HttpUrl, Listen, Settings, SettingsError, TlsFiles, load


class Policy(StrEnum):
    ADMIT = "admit"
    DENY = "deny"


class Issuer(Settings):
    url: HttpUrl
    policy: Policy = Policy.DENY
    stale_seconds: int = 300


class Desk(Settings):
    listen: Listen
    name: str = "alice"
    bus: AmqpUrl = "amqp://127.0.0.1"
    issuers: tuple[Issuer, ...] = ()
    limits: dict[str, Issuer] = Field(default_factory=dict)
    price: Decimal = Decimal(0)
    data: Path = Path()
    tls: TlsFiles | None = None
    kind: Literal["desk", "store"] = "desk"
    wait: timedelta = timedelta(seconds=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "desk.toml"


def problems(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(path, Desk)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_whole_file_becomes_a_frozen_model(path: Path) -> None:
    path.write_text(
        'listen = "127.0.0.1:0"\nprice = "0.10"\ndata = "x/y"\n'
        '[[issuers]]\nurl = "https://fatima.example"\npolicy = "admit"\n'
        '[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n',
        encoding="utf-8",
    )
    desk = load(path, Desk)
    assert desk.listen == Listen("127.0.0.1", 0)
    assert desk.issuers == (Issuer(url="https://fatima.example", policy=Policy.ADMIT),)
    assert (desk.price, desk.data) == (Decimal("0.10"), Path("x/y"))
    assert desk.tls == TlsFiles(certificate=Path("c.pem"), key=Path("k.pem"))
    with pytest.raises(ValidationError):
        desk.name = "eve"  # type: ignore[misc]  # frozen, which is what is shown


def test_a_missing_file_says_how_to_make_one(path: Path) -> None:
    with pytest.raises(SettingsError, match="`init` command"):
        load(path, Desk)


def test_a_directory_in_its_place_is_an_error_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Is a directory"):
        load(tmp_path, Desk)


def test_bad_toml_names_line_and_column(path: Path) -> None:
    assert f"{path}:2:8: not valid TOML" in problems(path, 'name = "x"\nlisten 7')
    assert f"{path}:2:1: not valid TOML" in problems(path, "a = 1\nb = [")


def test_text_that_is_not_utf8_is_refused(path: Path) -> None:
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(SettingsError, match="not UTF-8 text at byte 8"):
        load(path, Desk)


def test_every_problem_is_told_at_once(path: Path) -> None:
    message = problems(path, 'name = 7\n[[issuers]]\nstale_seconds = "300"\n')
    assert "4 problem(s)" in message
    assert "listen: missing" in message
    assert "name: expected a valid string, found a number" in message
    assert "issuers[0].url: missing" in message
    assert "issuers[0].stale_seconds: expected a valid integer, found a string" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('listne = "x"', "listne: unknown key; did you mean `listen`?"),
        ("[[issuers]]\nstale_second = 1", "issuers[0].stale_second: unknown key; did you mean `stale_seconds`?"),
        ("[limits.big]\npolcy = 1", "limits.big.polcy: unknown key; did you mean `policy`?"),
        ('[tls]\ncertificat = "x"', "tls.certificat: unknown key; did you mean `certificate`?"),
        ("[tls]\nzzz = 1", "tls.zzz: unknown key; known here: certificate, key"),
    ],
)
def test_an_unknown_key_gets_the_nearest_known_one(path: Path, text: str, message: str) -> None:
    assert message in problems(path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listen = 8080", 'listen: expected an address like "127.0.0.1:8080"'),
        ('kind = "worker"', "kind: expected 'desk' or 'store'"),
        ('[[issuers]]\nurl = "http://fatima.example"', "issuers[0].url: plaintext http:// to fatima.example"),
        ('bus = "amqp://u:hunter2@rabbit.example"', "use amqps://"),
        ('[[issuers]]\nurl="https://x"\npolicy = "hunter2"', "issuers[0].policy: expected 'admit' or 'deny'"),
        ("name = 2026-01-01", "listen: missing"),
    ],
)
def test_a_wrong_value_is_told_without_repeating_it(path: Path, text: str, message: str) -> None:
    found = problems(path, text)
    assert message in found
    assert "hunter2" not in found


@given(text=st.text(max_size=60))
def test_any_text_gives_settings_or_a_settings_error(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError):
        load(path, Desk)
