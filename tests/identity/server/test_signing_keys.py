"""Rotation: nobody meets a key that was not published before, and nothing that was signed stops being checkable."""

import stat
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from identity.keys import KeyFileError, SigningKey
from identity.server.housekeeping import tidy
from identity.server.signing_keys import TooEarly
from runtime.secrets import SecretError
from schemas.wire import to_milliseconds
from tests.identity.server.issuing import Holder, Server

DAY_SECONDS = 24 * 3600


async def key_set(server: Server) -> dict[str, Any]:
    answer = await server.client.get("/jwks")
    assert answer.headers["cache-control"] == "public, max-age=300"
    body: dict[str, Any] = answer.json()
    return body


def is_verified(token: str, keys: dict[str, Any]) -> bool:
    try:
        jwt.decode(token, KeySet.import_key_set(keys), algorithms=["Ed25519"])  # type: ignore[arg-type]
    except (JoseError, ValueError):
        return False
    return True


async def test_the_key_set_holds_the_active_and_the_next_key_and_nothing_private(server: Server) -> None:
    keys = (await key_set(server))["keys"]
    assert [set(key) for key in keys] == [{"kty", "crv", "x", "kid", "alg", "use"}] * 2
    assert [(key["alg"], key["use"]) for key in keys] == [("Ed25519", "sig")] * 2


async def test_the_next_key_does_not_sign_before_verifiers_can_know_it(server: Server) -> None:
    server.clock.advance(299)
    with pytest.raises(TooEarly, match="--emergency"):
        await server.rotate()
    server.clock.advance(1)
    assert await server.rotate()


async def test_a_key_set_read_before_a_rotation_verifies_what_is_signed_after_it(server: Server, dinah: Holder) -> None:
    before = await key_set(server)
    server.clock.advance(300)
    await server.rotate()
    assert is_verified(await server.token(dinah), before)


async def test_a_token_signed_before_a_rotation_stays_verifiable_to_its_end_and_no_longer(
    server: Server, dinah: Holder
) -> None:
    server.clock.advance(300)
    token = await server.token(dinah)
    await server.rotate()
    server.clock.advance(3600)
    assert is_verified(token, await key_set(server))
    server.clock.advance(31)
    assert not is_verified(token, await key_set(server))


async def test_former_keys_are_listed_for_ever_with_their_dates(server: Server, dinah: Holder) -> None:
    token, start = await server.token(dinah), server.clock.now()
    assert (await server.client.get("/keys/retired")).json() == {"keys": []}
    server.clock.advance(300)
    end = server.clock.now()
    await server.rotate()
    server.clock.advance(3000 * DAY_SECONDS)
    await tidy(server.issuer, server.house.database)
    former = (await server.client.get("/keys/retired")).json()
    assert is_verified(token, former)
    dates = {name: former["keys"][0][name] for name in ("active_from", "active_until", "compromised")}
    assert dates == {
        "active_from": to_milliseconds(start),
        "active_until": to_milliseconds(end),
        "compromised": False,
    }


async def test_a_stolen_key_is_dropped_at_once_and_so_is_all_that_it_signed(server: Server, dinah: Holder) -> None:
    token = await server.token(dinah)
    kid = await server.rotate(emergency=True)
    keys = await key_set(server)
    assert kid not in [key["kid"] for key in keys["keys"]]
    assert not is_verified(token, keys)
    assert (await server.post_token("/introspect", dinah, token)).json() == {"active": False}
    assert (await server.client.get("/keys/retired")).json()["keys"][0]["compromised"] is True
    assert is_verified(await server.token(dinah), keys)


async def test_the_revocation_list_is_signed_by_the_active_key_after_a_rotation(server: Server) -> None:
    await server.client.get("/revocations")
    await server.rotate(emergency=True)
    assert is_verified((await server.client.get("/revocations")).text, await key_set(server))


async def test_the_key_rotates_by_itself_when_it_is_old(server: Server) -> None:
    old = server.rows("SELECT kid FROM signing_key WHERE state = 'active'")
    server.clock.advance(90 * DAY_SECONDS - 1)
    await tidy(server.issuer, server.house.database)
    assert server.rows("SELECT kid FROM signing_key WHERE state = 'active'") == old
    server.clock.advance(1)
    await tidy(server.issuer, server.house.database)
    assert server.rows("SELECT kid FROM signing_key WHERE state = 'retired'") == old
    assert not (server.directory / "keys" / f"{old[0][0]}.pem").exists()


async def test_key_files_are_private_and_one_open_to_others_is_refused(server: Server) -> None:
    directory = server.directory / "keys"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    kid = server.rows("SELECT kid FROM signing_key WHERE state = 'active'")[0][0]
    (directory / f"{kid}.pem").chmod(0o644)
    with pytest.raises(SecretError, match="chmod 600"):
        server.issuer.files.load(kid)


async def test_a_key_file_with_another_key_in_it_is_refused(server: Server) -> None:
    kid = server.rows("SELECT kid FROM signing_key WHERE state = 'active'")[0][0]
    path = server.directory / "keys" / f"{kid}.pem"
    path.unlink()
    SigningKey.generate().save(path)
    with pytest.raises(KeyFileError, match="another key"):
        server.issuer.files.load(kid)
