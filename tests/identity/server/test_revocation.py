"""Taking tokens back, asking whether they are good, and the signed list that verifiers poll."""

import json
from datetime import timedelta
from typing import Any

import pytest

from identity.keys import SigningKey
from identity.server import administration
from identity.server.housekeeping import tidy
from identity.trust import IssuerProfile
from identity.trust.keyset import read_key_set
from identity.trust.revocation import RevocationList, read_revocation_list
from tests.identity.server.issuing import AUDIENCE, URL, Holder, Server, refusal
from tests.issuers import sign_jwt

PROFILE = IssuerProfile(url=URL)


async def read_list(server: Server) -> RevocationList:
    """The list as a verifier reads it, with nothing but the documents of the server."""
    keys = read_key_set((await server.client.get("/jwks")).content, PROFILE)
    document = (await server.client.get("/revocations")).content
    found = read_revocation_list(document, profile=PROFILE, keys=keys, now=server.clock.now())
    assert isinstance(found, RevocationList), found
    return found


async def introspect(server: Server, holder: Holder, token: str) -> dict[str, Any]:
    answer = await server.post_token("/introspect", holder, token)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body: dict[str, Any] = answer.json()
    return body


def jti(token: str) -> str:
    import base64

    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=="))["jti"])


async def test_a_good_token_is_described_to_any_account(server: Server, dinah: Holder) -> None:
    alice = await server.enrol("alice")
    token = await server.token(dinah)
    body = await introspect(server, alice, token)
    assert body.pop("exp") - body.pop("iat") == 3600
    assert body == {
        "active": True,
        "client_id": "dinah",
        "token_type": "DPoP",
        "iss": URL,
        "sub": "dinah",
        "aud": AUDIENCE,
        "jti": jti(token),
        "cnf": {"jwk": dinah.key.public_jwk()},
    }


async def test_nobody_introspects_or_revokes_without_an_account(server: Server, dinah: Holder) -> None:
    token = await server.token(dinah)
    stranger = Holder("stranger", dinah.api_token, dinah.key, server.clock)
    for path in ("/introspect", "/revoke"):
        assert refusal(await server.post_token(path, stranger, token)) == (401, "invalid_client")


async def test_a_form_without_a_token_is_refused(server: Server, dinah: Holder) -> None:
    for path in ("/introspect", "/revoke"):
        assert refusal(await server.ask(dinah, path=path, form={}, proofs=[])) == (400, "invalid_request")


@pytest.mark.parametrize("junk", ["", "a.b.c", "x" * 6000, "é"])
async def test_what_is_no_token_is_inactive_and_its_revocation_no_error(
    server: Server, dinah: Holder, junk: str
) -> None:
    assert await introspect(server, dinah, junk) == {"active": False}
    assert (await server.post_token("/revoke", dinah, junk)).status_code == 200


async def test_a_forged_token_is_inactive(server: Server, dinah: Holder) -> None:
    token = await server.token(dinah)
    kid = server.rows("SELECT kid FROM signing_key WHERE state = 'active'")[0][0]
    header = {"alg": "Ed25519", "typ": "fedci-id+jwt", "kid": kid}
    for spoilt in (header, header | {"kid": "unknown"}, header | {"kid": "\ud800"}, header | {"typ": "JWT"}):
        forged = sign_jwt(SigningKey.generate(), spoilt, {"jti": jti(token), "sub": "dinah"})
        assert await introspect(server, dinah, forged) == {"active": False}


async def test_a_token_past_its_end_is_inactive(server: Server, dinah: Holder) -> None:
    token = await server.token(dinah)
    server.clock.advance(3600)
    assert await introspect(server, dinah, token) == {"active": False}


async def test_a_holder_revokes_its_token_and_verifiers_learn_of_it(server: Server, dinah: Holder) -> None:
    token, other = await server.token(dinah), await server.token(dinah)
    assert (await read_list(server)).token_ids == frozenset()
    for _ in range(2):  # RFC 7009 §2.2: once more is no error
        assert (await server.post_token("/revoke", dinah, token)).status_code == 200
    assert await introspect(server, dinah, token) == {"active": False}
    assert (await introspect(server, dinah, other))["active"] is True
    assert (await read_list(server)).token_ids == {jti(token)}
    assert server.rows("SELECT count(*) FROM audit WHERE event = 'token-revoked'") == [(1,)]


async def test_nobody_revokes_another_accounts_token(server: Server, dinah: Holder) -> None:
    token, eliza = await server.token(dinah), await server.enrol("eliza")
    assert refusal(await server.post_token("/revoke", eliza, token)) == (400, "invalid_grant")
    assert (await introspect(server, dinah, token))["active"] is True


async def test_revoking_an_api_token_takes_back_what_was_got_with_it_and_no_more(server: Server, dinah: Holder) -> None:
    first = await server.token(dinah)
    dinah.api_token = (await server.operate(administration.issue_api_token, "dinah")).token
    second = await server.token(dinah)
    assert await server.operate(administration.revoke_api_token, 1) == 1
    assert (await read_list(server)).token_ids == {jti(first)}
    assert (await introspect(server, dinah, second))["active"] is True


async def test_disabling_an_account_takes_back_all_its_tokens(server: Server, dinah: Holder) -> None:
    token, alice = await server.token(dinah), await server.enrol("alice")
    await server.operate(administration.disable_account, "dinah")
    assert await introspect(server, alice, token) == {"active": False}
    revoked = await read_list(server)
    assert revoked.revokes(sub="dinah", token_id=jti(token), issued_at=server.clock.now().replace(microsecond=0))


async def test_a_token_got_after_a_general_revocation_is_not_on_the_list(server: Server, dinah: Holder) -> None:
    await server.operate(administration.rekey_account, "dinah")
    token = await server.token(dinah)
    row = server.rows("SELECT issued_at FROM issued_token")[0][0]
    revoked = await read_list(server)
    issued_at = server.clock.now() + timedelta(milliseconds=row - int(server.clock.now().timestamp() * 1000))
    assert not revoked.revokes(sub="dinah", token_id=jti(token), issued_at=issued_at)


async def test_the_list_forgets_what_has_ended_anyway(server: Server, dinah: Holder) -> None:
    token = await server.token(dinah)
    await server.post_token("/revoke", dinah, token)
    await server.operate(administration.disable_account, "dinah")
    server.clock.advance(3601)
    assert (await read_list(server)).token_ids == frozenset()
    assert set((await read_list(server)).subjects) == {"dinah"}
    server.clock.advance(24 * 3600)
    assert (await read_list(server)).subjects == {}


async def test_an_unchanged_list_is_not_sent_twice_but_never_gets_old(server: Server, dinah: Holder) -> None:
    first = await server.client.get("/revocations")
    assert first.headers["content-type"] == "application/jwt"
    etag = {"if-none-match": first.headers["etag"]}
    unchanged = await server.client.get("/revocations", headers=etag)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    server.clock.advance(30)
    assert (await server.client.get("/revocations", headers=etag)).status_code == 200
    assert (await read_list(server)).issued_at == server.clock.now().replace(microsecond=0)


async def test_a_revocation_shows_in_the_list_at_once(server: Server, dinah: Holder) -> None:
    token = await server.token(dinah)
    etag = {"if-none-match": (await server.client.get("/revocations")).headers["etag"]}
    await server.post_token("/revoke", dinah, token)
    assert (await server.client.get("/revocations", headers=etag)).status_code == 200


async def test_housekeeping_forgets_what_has_no_effect_and_keeps_the_audit_log(server: Server, dinah: Holder) -> None:
    await server.token(dinah)
    before = server.rows("SELECT count(*) FROM audit")
    server.clock.advance(2 * 24 * 3600)
    await tidy(server.issuer, server.house.database)
    assert server.rows("SELECT count(*) FROM seen_proof") == [(0,)]
    assert server.rows("SELECT count(*) FROM issued_token") == [(0,)]
    assert server.rows("SELECT count(*) FROM audit") == before
