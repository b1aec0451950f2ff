"""A real identity server in a directory of its own, reached without a socket, under a clock that a test moves."""

import base64
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx

from identity.keys import SigningKey
from identity.server import administration
from identity.server.administration import Operator
from identity.server.application import Measures, build_application
from identity.server.authorization import Issuer
from identity.server.failures import FailureBrake
from identity.server.settings import IdentitySettings
from identity.server.store import Store, write
from identity.server.wiring import House, initialise, opened
from tests.clocks import ManualClock
from tests.issuers import sign_jwt

URL = "http://127.0.0.1:8101"
AUDIENCE = "fedci:provider:alice.example"
FORM = {"grant_type": "client_credentials", "audience": AUDIENCE}
T = TypeVar("T")


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


@dataclass
class Holder:
    """Somebody with an account: what it would send, to be spoilt by tests."""

    name: str
    api_token: str
    key: SigningKey
    clock: ManualClock
    proofs_made: int = 0

    def header(self) -> dict[str, Any]:
        return {"typ": "dpop+jwt", "alg": "Ed25519", "jwk": self.key.public_jwk()}

    def proof(self, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A DPoP proof for `POST /token`, with whatever is different about it."""
        self.proofs_made += 1
        sound = {
            "jti": f"{self.key.thumbprint}-{self.proofs_made}",
            "htm": "POST",
            "htu": f"{URL}/token",
            "iat": int(self.clock.now().timestamp()),
        }
        told = {name: value for name, value in (sound | claims).items() if value is not None}
        return sign_jwt(self.key, self.header() | dict(header or {}), told)


@dataclass
class Server:
    """The server, its database, and a client at some address."""

    directory: Path
    house: House
    issuer: Issuer
    client: httpx.AsyncClient
    clock: ManualClock

    def operator(self) -> Operator:
        return Operator("test", self.clock.now())

    async def operate(self, act: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Run one act of `administration`."""
        return await self.change(lambda store: act(store, self.operator(), *arguments, **options))

    async def change(self, work: Callable[[Store], T]) -> T:
        return await write(self.house.database, work)

    async def enrol(self, name: str, key: SigningKey | None = None) -> Holder:
        await self.operate(administration.add_account, name)
        issued = await self.operate(administration.issue_api_token, name)
        return Holder(name, issued.token, key or SigningKey.generate(), self.clock)

    async def rotate(self, *, emergency: bool = False) -> str:
        return await self.operate(
            administration.rotate_keys,
            self.issuer.files,
            jwks_max_age_seconds=self.issuer.settings.jwks_max_age_seconds,
            emergency=emergency,
        )

    async def ask(
        self,
        holder: Holder,
        *,
        form: Mapping[str, str] | Sequence[tuple[str, str]] = FORM,
        proofs: Sequence[str] | None = None,
        secret: str | None = None,
        path: str = "/token",
        headers: Mapping[str, str] | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> httpx.Response:
        """Post a form as the holder would; everything sound unless said otherwise."""
        sent = {
            "authorization": basic(holder.name, secret or holder.api_token),
            "content-type": "application/x-www-form-urlencoded",
            **(headers or {}),
        }
        dpop = [("dpop", proof) for proof in (proofs if proofs is not None else [holder.proof()])]
        content = urlencode(form if isinstance(form, Mapping) else list(form))
        return await (client or self.client).post(path, content=content, headers=[*sent.items(), *dpop])

    async def token(self, holder: Holder, audience: str = AUDIENCE) -> str:
        answer = await self.ask(holder, form=FORM | {"audience": audience})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def post_token(self, path: str, holder: Holder, token: str) -> httpx.Response:
        return await self.ask(holder, path=path, form={"token": token}, proofs=[])

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What is really in the file."""
        connection = sqlite3.connect(self.directory / "identity.sqlite")
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def from_address(self, address: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self._application(), client=(address, 1234))
        return httpx.AsyncClient(transport=transport, base_url=URL)

    def _application(self) -> Any:
        return build_application(self.issuer, self.house.database, Measures.new())


@asynccontextmanager
async def running(directory: Path, clock: ManualClock, **changes: Any) -> AsyncIterator[Server]:
    """An initialised directory and its application; `changes` are settings."""
    await initialise(directory, issuer=URL, listen="127.0.0.1:8101", clock=clock)
    async with opened(directory) as house:
        settings = IdentitySettings.model_validate(house.settings.model_dump() | changes)
        brake = FailureBrake(settings.failed_logins, settings.failed_login_pause_seconds)
        issuer = Issuer(settings, house.files, brake, clock)
        transport = httpx.ASGITransport(
            build_application(issuer, house.database, Measures.new()), client=("192.0.2.1", 1234)
        )
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            yield Server(directory, house, issuer, client, clock)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and error code of an OAuth error, which must also explain itself."""
    body = answer.json()
    assert body["error_description"]
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, body["error"]
