"""What the operator may do, what is written down about it, and how the directory is kept."""

import sqlite3
import stat
import tomllib
from pathlib import Path

import pytest

from identity.server import administration, api_tokens
from identity.server.administration import NotDone
from identity.server.failures import Caller, FailureBrake
from identity.server.settings import IdentitySettings, new_settings_text
from identity.server.store import read
from identity.server.tables import Base
from identity.server.wiring import MIGRATIONS, initialise
from runtime import migrations
from runtime.errors import OurFault
from runtime.settings import SettingsError, load
from tests.clocks import ManualClock
from tests.identity.server.issuing import URL, Holder, Server


@pytest.mark.parametrize("name", ["", "Dinah", "dinah:x", "-dinah", "dinah\n", "a" * 41, "../dinah"])
async def test_a_name_that_could_be_misread_is_refused(server: Server, name: str) -> None:
    with pytest.raises(NotDone, match="is no account name"):
        await server.operate(administration.add_account, name)


async def test_a_name_is_given_once(server: Server, dinah: Holder) -> None:
    await server.operate(administration.disable_account, "dinah")
    with pytest.raises(NotDone, match="never reused"):
        await server.operate(administration.add_account, "dinah")


@pytest.mark.parametrize(
    "act",
    [
        administration.disable_account,
        administration.enable_account,
        administration.rekey_account,
        administration.issue_api_token,
    ],
)
async def test_nothing_is_done_to_an_account_that_does_not_exist(server: Server, act: object) -> None:
    with pytest.raises(NotDone, match="account list"):
        await server.operate(act, "nobody")  # type: ignore[arg-type]
    assert server.rows("SELECT count(*) FROM audit") == [(0,)]


async def test_an_unknown_api_token_cannot_be_revoked(server: Server) -> None:
    with pytest.raises(NotDone, match="no API token 7"):
        await server.operate(administration.revoke_api_token, 7)


async def test_the_list_shows_state_tokens_and_the_bound_key(server: Server, dinah: Holder) -> None:
    await server.token(dinah)
    await server.enrol("eliza")
    await server.operate(administration.disable_account, "eliza")
    listed = await read(server.house.database, administration.list_accounts)
    assert [(each.name, each.is_disabled, each.api_tokens, each.key) for each in listed] == [
        ("dinah", False, 1, dinah.key.thumbprint),
        ("eliza", True, 1, None),
    ]


@pytest.mark.parametrize("change", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"])
async def test_the_audit_log_can_only_grow(server: Server, dinah: Holder, change: str) -> None:
    connection = sqlite3.connect(server.directory / "identity.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(change)
    connection.close()


async def test_the_migrated_database_has_exactly_the_tables_of_the_code(server: Server) -> None:
    await migrations.check(server.directory / "identity.sqlite", MIGRATIONS, Base.metadata)


async def test_the_directory_its_database_and_its_keys_are_for_the_owner_alone(server: Server) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in server.directory.iterdir()}
    assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
    assert (modes["identity.sqlite"], modes["keys"]) == (0o600, 0o700)


def test_an_api_token_has_256_random_bits_and_says_what_it_is() -> None:
    tokens = {api_tokens.mint() for _ in range(100)}
    assert len(tokens) == 100
    assert all(token.startswith("fedci_") and len(token) == 6 + 43 for token in tokens)


def test_an_api_token_is_compared_whole() -> None:
    token = api_tokens.mint()
    stored = api_tokens.digest(token)
    assert api_tokens.is_same(stored, token)
    assert not any(api_tokens.is_same(stored, other) for other in ("", token[:-1], token + "A", token.lower()))


def test_an_api_token_is_not_shown_by_accident() -> None:
    issued = administration.NewApiToken(1, api_tokens.mint())
    assert issued.token not in repr(issued)


# -- the directory


async def test_a_directory_is_made_once(server: Server, clock: ManualClock) -> None:
    with pytest.raises(OurFault, match="here already"):
        await initialise(server.directory, issuer=URL, listen="127.0.0.1:1", clock=clock)


@pytest.mark.parametrize(
    ("issuer", "listen", "expected"),
    [
        ("http://id.example", "127.0.0.1:1", "issuer: plaintext"),
        ("https://id.example/", "127.0.0.1:1", "issuer: expected a lower-case URL without path"),
        ("https://id.example/ci", "127.0.0.1:1", "issuer: expected a lower-case URL without path"),
        ("https://ID.example", "127.0.0.1:1", "issuer: expected a lower-case URL without path"),
        ("https://id.example?a=b", "127.0.0.1:1", "issuer: "),
        ('https://id.example"\nlisten = "x', "127.0.0.1:1", "issuer: "),
        ("https://id.example", "somewhere", "listen: expected an address"),
    ],
)
async def test_init_refuses_what_cannot_be_served_and_can_be_run_again(
    tmp_path: Path, clock: ManualClock, issuer: str, listen: str, expected: str
) -> None:
    with pytest.raises(SettingsError, match=expected):
        await initialise(tmp_path / "id", issuer=issuer, listen=listen, clock=clock)
    await initialise(tmp_path / "id", issuer=URL, listen="127.0.0.1:1", clock=clock)


def test_the_settings_file_says_the_defaults_of_the_code() -> None:
    told = tomllib.loads(new_settings_text(URL, "127.0.0.1:1"))
    defaults = {name: field.default for name, field in IdentitySettings.model_fields.items() if name in told}
    assert {name: told[name] for name in told if name not in ("issuer", "listen")} == {
        name: value for name, value in defaults.items() if name not in ("issuer", "listen")
    }
    assert set(IdentitySettings.model_fields) - set(told) == {"tls"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("id_token_seconds = 90000", "id_token_seconds"),
        ('key_policy = "none"', "key_policy"),
        ("key_polcy = 1", "did you mean `key_policy`"),
        ('failed_logins = "10"', "failed_logins"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, line: str, expected: str) -> None:
    path = tmp_path / "identity.toml"
    path.write_text(f'issuer = "{URL}"\nlisten = "127.0.0.1:1"\n{line}\n')
    with pytest.raises(SettingsError, match=expected):
        load(path, IdentitySettings)


# -- the brake on failures


def test_failures_are_forgiven_one_each_pause() -> None:
    brake, caller = FailureBrake(burst=3, pause_seconds=10), Caller("dinah", "192.0.2.1")
    for _ in range(3):
        assert brake.wait_seconds(caller, 100.0) == 0
        brake.count_failure(caller, 100.0)
    assert brake.wait_seconds(caller, 100.0) == 10
    assert brake.wait_seconds(caller, 110.0) == 0
    brake.count_failure(caller, 110.0)
    assert brake.wait_seconds(caller, 110.0) == 10
    assert brake.wait_seconds(caller, 1000.0) == 0


def test_the_brake_remembers_a_bounded_number_of_callers() -> None:
    brake = FailureBrake(burst=1, pause_seconds=10)
    for number in range(10_100):
        brake.count_failure(Caller("", str(number)), 0.0)
    assert len(brake) == 10_000
