"""A role's directory: settings, secrets, ports, and the neighbours that its settings name."""

import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typer.testing import CliRunner

from agents.ledger import setup as ledger_setup
from fedci.commands.doctor import app
from fedci.commands.ledger import SETTINGS as LEDGER_SETTINGS
from fedci.doctor import neighbours, roles
from fedci.doctor.examination import role_checks
from fedci.doctor.findings import Finding, Level, run_checks
from identity.keys import SigningKey, b64url
from runtime.clock import SystemClock
from runtime.errors import FedciError, OurFault
from runtime.lifecycle import DirectoryLock
from runtime.secrets import write_secret
from runtime.settings import Settings
from schemas import frame
from schemas.refusals import Reason, Refusal
from schemas.statements import Agent, Card
from tests.clocks import START
from tests.issuers import FakeIssuer, served_issuer
from tests.runtime.serving import served
from tests.schemas.samples import SAMPLES

ROOT = SigningKey.generate()
CARD = next(message for message in SAMPLES if isinstance(message, Card))
CLOCK = SystemClock()


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with served_issuer(CLOCK) as issuer:
        issuer.accounts["alice"] = "api-token"
        yield issuer


@pytest.fixture
async def ledger(tmp_path: Path, issuer: FakeIssuer) -> Path:
    return await make_ledger(tmp_path / "ledger", issuer.url, "http://127.0.0.1:1")


async def make_ledger(directory: Path, issuer: str, desk_url: str) -> Path:
    text = LEDGER_SETTINGS.format(
        provider="alice.example",
        name="ledger",
        desk_url=desk_url,
        root_key=b64url(ROOT.public),
        listen=f"127.0.0.1:{free_port()}",
    )
    await ledger_setup.init(directory, text + f'\n[[issuers]]\nurl = "{issuer}"\n')
    return directory


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def levels(found: list[Finding]) -> dict[str, Level]:
    return {finding.name: finding.level for finding in found}


# -- Settings


@pytest.mark.parametrize("role", roles.SETTINGS)
def test_every_role_has_settings_to_be_read_with(role: str) -> None:
    assert issubclass(roles._model(role), Settings)


def test_a_directory_of_no_role_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OurFault, match="no settings file"):
        roles.open_role(tmp_path)


def test_a_directory_of_two_roles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "desk.toml").touch()
    (tmp_path / "store.toml").touch()
    with pytest.raises(OurFault, match="desk and store"):
        roles.open_role(tmp_path)


def test_a_setting_that_is_wrong_is_named(ledger: Path) -> None:
    file = ledger / "ledger.toml"
    file.write_text(file.read_text().replace("listen =", "listn ="))
    with pytest.raises(OurFault, match="did you mean `listen`"):
        roles.open_role(ledger)


def test_what_the_settings_name_is_known_by_its_name(ledger: Path, issuer: FakeIssuer) -> None:
    facts = roles.open_role(ledger)
    assert facts.role == "ledger"
    assert facts.issuers == (issuer.url,)
    assert facts.secrets == (ledger / "agent.key",)
    assert [key for key, _ in facts.listens] == ["listen"]


def test_a_controllers_account_is_read_like_an_agents(tmp_path: Path) -> None:
    from broker.settings import TEMPLATE

    file = tmp_path / "controller.toml"
    file.write_text(TEMPLATE.format(listen="127.0.0.1:8405", issuer="http://127.0.0.1:8100", account="dinah"))
    facts = roles.open_role(tmp_path)
    assert facts.accounts == (roles.AccountFacts("http://127.0.0.1:8100", "dinah", tmp_path / "issuer.token"),)
    assert facts.issuers == ("http://127.0.0.1:8100",)
    assert facts.key_file == tmp_path / "controller.key"


# -- Secrets


def test_secrets_that_are_ours_alone_are_right(ledger: Path) -> None:
    assert [finding.level for finding in roles.look_at_secrets(roles.open_role(ledger))] == [Level.OK]


def test_a_secret_that_others_may_read_is_wrong_also_where_no_setting_names_it(ledger: Path) -> None:
    write_secret(ledger / "old.token", b"x")
    (ledger / "old.token").chmod(0o644)
    (found,) = roles.look_at_secrets(roles.open_role(ledger))
    assert found.level is Level.WRONG
    assert "chmod 600" in found.remedy


def test_a_signing_key_of_an_issuer_is_a_secret_too(ledger: Path) -> None:
    (ledger / "keys").mkdir()
    write_secret(ledger / "keys" / "k1.pem", b"x")
    (ledger / "keys" / "k1.pem").chmod(0o640)
    (found,) = roles.look_at_secrets(roles.open_role(ledger))
    assert "k1.pem" in found.seen


def test_a_secret_that_is_named_but_missing_is_wrong(ledger: Path) -> None:
    (ledger / "agent.key").unlink()
    (found,) = roles.look_at_secrets(roles.open_role(ledger))
    assert "agent.key" in found.seen


# -- Ports


@pytest.fixture
def taken(ledger: Path) -> Iterator[None]:
    """The ledger's port, in use by this process."""
    (_, listen) = roles.open_role(ledger).listens[0]
    with socket.create_server((listen.host, listen.port)):
        yield


def port(ledger: Path) -> Finding:
    (found,) = roles.look_at_ports(roles.open_role(ledger))
    return found


def test_a_free_port_is_right(ledger: Path) -> None:
    assert port(ledger).level is Level.OK
    assert "is free" in port(ledger).seen


def test_a_port_that_somebody_else_has_is_wrong(ledger: Path, taken: None) -> None:
    assert port(ledger).level is Level.WRONG
    assert "is in use" in port(ledger).seen


def test_a_port_that_the_role_itself_has_is_right(ledger: Path, taken: None) -> None:
    with DirectoryLock(ledger, "ledger"):
        assert port(ledger).level is Level.OK
        assert f"served by pid {os.getpid()}" in port(ledger).seen


def test_a_role_that_runs_and_does_not_listen_is_wrong(ledger: Path) -> None:
    with DirectoryLock(ledger, "ledger"):
        assert port(ledger).level is Level.WRONG


def test_a_lock_file_left_by_a_killed_role_holds_nothing(ledger: Path) -> None:
    (ledger / roles.LOCK).write_text(f"{os.getpid()} ledger\n")
    assert roles.find_holder(ledger) is None


# -- Neighbours


@pytest.mark.parametrize(
    ("status", "said", "level"),
    [
        (200, "https://id.example", "ok"),
        (200, "https://id.example/", "wrong"),
        (200, None, "wrong"),
        (404, None, "wrong"),
    ],
)
def test_an_issuer_calls_itself_exactly_as_it_is_called(status: int, said: str | None, level: str) -> None:
    assert neighbours.judge_issuer("https://id.example", status, said).level == level


async def test_an_issuer_that_answers_is_right_and_one_that_is_away_is_wrong(issuer: FakeIssuer) -> None:
    answers, _ = await neighbours.look_at_issuer(issuer.url, None, CLOCK)
    assert answers.level is Level.OK
    issuer.is_away = True
    with pytest.raises(FedciError):
        await neighbours.look_at_issuer(issuer.url, None, CLOCK)


async def test_an_account_whose_token_is_taken_is_right(ledger: Path, issuer: FakeIssuer) -> None:
    write_secret(ledger / "id.token", b"api-token\n")
    account = roles.AccountFacts(issuer.url, "alice", ledger / "id.token")
    found = await neighbours.look_at_account(roles.open_role(ledger), account, CLOCK)
    assert found.level is Level.OK


async def test_an_account_whose_token_is_refused_says_what_its_issuer_said(ledger: Path, issuer: FakeIssuer) -> None:
    write_secret(ledger / "id.token", b"an-older-one")
    account = roles.AccountFacts(issuer.url, "alice", ledger / "id.token")
    with pytest.raises(FedciError, match="invalid_client") as refused:
        await neighbours.look_at_account(roles.open_role(ledger), account, CLOCK)
    assert "an-older-one" not in str(refused.value)


def card(key: bytes, **fields: object) -> Card:
    agents = (Agent(name="ledger", role="ledger", key=key, accounts=()),)
    return CARD.model_copy(update={"agents": agents, "expires_at": CLOCK.now() + timedelta(days=1), **fields})


@pytest.mark.parametrize(
    ("said", "level"),
    [
        (card(b"k" * 32, expires_at=START + timedelta(days=1)), "ok"),
        (card(b"k" * 32, expires_at=START), "wrong"),
        (card(b"k" * 32, expires_at=START + timedelta(days=1), provider="cecilia.example"), "wrong"),
        (Refusal(Reason.ENVELOPE_SIGNATURE, "another key"), "wrong"),
    ],
)
def test_a_card_is_the_providers_own_and_good_until_later(said: Card | Refusal, level: str) -> None:
    assert neighbours.judge_card("desk", said, "alice.example", START).level == level


def test_an_agent_is_in_the_card_with_its_role_and_key(ledger: Path) -> None:
    facts, key = roles.open_role(ledger), SigningKey.load(ledger / "agent.key").public
    assert neighbours.judge_enrolment(facts, card(key), key).level is Level.OK
    assert "knows no agent" in neighbours.judge_enrolment(facts, card(key, agents=()), key).seen
    assert "not as this one" in neighbours.judge_enrolment(facts, card(b"k" * 32), key).seen


# -- The whole


async def test_a_ledger_whose_desk_answers_is_right_in_everything(tmp_path: Path, issuer: FakeIssuer) -> None:
    async def give(_: Request) -> Response:
        key = SigningKey.load(tmp_path / "ledger" / "agent.key").public
        return Response(frame.seal(card(key), ROOT.private))

    async with served(Starlette(routes=[Route("/card", give)])) as url:
        ledger = await make_ledger(tmp_path / "ledger", issuer.url, url)
        found = levels(await run_checks(role_checks(roles.open_role(ledger), CLOCK)))
    assert found == {
        f"ledger {ledger}: {what}": Level.OK for what in ("settings", "secrets", "listen", "desk", "enrolment")
    }


async def test_a_desk_that_is_away_is_wrong_and_hides_nothing(ledger: Path) -> None:
    found = levels(await run_checks(role_checks(roles.open_role(ledger), CLOCK)))
    assert found[f"ledger {ledger}: desk"] is Level.WRONG
    assert found[f"ledger {ledger}: secrets"] is Level.OK


async def test_a_controller_without_providers_is_told_how_to_add_one(tmp_path: Path) -> None:
    from broker import setup

    await setup.init(tmp_path / "c", issuer="http://127.0.0.1:8100", account="dinah", issuer_token="x")
    (found,) = await neighbours.look_at_providers(roles.open_role(tmp_path / "c"), CLOCK)
    assert found.level is Level.WARN
    assert "provider add" in found.remedy


def test_the_command_ends_with_1_and_names_the_directory_that_is_wrong(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path), "--json"])
    assert result.exit_code == 1
    found = {finding["name"]: finding for finding in json.loads(result.output)}
    assert found[f"{tmp_path}: settings"]["level"] == "wrong"
    assert found["python"]["level"] == "ok"
