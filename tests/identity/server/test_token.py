"""The token endpoint: what it gives, and all that it refuses."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from identity.account import Account
from identity.keys import SigningKey
from identity.server import administration, claims, revocations
from identity.trust import profiles
from schemas.ids import controller_audience, tenant_id
from tests.clocks import START, ManualClock
from tests.identity.server.issuing import AUDIENCE, FORM, URL, Holder, Server, basic, refusal, running


async def test_an_id_token_says_exactly_what_is_promised(server: Server, dinah: Holder) -> None:
    answer = await server.ask(dinah)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert set(body) == {"access_token", "token_type", "expires_in"}
    assert (body["token_type"], body["expires_in"]) == ("DPoP", 3600)
    keys = KeySet.import_key_set((await server.client.get("/jwks")).json())
    token = jwt.decode(body["access_token"], keys, algorithms=["Ed25519"])
    assert set(token.header) == {"alg", "typ", "kid"}
    assert token.header["typ"] == "fedci-id+jwt"
    assert token.claims.pop("jti")
    now = int(START.timestamp())
    assert token.claims == {
        "iss": URL,
        "sub": "dinah",
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + 3600,
        "cnf": {"jwk": dinah.key.public_jwk()},
    }


async def test_our_own_account_understands_what_the_server_gives(server: Server, dinah: Holder) -> None:
    account = Account(
        issuer=URL,
        sub="dinah",
        api_token=dinah.api_token,
        key=dinah.key,
        client=server.client,
        clock=server.clock,
    )
    token = await account.token(AUDIENCE)
    assert (token.iss, token.sub, token.aud) == (URL, "dinah", AUDIENCE)


async def test_server_and_verifier_mean_the_same_types_of_token() -> None:
    assert claims.ID_TOKEN_TYPE == profiles.ID_TOKEN_TYPE
    assert revocations.REVOCATIONS_TYPE == profiles.REVOCATIONS_TYPE


@pytest.mark.parametrize(
    "audience", ["fedci:provider:a", "fedci:store:bettina.example", controller_audience(tenant_id(URL, "dinah"))]
)
async def test_each_kind_of_audience_can_be_asked_for(server: Server, dinah: Holder, audience: str) -> None:
    assert await server.token(dinah, audience)


# -- who asks


async def test_a_wrong_secret_and_an_unknown_account_get_the_same_answer(server: Server, dinah: Holder) -> None:
    wrong = await server.ask(dinah, secret="fedci_" + "A" * 43)
    nobody = await server.ask(Holder("nobody", dinah.api_token, dinah.key, server.clock))
    assert refusal(wrong) == refusal(nobody) == (401, "invalid_client")
    assert wrong.json() == nobody.json()
    assert wrong.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic !!!", "Basic " + "A" * 400, "Bearer abc", basic("dinah", ""), "Basic ZGluYWg=", "Basic /w=="],
)
async def test_credentials_that_cannot_be_read_are_refused(server: Server, dinah: Holder, header: str) -> None:
    assert refusal(await server.ask(dinah, headers={"authorization": header})) == (401, "invalid_client")


async def test_the_secret_in_the_body_is_not_looked_at(server: Server, dinah: Holder) -> None:
    form = FORM | {"client_id": "dinah", "client_secret": dinah.api_token}
    assert refusal(await server.ask(dinah, form=form, headers={"authorization": ""})) == (401, "invalid_client")


async def test_another_accounts_secret_is_refused(server: Server, dinah: Holder) -> None:
    eliza = await server.enrol("eliza")
    assert refusal(await server.ask(dinah, secret=eliza.api_token)) == (401, "invalid_client")


async def test_a_disabled_account_is_told_so_but_only_with_its_secret(server: Server, dinah: Holder) -> None:
    await server.operate(administration.disable_account, "dinah")
    with_secret = await server.ask(dinah)
    assert refusal(with_secret) == (401, "invalid_client")
    assert "disabled" in with_secret.json()["error_description"]
    assert "disabled" not in (await server.ask(dinah, secret="fedci_" + "A" * 43)).json()["error_description"]


async def test_an_account_enabled_again_gets_tokens_that_are_good_at_once(server: Server, dinah: Holder) -> None:
    await server.operate(administration.disable_account, "dinah")
    await server.operate(administration.enable_account, "dinah")
    token = await server.token(dinah)
    assert (await server.post_token("/introspect", dinah, token)).json()["active"] is True


async def test_a_revoked_api_token_is_refused_while_another_one_works(server: Server, dinah: Holder) -> None:
    second = await server.operate(administration.issue_api_token, "dinah")
    await server.operate(administration.revoke_api_token, 1)
    assert refusal(await server.ask(dinah)) == (401, "invalid_client")
    assert (await server.ask(dinah, secret=second.token)).status_code == 200


# -- what is asked


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "unsupported_grant_type"),
        (FORM | {"grant_type": "password"}, "unsupported_grant_type"),
        (FORM | {"scope": "openid"}, "invalid_scope"),
        ({"grant_type": "client_credentials"}, "invalid_request"),
        (FORM | {"audience": ""}, "invalid_request"),
        (FORM | {"audience": "alice.example"}, "invalid_target"),
        (FORM | {"audience": "fedci:desk:alice.example"}, "invalid_target"),
        (FORM | {"audience": "fedci:provider:Alice"}, "invalid_target"),
        (FORM | {"audience": "fedci:provider:alice.example\n"}, "invalid_target"),
        (FORM | {"audience": f"{AUDIENCE} fedci:provider:cecilia.example"}, "invalid_target"),
        (FORM | {"audience": "fedci:controller:dinah"}, "invalid_target"),
        ([*FORM.items(), ("audience", "fedci:provider:cecilia.example")], "invalid_request"),
        ([*FORM.items(), *((f"x{number}", "") for number in range(30))], "invalid_request"),
    ],
)
async def test_a_form_that_asks_for_nothing_we_give_is_refused(
    server: Server, dinah: Holder, form: Any, error: str
) -> None:
    assert refusal(await server.ask(dinah, form=form)) == (400, error)


async def test_the_query_string_is_not_looked_at(server: Server, dinah: Holder) -> None:
    form = {"grant_type": "client_credentials"}
    answer = await server.ask(dinah, form=form, path=f"/token?audience={AUDIENCE}")
    assert refusal(answer) == (400, "invalid_request")


async def test_a_body_of_another_type_or_encoding_is_refused(server: Server, dinah: Holder) -> None:
    headers = {"authorization": basic("dinah", dinah.api_token), "dpop": dinah.proof()}
    as_json = await server.client.post("/token", json=FORM, headers=headers)
    broken = await server.client.post(
        "/token",
        content=b"grant_type=client_credentials&audience=%ff",
        headers=headers | {"content-type": "application/x-www-form-urlencoded"},
    )
    assert refusal(as_json) == refusal(broken) == (400, "invalid_request")


async def test_a_body_that_is_too_large_is_refused_unread(server: Server, dinah: Holder) -> None:
    assert (await server.ask(dinah, form=FORM | {"x": "y" * 20_000})).status_code == 413


async def test_a_token_is_not_to_be_had_by_get(server: Server) -> None:
    assert (await server.client.get("/token", params=FORM)).status_code == 405


# -- with which key (each way to spoil a proof is in test_proofs)


async def test_without_a_proof_or_with_two_there_is_no_token(server: Server, dinah: Holder) -> None:
    assert refusal(await server.ask(dinah, proofs=[])) == (400, "invalid_dpop_proof")
    assert refusal(await server.ask(dinah, proofs=[dinah.proof(), dinah.proof()])) == (400, "invalid_dpop_proof")


async def test_a_proof_is_good_once(server: Server, dinah: Holder) -> None:
    proof = dinah.proof()
    assert (await server.ask(dinah, proofs=[proof])).status_code == 200
    again = await server.ask(dinah, proofs=[proof])
    assert refusal(again) == (400, "invalid_dpop_proof")
    assert "used before" in again.json()["error_description"]


async def test_a_proof_of_the_wrong_moment_is_refused_with_the_difference(server: Server, dinah: Holder) -> None:
    proof = dinah.proof()
    server.clock.advance(61)
    answer = await server.ask(dinah, proofs=[proof])
    assert refusal(answer) == (400, "invalid_dpop_proof")
    assert "61 s" in answer.json()["error_description"]


async def test_the_first_proven_key_is_remembered_and_another_refused_until_rekey(
    server: Server, dinah: Holder
) -> None:
    old = await server.token(dinah)
    thief = Holder("dinah", dinah.api_token, SigningKey.generate(), server.clock)
    answer = await server.ask(thief)
    assert refusal(answer) == (400, "unauthorized_client")
    assert dinah.key.thumbprint in answer.json()["error_description"]
    await server.operate(administration.rekey_account, "dinah")
    assert (await server.ask(thief)).status_code == 200
    assert refusal(await server.ask(dinah)) == (400, "unauthorized_client")
    assert (await server.post_token("/introspect", dinah, old)).json() == {"active": False}


async def test_where_any_key_is_welcome_a_change_is_audited(tmp_path: Path, clock: ManualClock) -> None:
    async with running(tmp_path / "id", clock, key_policy="any") as server:
        dinah = await server.enrol("dinah")
        await server.token(dinah)
        await server.token(Holder("dinah", dinah.api_token, SigningKey.generate(), clock))
        keys = server.rows("SELECT event, actor FROM audit WHERE event LIKE 'key-%'")
    assert keys == [("key-remembered", "http 192.0.2.1"), ("key-changed", "http 192.0.2.1")]


# -- how often somebody may fail


async def test_guessing_slows_down_and_hurts_nobody_else(server: Server, dinah: Holder) -> None:
    eliza = await server.enrol("eliza")
    wrong = "fedci_" + "A" * 43
    for _ in range(10):
        assert refusal(await server.ask(dinah, secret=wrong)) == (401, "invalid_client")
    # Now even the right secret waits: otherwise a guesser would not be slowed down.
    waiting = await server.ask(dinah)
    assert refusal(waiting) == (429, "slow_down")
    assert waiting.headers["retry-after"] == "6"
    assert (await server.ask(eliza)).status_code == 200
    async with server.from_address("192.0.2.2") as elsewhere:
        assert (await server.ask(dinah, client=elsewhere)).status_code == 200
    server.clock.advance(6)
    assert (await server.ask(dinah)).status_code == 200


async def test_inventing_names_does_not_multiply_the_tries_nor_fill_the_audit_log(
    server: Server, dinah: Holder
) -> None:
    answers = [
        await server.ask(Holder(f"nobody-{number}", dinah.api_token, dinah.key, server.clock)) for number in range(30)
    ]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 20
    assert server.rows("SELECT count(*) FROM audit WHERE event = 'request-refused'") == [(10,)]


async def test_failures_after_the_login_are_braked_too(server: Server, dinah: Holder) -> None:
    for _ in range(10):
        assert (await server.ask(dinah, proofs=[])).status_code == 400
    assert refusal(await server.ask(dinah)) == (429, "slow_down")


# -- what is written down


async def test_each_token_and_each_refusal_is_in_the_audit_log_and_no_secret_is(server: Server, dinah: Holder) -> None:
    token = await server.token(dinah)
    await server.ask(dinah, secret="fedci_" + "A" * 43)
    entries = server.rows("SELECT event, account, detail FROM audit ORDER BY id")
    assert [event for event, _, _ in entries] == [
        "account-added",
        "api-token-issued",
        "key-remembered",
        "token-issued",
        "request-refused",
    ]
    issued = json.loads(entries[3][2])
    assert set(issued) == {"jti", "aud", "key"}
    assert (entries[3][1], issued["aud"], issued["key"]) == ("dinah", AUDIENCE, dinah.key.thumbprint)
    assert not any(secret in str(entries) for secret in (dinah.api_token, token, "AAAA"))


async def test_api_tokens_are_stored_hashed(server: Server, dinah: Holder) -> None:
    await server.token(dinah)
    files = [path.read_bytes() for path in server.directory.iterdir() if path.is_file()]
    assert not any(dinah.api_token.encode() in content for content in files)
    assert server.rows("SELECT length(digest) FROM api_token") == [(32,)]


async def test_what_was_refused_and_issued_is_counted(server: Server, dinah: Holder) -> None:
    await server.token(dinah)
    await server.ask(dinah, proofs=[])
    metrics = (await server.client.get("/metrics")).text
    assert 'fedci_identity_answers_total{outcome="ok",path="/token"} 1.0' in metrics
    assert 'fedci_identity_answers_total{outcome="invalid_dpop_proof",path="/token"} 1.0' in metrics


async def test_a_server_that_cannot_use_its_database_says_try_again(server: Server, dinah: Holder) -> None:
    database = server.directory / "identity.sqlite"
    await server.house.database.close()
    database.write_bytes(b"this is no database" * 100)
    for leftover in ("identity.sqlite-wal", "identity.sqlite-shm"):
        (server.directory / leftover).unlink(missing_ok=True)
    answer: httpx.Response = await server.ask(dinah)
    assert refusal(answer) == (503, "temporarily_unavailable")
    assert (await server.client.get("/readyz")).status_code == 503
    assert (await server.client.get("/healthz")).status_code == 200
