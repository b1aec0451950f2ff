"""An account's ID tokens: asked for once, renewed in time, used while the issuer is away, refused with a reason."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from identity.account import RETRY_SECONDS, Account, IssuerAway, TokenRefused, read_api_token
from identity.keys import SigningKey
from runtime.errors import OurFault, PeerFault, WorldFault
from tests.clocks import ManualClock
from tests.identity.spoken import FATIMA, GEORGINA
from tests.issuers import FakeIssuer, served_issuer

ALICE = "fedci:provider:alice.example"
CECILIA = "fedci:provider:cecilia.example"
API_TOKEN = "s3cret: with/ødd+characters".encode().hex() + ":%+/"


class Dinah:
    """Dinah's account at Fatima's."""

    def __init__(self, clock: ManualClock, *, token_seconds: int = 3600) -> None:
        self.clock = clock
        self.fatima = FakeIssuer(FATIMA, clock, token_seconds=token_seconds)
        self.fatima.accounts["dinah"] = API_TOKEN
        self.key = SigningKey.generate()
        self.account = self.open()

    def open(self, api_token: str = API_TOKEN) -> Account:
        return Account(
            issuer=FATIMA,
            sub="dinah",
            api_token=api_token,
            key=self.key,
            client=self.fatima.client(),
            clock=self.clock,
        )

    @property
    def trades(self) -> int:
        return self.fatima.calls.count("/token")


@pytest.fixture
def dinah(clock: ManualClock) -> Dinah:
    return Dinah(clock)


async def test_a_token_is_for_its_audience_and_bound_to_our_key(dinah: Dinah) -> None:
    token = await dinah.account.token(ALICE)
    claims = _claims(token.raw)
    assert (token.iss, token.sub, token.aud) == (FATIMA, "dinah", ALICE)
    assert claims["cnf"]["jwk"] == dinah.key.public_jwk()
    assert (token.expires_at - dinah.clock.now()).total_seconds() == 3600


def _claims(raw: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(raw.split(".")[1] + "=="))
    return claims


async def test_a_token_is_asked_for_once_for_each_audience(dinah: Dinah) -> None:
    first = await dinah.account.token(ALICE)
    assert await dinah.account.token(ALICE) is first
    await dinah.account.token(CECILIA)
    assert dinah.trades == 2


async def test_callers_at_the_same_time_share_one_request(dinah: Dinah) -> None:
    tokens = await asyncio.gather(*(dinah.account.token(ALICE) for _ in range(10)))
    assert len({token.raw for token in tokens}) == 1
    assert dinah.trades == 1


async def test_a_cancelled_caller_does_not_take_the_token_from_the_others(dinah: Dinah) -> None:
    dinah.fatima.gate.clear()
    impatient = asyncio.create_task(dinah.account.token(ALICE))
    patient = asyncio.create_task(dinah.account.token(ALICE))
    await asyncio.sleep(0)
    impatient.cancel()
    dinah.fatima.gate.set()
    assert (await patient).aud == ALICE
    with pytest.raises(asyncio.CancelledError):
        await impatient


async def test_a_token_is_renewed_when_80_percent_of_its_life_are_over(dinah: Dinah) -> None:
    first = await dinah.account.token(ALICE)
    dinah.clock.advance(0.8 * 3600 - 1)
    assert await dinah.account.token(ALICE) is first
    dinah.clock.advance(1)
    assert await dinah.account.token(ALICE) is not first


async def test_while_the_issuer_is_away_a_token_serves_to_its_end(dinah: Dinah) -> None:
    first = await dinah.account.token(ALICE)
    dinah.fatima.is_away = True
    dinah.clock.advance(0.9 * 3600)
    assert await dinah.account.token(ALICE) is first
    assert await dinah.account.token(ALICE) is first
    assert dinah.trades == 2, "the next try waits a while"
    dinah.clock.advance(RETRY_SECONDS)
    assert await dinah.account.token(ALICE) is first
    assert dinah.trades == 3
    dinah.clock.advance(360)
    with pytest.raises(IssuerAway, match="reached"):
        await dinah.account.token(ALICE)
    dinah.fatima.is_away = False
    assert (await dinah.account.token(ALICE)).expires_at > dinah.clock.now()


async def test_a_token_about_to_end_is_not_handed_out(clock: ManualClock) -> None:
    with pytest.raises(IssuerAway, match="30 s"):
        await Dinah(clock, token_seconds=30).account.token(ALICE)


async def test_forgotten_tokens_are_asked_for_again(dinah: Dinah) -> None:
    first = await dinah.account.token(ALICE)
    dinah.account.forget()
    assert await dinah.account.token(ALICE) is not first


async def test_a_wrong_api_token_is_refused_with_the_issuers_reason_and_a_remedy(dinah: Dinah) -> None:
    with pytest.raises(TokenRefused, match="invalid_client") as refused:
        await dinah.open("wrong").token(ALICE)
    assert isinstance(refused.value, PeerFault)
    assert refused.value.error == "invalid_client"
    assert "API token" in refused.value.remedy
    assert "wrong" not in str(refused.value)


async def test_the_nonce_that_an_issuer_asks_for_is_used_from_then_on(dinah: Dinah) -> None:
    dinah.fatima.dpop_nonce = "n1"
    await dinah.account.token(ALICE)
    assert dinah.trades == 2
    await dinah.account.token(CECILIA)
    assert dinah.trades == 3


@pytest.mark.parametrize(
    ("answer", "fault", "says"),
    [
        (httpx.Response(500), WorldFault, "status 500"),
        (httpx.Response(503, headers={"retry-after": "7"}), WorldFault, "wait 7 s"),
        (httpx.Response(429, headers={"retry-after": "soon\x07"}), WorldFault, "status 429"),
        (httpx.Response(302, headers={"location": "https://evil.example"}), PeerFault, "status 302"),
        (httpx.Response(400, json={"error": "invalid_target"}), PeerFault, "invalid_target"),
        (httpx.Response(400, json={"error": "\x1b[31m" * 100}), PeerFault, "status 400"),
        (httpx.Response(403, text="<html>"), PeerFault, "unreadable answer"),
        (httpx.Response(200, text="<html>"), PeerFault, "not JSON"),
        (httpx.Response(200, json={}), PeerFault, "access_token"),
        (httpx.Response(200, json={"access_token": "x" * 5000, "token_type": "DPoP"}), PeerFault, "4096"),
        (httpx.Response(200, json={"access_token": "a.b.c", "token_type": "Bearer"}), PeerFault, "DPoP"),
        (httpx.Response(200, json={"access_token": "a.b.c", "token_type": "DPoP"}), PeerFault, "header or payload"),
        (httpx.Response(200, content=bytes(20_000)), PeerFault, "more than"),
    ],
    ids=str,
)
async def test_what_an_issuer_answers_amiss_is_said(
    dinah: Dinah, answer: httpx.Response, fault: type[Exception], says: str
) -> None:
    dinah.fatima.token_answer = lambda _: answer
    with pytest.raises(fault, match=says) as raised:
        await dinah.account.token(ALICE)
    assert "\x1b" not in str(raised.value)
    assert API_TOKEN not in str(raised.value)


@pytest.mark.parametrize(
    ("claim", "value", "says"),
    [
        ("iss", GEORGINA, "it is for dinah of https://id.georgina.example"),
        ("sub", "eliza", "it is for eliza"),
        ("aud", CECILIA, "to fedci:provider:cecilia"),
        ("cnf", {"jwk": SigningKey.generate().public_jwk()}, "not bound to our key"),
        ("cnf", None, "not bound to our key"),
        ("exp", "tomorrow", "claims are wrong"),
    ],
)
async def test_a_token_that_is_not_what_was_asked_for_is_not_used(
    dinah: Dinah, claim: str, value: object, says: str
) -> None:
    claims = dinah.fatima.claims("dinah", ALICE, dinah.key.public) | {claim: value}
    token = dinah.fatima.sign(dinah.fatima.header(), claims)
    dinah.fatima.token_answer = lambda grant: httpx.Response(200, json={**grant, "access_token": token})
    with pytest.raises(TokenRefused, match=says):
        await dinah.account.token(ALICE)


async def test_clocks_that_differ_are_told_to_their_owner(dinah: Dinah) -> None:
    ahead = ManualClock()
    ahead.advance(45)
    theirs = FakeIssuer(FATIMA, ahead)
    token = theirs.mint("dinah", ALICE, dinah.key.public)
    dinah.fatima.token_answer = lambda grant: httpx.Response(200, json={**grant, "access_token": token})
    with pytest.raises(IssuerAway, match="45 s ahead"):
        await dinah.account.token(ALICE)


async def test_secrets_are_in_no_repr(dinah: Dinah) -> None:
    token = await dinah.account.token(ALICE)
    assert token.raw not in repr(token)
    assert API_TOKEN not in repr(dinah.account)


async def test_a_token_comes_over_a_real_socket(clock: ManualClock) -> None:
    async with served_issuer(clock) as fatima, httpx.AsyncClient(trust_env=False) as client:
        fatima.accounts["dinah"] = API_TOKEN
        account = Account(
            issuer=fatima.url, sub="dinah", api_token=API_TOKEN, key=SigningKey.generate(), client=client, clock=clock
        )
        assert (await account.token(ALICE)).iss == fatima.url


def test_an_api_token_is_read_from_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("abc\n")
    path.chmod(0o600)
    assert read_api_token(path) == "abc"


@pytest.mark.parametrize("content", [b" \n", b"two words", b"\xff", b"line\nline"])
def test_a_file_that_holds_no_api_token_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(OurFault, match="token"):
        read_api_token(path)
