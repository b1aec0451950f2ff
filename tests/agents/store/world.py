"""A store on a loopback port with real files and a real database, its customers, and the clock they share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select
from starlette.types import ASGIApp, Receive, Scope, Send

from agents.store import setup, wiring
from agents.store.settings import FILE, StoreSettings
from agents.store.setup import Opened
from agents.store.tables import OutboxRow
from agents.store.wiring import Services
from identity.keys import SigningKey, b64url
from identity.own_card import OwnCard
from identity.trust import Trust, verify_statement
from runtime.database import Database
from runtime.errors import WorldFault
from runtime.outbox_table import OutboxTable
from runtime.settings import load
from runtime.store_client import Patience, StoreClient, Tab
from schemas import frame, store_api
from schemas.ids import new_attempt_id, new_message_id, sha256_hex, store_audience, tenant_id
from schemas.refusals import Refusal
from schemas.statements import Card, Usage
from schemas.store_api import StoreRequest
from schemas.tickets import SessionTicket, StoreTicket
from tests.clocks import ManualClock
from tests.issuers import FakeIssuer, client_of

PROVIDER = "bettina.example"
RATE_CARD = "c" * 64
IMPATIENT = Patience(seconds=3, first_pause_seconds=0.01, last_pause_seconds=0.05)
SETTINGS = """
provider = "{provider}"
desk_url = "http://127.0.0.1:1"
root_key = "{root_key}"
listen = "127.0.0.1:0"
{more}
"""


@dataclass(frozen=True)
class Customer:
    """A principal with a key, that signs tickets; mostly for itself as holder."""

    issuer: FakeIssuer
    sub: str
    key: SigningKey
    clock: ManualClock

    @property
    def tenant(self) -> str:
        return tenant_id(self.issuer.url, self.sub)

    def ticket(self, *, audience: str = store_audience(PROVIDER), **changes: Any) -> bytes:
        """A good ticket, unless a test spoils it."""
        token = self.issuer.mint(self.sub, audience, self.key.public)
        said = {
            "iss": self.issuer.url,
            "sub": self.sub,
            "ath": frame.token_hash(token),
            "id": new_message_id(),
            "aud": audience,
            "issued_at": self.clock.now(),
            "expires_at": self.clock.now() + timedelta(seconds=60),
            "holder_key": self.key.public,
            "attempt": new_attempt_id(),
            "write_prefix": "almanac/run1/build/attempt1/",
            "write_bytes": 10_000_000,
            "tab_ends_at": self.clock.now() + timedelta(hours=1),
        }
        return frame.seal(StoreTicket(**{**said, **changes}), self.key.private, token)

    def session_ticket(self) -> bytes:
        token = self.issuer.mint(self.sub, store_audience(PROVIDER), self.key.public)
        now = self.clock.now()
        ticket = SessionTicket(
            iss=self.issuer.url,
            sub=self.sub,
            ath=frame.token_hash(token),
            id=new_message_id(),
            aud=store_audience(PROVIDER),
            issued_at=now,
            expires_at=now + timedelta(seconds=60),
        )
        return frame.seal(ticket, self.key.private, token)


class Desk:
    """Where the store reads its provider's card; may be away."""

    def __init__(self, root: SigningKey, clock: ManualClock) -> None:
        self.rate_card: str | None = RATE_CARD
        self.serial = 1
        self._root = root
        self._clock = clock

    async def card(self) -> bytes:
        if self.rate_card is None:
            raise WorldFault("away")
        card = Card(
            provider=PROVIDER,
            serial=self.serial,
            desk_url="http://127.0.0.1:1",
            issuers=(),
            agents=(),
            pools=(),
            store=None,
            rate_card=self.rate_card,
            speaks=(),
            issued_at=self._clock.now(),
            expires_at=self._clock.now() + timedelta(days=30),
        )
        return frame.seal(card, self._root.private)

    async def statement(self, digest: str) -> bytes | Refusal:
        raise AssertionError(f"nobody asks for {digest}")


class Front:
    """A server whose application may be another one for each request."""

    def __init__(self) -> None:
        self.url = ""
        self.app: ASGIApp | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self.app(scope, receive, send)

    async def finish(self) -> None:
        """Wait for all requests, as a server does that stops: some work goes on after the answer."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=10)


class World:
    """Everything around one store; `restart` is a new process on the same directory."""

    def __init__(
        self, directory: Path, clock: ManualClock, http: httpx.AsyncClient, front: Front, more_settings: str
    ) -> None:
        root = SigningKey.generate()
        self.directory = directory
        self.clock = clock
        self.http = http
        self.front = front
        self.url = front.url
        self.desk = Desk(root, clock)
        self.issuers = (FakeIssuer("https://fatima.example", clock), FakeIssuer("https://georgina.example", clock))
        self.dinah = Customer(self.issuers[0], "dinah", SigningKey.generate(), clock)
        self.eliza = Customer(self.issuers[1], "eliza", SigningKey.generate(), clock)
        self.tenants: set[str] | None = {self.dinah.tenant, self.eliza.tenant}
        self._root = root
        profiles = "".join(f'[[issuers]]\nurl = "{issuer.url}"\n' for issuer in self.issuers)
        settings = SETTINGS.format(provider=PROVIDER, root_key=b64url(root.public), more=more_settings)
        self.store_key = setup.init(directory, settings + profiles)
        self.store: Opened
        self.services: Services

    # -- the store

    @asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        """Serve the store from its directory, as after every start."""
        async with AsyncExitStack() as stack:
            self.store = await stack.enter_async_context(self._opened())
            trust = Trust(self.store.settings.issuers, client=client_of(*self.issuers), clock=self.clock)
            card = OwnCard(PROVIDER, self._root.public, self.desk, self.clock)
            outbox = OutboxTable(self.store.database, OutboxRow, self.clock, asyncio.Event())
            self.services = wiring.build(self.store, trust, card, self._is_tenant, outbox, self.clock)
            self.front.app = self.services.app
            stack.push_async_callback(self.front.finish)
            yield self

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Opened]:
        """As `setup.opened`, for a database that is up to date: migrating costs more than most tests."""
        settings = load(self.directory / FILE, StoreSettings)
        database = Database.open(self.directory / setup.DATABASE)
        try:
            yield Opened(self.directory, settings, SigningKey.load(self.directory / settings.key_file), database)
        finally:
            await database.close()

    async def _is_tenant(self, tenant: str) -> bool | None:
        return None if self.tenants is None else tenant in self.tenants

    # -- who uses it

    def client(self, key: SigningKey, url: str | None = None) -> StoreClient:
        return StoreClient(url or self.url, self.http, key.private, self.clock, patience=IMPATIENT)

    async def tab(self, customer: Customer | None = None, *, url: str | None = None, **ticket: Any) -> Tab:
        customer = customer or self.dinah
        opened = await self.client(customer.key, url).open_tab(customer.ticket(**ticket))
        assert isinstance(opened, Tab), opened
        return opened

    async def ask(
        self,
        tab: str,
        method: str,
        path: str,
        *,
        digest: str = store_api.NO_DIGEST,
        key: SigningKey | None = None,
        at: datetime | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
        **signed: str,
    ) -> httpx.Response:
        """One request, signed as told: for what the client would never send."""
        said = {"tab": tab, "method": method, "path": path, "digest": digest, **signed}
        request = StoreRequest(**said, at=at or self.clock.now())
        signature = request.headers((key or self.dinah.key).private)
        return await self.http.request(method, self.url + path, headers={**signature, **(headers or {})}, content=body)

    async def put(self, tab: Tab, data: bytes) -> str:
        """Store bytes, and expect that it works."""
        digest = await tab.put_bytes(data)
        assert isinstance(digest, str), digest
        return digest

    async def receiving(self) -> None:
        """Return when the store has some bytes of an upload."""
        async with asyncio.timeout(5):
            while not any(file.stat().st_size for file in self.files()):  # noqa: ASYNC110  # a thread writes them
                await asyncio.sleep(0)

    # -- what it left

    def blob_file(self, customer: Customer, digest: str) -> Path:
        return self.directory / "blobs" / "data" / customer.tenant / digest[:2] / digest

    def files(self) -> list[Path]:
        """Every file of a blob or an upload."""
        return sorted(path for path in (self.directory / "blobs").rglob("*") if path.is_file())

    async def stated(self) -> list[tuple[str, Usage]]:
        """What is in the outbox: where it goes, and the usage that it states."""
        async with self.store.database.read() as session:
            rows = list(await session.scalars(select(OutboxRow).order_by(OutboxRow.id)))
        return [(row.destination, self._read(row.body)) for row in rows]

    async def billed(self, meter: str) -> dict[str, Decimal]:
        """The quantities on their way to the ledger, by subject; a fact stated twice fails."""
        found: dict[str, Decimal] = {}
        for destination, usage in await self.stated():
            if destination.startswith("billing.") and usage.meter == meter:
                assert usage.subject not in found
                found[usage.subject] = usage.quantity
        return found

    def _read(self, body: bytes) -> Usage:
        stated = verify_statement(body, Usage, key=self.store_key)
        assert not isinstance(stated, Refusal), stated
        return stated.message


NewWorld = Callable[..., World]


def reason(response: httpx.Response) -> str:
    """Why a request was refused."""
    return str(response.json()["reason"])


def digest_of(data: bytes) -> str:
    return sha256_hex(data)
