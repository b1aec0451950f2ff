"""What the issuer says of itself, at both standard places."""

import httpx

from identity.trust import IssuerProfile
from tests.clocks import ManualClock
from tests.identity.server.issuing import URL, Server


async def test_both_standards_find_the_same_description(server: Server) -> None:
    openid = await server.client.get("/.well-known/openid-configuration")
    oauth = await server.client.get("/.well-known/oauth-authorization-server")
    assert openid.json() == oauth.json()
    assert openid.json()["issuer"] == URL


async def test_the_description_names_only_places_that_exist(server: Server) -> None:
    described = (await server.client.get(IssuerProfile(url=URL).discovery_url)).json()
    places = {name: url for name, url in described.items() if str(url).startswith(f"{URL}/")}
    assert len(places) == 6
    for name, url in places.items():
        method = "POST" if name.endswith("_endpoint") else "GET"
        answer = await server.client.request(method, url)
        assert answer.status_code in (200, 400), name
    assert described["id_token_signing_alg_values_supported"] == ["Ed25519"]
    assert described["jwks_uri"] == f"{URL}/jwks"


async def test_the_list_of_revocations_is_where_verifiers_look(server: Server) -> None:
    answer = await server.client.get(IssuerProfile(url=URL).revocation_list_url)
    assert answer.status_code == 200


async def test_documents_cannot_be_posted_to_and_unknown_paths_are_not_found(
    server: Server, clock: ManualClock
) -> None:
    assert (await server.client.post("/jwks")).status_code == 405
    missing: httpx.Response = await server.client.get("/keys/private")
    assert missing.status_code == 404
