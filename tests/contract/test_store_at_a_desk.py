"""A store at a real desk and a real RabbitMQ: who is served, and that ledger and customer both get the bill."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import aio_pika
import httpx
import pytest_asyncio

from agents.desk import setup as desk_setup
from agents.desk import wiring as desk_wiring
from agents.store import setup as store_setup
from agents.store import wiring as store_wiring
from agents.store.settings import FILE as STORE_FILE
from bus.access import AdminAccess
from bus.desk_client import DeskClient
from bus.topology import ProviderNames
from fedci.commands import desk as desk_command
from fedci.commands import store as store_command
from identity.account import Account
from identity.keys import SigningKey, b64url
from identity.speech import Speaker
from identity.trust import verify_statement
from runtime.clock import SystemClock
from runtime.http_client import open_client
from runtime.lifecycle import Serve, Stop
from runtime.listening import bind
from runtime.store_client import StoreClient, Tab
from schemas.ids import new_attempt_id, provider_audience, store_audience, tenant_id
from schemas.refusals import Reason, Refusal
from schemas.sessions import SessionGranted
from schemas.statements import Agent, Usage
from schemas.tickets import SessionTicket, StoreTicket
from tests.issuers import FakeIssuer, served_issuer
from tests.runtime.serving import FREE_PORT

PROVIDER = "bettina.example"
NAMES = ProviderNames(PROVIDER)
CLOCK = SystemClock()


@dataclass
class Place:
    """A desk and a store that run, and who comes to them."""

    desk: DeskClient
    store_url: str
    store_key: bytes
    http: httpx.AsyncClient
    issuer: FakeIssuer
    access: AdminAccess
    vhost: str

    def speaker(self, name: str) -> tuple[Speaker, SigningKey]:
        self.issuer.accounts[name] = "secret"
        key = SigningKey.generate()
        account = Account(issuer=self.issuer.url, sub=name, api_token="secret", key=key, client=self.http, clock=CLOCK)
        return Speaker([account], key=key, clock=CLOCK), key

    async def open_session(self, speaker: Speaker) -> None:
        ticket = await speaker.ticket(provider_audience(PROVIDER), SessionTicket)
        granted = await self.desk.session(ticket)
        assert isinstance(granted, SessionGranted), granted

    async def open_tab(self, speaker: Speaker, key: SigningKey) -> Tab | Refusal:
        ticket = await speaker.ticket(
            store_audience(PROVIDER),
            StoreTicket,
            holder_key=key.public,
            attempt=new_attempt_id(),
            write_prefix="almanac/run/",
            write_bytes=1000,
            tab_ends_at=CLOCK.now() + timedelta(hours=1),
        )
        return await StoreClient(self.store_url, self.http, key.private, CLOCK).open_tab(ticket)

    async def next_in(self, queue: str) -> Usage:
        """The usage that arrives in a queue."""
        connection = await aio_pika.connect(self.access.amqp_url(self.vhost))
        async with connection, asyncio.timeout(20):
            source = await (await connection.channel()).get_queue(queue, ensure=False)
            async with source.iterator() as messages:
                message = await anext(messages)
                await message.ack()
        stated = verify_statement(message.body, Usage, key=self.store_key)
        assert not isinstance(stated, Refusal), stated
        return stated.message


@asynccontextmanager
async def running(serve: Serve, directory: Path, role: str) -> AsyncIterator[None]:
    """A role in this process, from ready to stopped."""
    stop = Stop()
    serving = asyncio.ensure_future(serve(directory, stop))
    async with asyncio.timeout(20):
        while not (directory / f"{role}.ready").exists():
            assert not serving.done(), serving
            await asyncio.sleep(0.02)
    try:
        yield
    finally:
        stop.press()
        await serving


def free_address() -> str:
    bound = bind(FREE_PORT)
    address = str(bound.listen)
    bound.socket.close()
    return address


@pytest_asyncio.fixture
async def place(rabbitmq: AdminAccess, vhost: str, tmp_path: Path) -> AsyncIterator[Place]:
    desk, store = tmp_path / "desk", tmp_path / "store"
    desk_listen, store_listen = free_address(), free_address()
    async with served_issuer(CLOCK) as issuer, open_client() as http:
        text = desk_command.SETTINGS.format(
            provider=PROVIDER,
            listen=desk_listen,
            url=f"http://{desk_listen}",
            amqp_host=rabbitmq.amqp_host,
            amqp_port=rabbitmq.amqp_port,
            vhost=vhost,
            api_url=rabbitmq.api_url,
            admin_user=rabbitmq.user,
        )
        issuers = f'\n[[issuers]]\nurl = "{issuer.url}"\n'
        made = await desk_setup.init(
            desk, text + issuers + 'welcome = "admit"\n', bus_password=rabbitmq.password.encode()
        )
        settings = store_command.SETTINGS.format(
            provider=PROVIDER,
            name="store",
            desk_url=f"http://{desk_listen}",
            root_key=b64url(made.root_key),
            listen=store_listen,
        )
        key = store_setup.init(store, settings)
        with (store / STORE_FILE).open("a") as file:
            file.write(issuers)
        await desk_setup.enrol(desk, Agent(name="store", role="store", key=key, accounts=()))
        async with running(desk_wiring.serve, desk, "desk"), running(store_wiring.serve, store, "store"):
            client = DeskClient(f"http://{desk_listen}", http)
            yield Place(client, f"http://{store_listen}", key, http, issuer, rabbitmq, vhost)


async def test_a_tenant_of_the_desk_is_served_at_once_and_billed(place: Place) -> None:
    speaker, key = place.speaker("dinah")
    await place.open_session(speaker)
    tab = await place.open_tab(speaker, key)
    assert isinstance(tab, Tab), tab
    digest = await tab.put_bytes(b"an artifact")
    assert isinstance(digest, str)
    await tab.close()
    tenant = tenant_id(place.issuer.url, "dinah")
    at_ledger = await place.next_in(NAMES.billing_ledger_queue)
    at_customer = await place.next_in(NAMES.replies(tenant))
    assert at_ledger == at_customer
    assert (at_ledger.sub, at_ledger.meter, at_ledger.quantity) == ("dinah", "store-bytes-in", Decimal(11))


async def test_who_never_came_to_the_desk_is_sent_there(place: Place) -> None:
    await place.open_session(place.speaker("dinah")[0])
    refusal = await place.open_tab(*place.speaker("nobody"))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.NOT_ADMITTED
