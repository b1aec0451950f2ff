"""An identity server small enough to read, for tests of whatever trusts one.

Its keys, signatures and documents are real; its accounts, clock and manners are the test's: it can be away, rotate,
revoke, and sign whatever it is told to, also what no honest issuer would. Reached through `client()` without a socket,
or through `served_issuer` on a loopback port.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, unquote

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from identity.keys import SigningKey, public_from_jwk, public_jwk
from identity.trust import Anchor, IssuerProfile
from identity.trust.keyset import read_key_set
from identity.trust.profiles import ID_TOKEN_TYPE, REVOCATIONS_TYPE
from identity.trust.revocation import read_revocation_list
from runtime.clock import Clock
from schemas.refusals import Refusal

ID_TOKEN_SECONDS = 3600
LIST_SECONDS = 600


def sign_jwt(key: SigningKey, header: Mapping[str, Any], claims: Mapping[str, Any] | bytes) -> str:
    """A compact JWS with exactly this header, sound or not, by an Ed25519 key."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = f"{_b64(json.dumps(header).encode())}.{_b64(payload)}"
    return f"{signed}.{_b64(key.sign(signed.encode()))}"


class FakeIssuer:
    """An issuer at `url`; without accounts it still mints whatever a test asks for."""

    def __init__(self, url: str, clock: Clock, *, token_seconds: int = ID_TOKEN_SECONDS) -> None:
        self.url = url
        self.token_seconds = token_seconds
        self.keys: dict[str, SigningKey] = {}
        self.calls: list[str] = []
        """The path of every request, in order."""
        self.is_away = False
        self.gate = asyncio.Event()
        """While it is cleared, requests through `client()` wait."""
        self.gate.set()
        self.accounts: dict[str, str] = {}
        """API token by account name: who may trade at `/token`."""
        self.dpop_nonce: str | None = None
        self.token_answer: Callable[[dict[str, Any]], httpx.Response] = lambda grant: httpx.Response(200, json=grant)
        """Turns the grant into the answer; replace it to answer something else."""
        self.documents: dict[str, Callable[[], httpx.Response]] = {
            "/.well-known/openid-configuration": lambda: httpx.Response(200, json=self.discovery()),
            "/jwks": lambda: httpx.Response(200, json=self.jwks()),
            "/revocations": lambda: httpx.Response(200, text=self.revocations()),
        }
        self._clock = clock
        self._revoked_ids: list[tuple[str, int]] = []
        self._revoked_subjects: list[tuple[str, int]] = []
        self.kid = self.rotate()

    # -- Keys

    def rotate(self, kid: str | None = None) -> str:
        """Sign with a new key from now on; old ones stay published."""
        self.kid = kid or f"k{len(self.keys) + 1}"
        self.keys[self.kid] = SigningKey.generate()
        return self.kid

    def jwks(self) -> dict[str, Any]:
        return {
            "keys": [{**key.public_jwk(), "kid": kid, "use": "sig", "alg": "Ed25519"} for kid, key in self.keys.items()]
        }

    def discovery(self) -> dict[str, Any]:
        return {"issuer": self.url, "jwks_uri": f"{self.url}/jwks", "token_endpoint": f"{self.url}/token"}

    # -- Tokens

    def header(self) -> dict[str, Any]:
        return {"alg": "Ed25519", "typ": ID_TOKEN_TYPE, "kid": self.kid}

    def claims(self, sub: str, aud: str, holder: bytes, *, now: datetime | None = None) -> dict[str, Any]:
        """The claims of a good token, to be spoilt by tests."""
        iat = int((now or self._clock.now()).timestamp())
        return {
            "iss": self.url,
            "sub": sub,
            "aud": aud,
            "iat": iat,
            "exp": iat + self.token_seconds,
            "jti": secrets.token_urlsafe(12),
            "cnf": {"jwk": public_jwk(holder)},
        }

    def mint(self, sub: str, aud: str, holder: bytes) -> str:
        """A good ID token for the holder of the Ed25519 public key `holder`."""
        return self.sign(self.header(), self.claims(sub, aud, holder))

    def sign(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
        return sign_jwt(self.keys[self.kid], header, claims)

    # -- Revocations

    def revoke_token(self, token_id: str) -> None:
        self._revoked_ids.append((token_id, int(self._clock.now().timestamp()) + self.token_seconds))

    def revoke_subject(self, sub: str) -> None:
        """Take back all that `sub` was given up to now."""
        self._revoked_subjects.append((sub, int(self._clock.now().timestamp())))

    def revocation_claims(self) -> dict[str, Any]:
        iat = int(self._clock.now().timestamp())
        return {
            "iss": self.url,
            "iat": iat,
            "exp": iat + LIST_SECONDS,
            "jtis": self._revoked_ids,
            "subjects": self._revoked_subjects,
        }

    def revocations(self) -> str:
        return self.sign({**self.header(), "typ": REVOCATIONS_TYPE}, self.revocation_claims())

    # -- What a verifier knows of it

    def profile(self, **changes: Any) -> IssuerProfile:
        return IssuerProfile(url=self.url, **changes)

    def anchor(self, profile: IssuerProfile | None = None) -> Anchor:
        """What is known of this issuer by somebody who has just read all its documents."""
        profile, now = profile or self.profile(), self._clock.now()
        keys = read_key_set(json.dumps(self.jwks()).encode(), profile)
        revocations = read_revocation_list(self.revocations().encode(), profile=profile, keys=keys, now=now)
        assert not isinstance(revocations, Refusal), revocations
        return Anchor(profile, keys, now, revocations)

    # -- Answering

    def client(self) -> httpx.AsyncClient:
        return client_of(self)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer one request as the server at `url` would."""
        path = request.url.path.removeprefix(httpx.URL(self.url).path.rstrip("/"))
        self.calls.append(path)
        if self.is_away:
            raise httpx.ConnectError("away", request=request)
        if path in self.documents and request.method == "GET":
            return self.documents[path]()
        if path == "/token" and request.method == "POST":
            return self._trade(request)
        return httpx.Response(404)

    def _trade(self, request: httpx.Request) -> httpx.Response:
        name, _, secret = (
            base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode().partition(":")
        )
        sub = unquote(name)
        if self.accounts.get(sub) != unquote(secret):
            return _oauth_error(401, "invalid_client")
        holder = self._proven_key(request)
        if isinstance(holder, httpx.Response):
            return holder
        form = parse_qs(request.content.decode(), strict_parsing=True)
        if form.get("grant_type") != ["client_credentials"] or len(form.get("audience", [])) != 1:
            return _oauth_error(400, "invalid_request")
        token = self.mint(sub, form["audience"][0], holder)
        return self.token_answer({"access_token": token, "token_type": "DPoP", "expires_in": self.token_seconds})

    def _proven_key(self, request: httpx.Request) -> bytes | httpx.Response:
        """The key that a DPoP proof proves (RFC 9449 §4.3)."""
        proof = request.headers["dpop"]
        header = json.loads(base64.urlsafe_b64decode(proof.split(".")[0] + "=="))
        try:
            claims = jwt.decode(proof, OKPKey.import_key(header["jwk"]), algorithms=["Ed25519"]).claims
        except JoseError:
            return _oauth_error(400, "invalid_dpop_proof")
        age = self._clock.now().timestamp() - claims["iat"]
        is_for_us = (header["typ"], claims["htm"], claims["htu"]) == ("dpop+jwt", "POST", str(request.url))
        if not is_for_us or abs(age) > 60 or "d" in header["jwk"]:
            return _oauth_error(400, "invalid_dpop_proof")
        if self.dpop_nonce is not None and claims.get("nonce") != self.dpop_nonce:
            return _oauth_error(400, "use_dpop_nonce", {"DPoP-Nonce": self.dpop_nonce})
        return public_from_jwk(header["jwk"])


def client_of(*issuers: FakeIssuer) -> httpx.AsyncClient:
    """A client for which these issuers, and nobody else, are on the network."""

    async def answer(request: httpx.Request) -> httpx.Response:
        for issuer in issuers:
            if str(request.url).startswith(issuer.url):
                await issuer.gate.wait()
                await asyncio.sleep(0)  # a network always lets others run
                return _as_stream(issuer.answer(request))
        raise httpx.ConnectError("nobody there", request=request)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def _as_stream(response: httpx.Response) -> httpx.Response:
    """The same answer, not yet read: as it comes from a network."""
    return httpx.Response(response.status_code, headers=response.headers, stream=httpx.ByteStream(response.content))


@asynccontextmanager
async def served_issuer(clock: Clock, *, token_seconds: int = ID_TOKEN_SECONDS) -> AsyncIterator[FakeIssuer]:
    """An issuer on a free loopback port, for tests in which processes or real clients talk to it."""
    issuer: FakeIssuer | None = None

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert issuer is not None
        try:
            request = await _read_request(reader, issuer.url)
            _write_response(writer, issuer.answer(request))
            await writer.drain()
        except (httpx.ConnectError, asyncio.IncompleteReadError):
            pass  # away: the connection ends without an answer
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        issuer = FakeIssuer(f"http://127.0.0.1:{port}", clock, token_seconds=token_seconds)
        yield issuer


async def _read_request(reader: asyncio.StreamReader, url: str) -> httpx.Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = [tuple(line.split(": ", 1)) for line in lines]
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return httpx.Request(method, url + path, headers=headers, content=await reader.readexactly(length))  # type: ignore[arg-type]


def _write_response(writer: asyncio.StreamWriter, response: httpx.Response) -> None:
    headers = {**response.headers, "content-length": str(len(response.content)), "connection": "close"}
    lines = [f"HTTP/1.1 {response.status_code} -", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode("latin-1") + response.content)


def _oauth_error(status: int, error: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, json={"error": error, "error_description": "said the issuer"}, headers=headers)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
