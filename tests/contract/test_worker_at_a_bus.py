"""A whole worker at a real RabbitMQ behind a real desk; the customer is played by the test.

What units cannot show: the names and rights are enough, an idle worker wakes at once, the bus may break in between.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import pytest_asyncio

from agents.desk import setup as desk_setup
from agents.desk import wiring as desk_wiring
from agents.worker import setup as worker_setup
from agents.worker import wiring as worker_wiring
from bus.access import AdminAccess
from bus.desk_client import DeskClient
from bus.session import BusSession, Delivery, Fate
from bus.topology import ProviderNames, control_key, jobs_key
from fedci.commands.desk import SETTINGS as DESK_SETTINGS
from fedci.commands.worker import SETTINGS as WORKER_SETTINGS
from identity.account import Account
from identity.keys import SigningKey, b64url
from identity.speech import Speaker
from identity.trust import verify_report, verify_statement
from runtime.clock import SystemClock
from runtime.http_client import open_client
from runtime.lifecycle import Stop, StopLevel
from runtime.outbox import Sent
from runtime.secrets import write_secret
from schemas import ids
from schemas.ends import EndReason
from schemas.ids import sha256_hex
from schemas.orders import Cancel, Grant, GrantSecrets, Job, Order, Settled
from schemas.refusals import Refusal
from schemas.reports import Claim, Finished, Heartbeat, Log, Refused
from schemas.sealing import seal_for_claim
from schemas.sessions import SessionGranted
from schemas.statements import Card, Usage
from schemas.tickets import SessionTicket
from schemas.wire import Message
from tests.agents.worker.jobs import job_fields
from tests.agents.worker.world import read
from tests.issuers import FakeIssuer, served_issuer

PROVIDER = "alice.example"
WORKER = "w7"
NAMES = ProviderNames(PROVIDER)
WAIT_SECONDS = 20


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Customer:
    """A controller's end of the bus: what came, by type, and what it says."""

    speaker: Speaker
    tenant: str
    bus: BusSession
    rate_card: str = ""
    heard: list[tuple[Message, bytes]] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def hear(self, delivery: Delivery) -> Fate:
        async with self.news:
            self.heard.append((read(delivery.body), delivery.body))
            self.news.notify_all()
        return Fate.SETTLED

    def of(self, model: type[Message]) -> list[Any]:
        return [message for message, _ in self.heard if isinstance(message, model)]

    async def until(self, is_true: Callable[[], Any]) -> Any:
        async with asyncio.timeout(WAIT_SECONDS), self.news:
            return await self.news.wait_for(is_true)

    async def first(self, model: type[Message], count: int = 1) -> Any:
        await self.until(lambda: len(self.of(model)) >= count)
        return self.of(model)[count - 1]

    async def publish_job(self, **changes: Any) -> None:
        fields = job_fields(**({"rate_card": self.rate_card} | changes))
        await self._say(NAMES.jobs_exchange(self.tenant), jobs_key("fast"), Job, fields)

    async def grant(self, claim: Claim, **secrets: Any) -> None:
        box = msgpack.packb(GrantSecrets(**secrets).model_dump(), use_bin_type=True)
        sealed = seal_for_claim(box, claim.grant_key, attempt=claim.attempt, claim=claim.claim)
        await self.order(claim, Grant, sealed=sealed)

    async def order(self, claim: Claim, model: type[Order], **fields: Any) -> None:
        said = {"attempt": claim.attempt, "claim": claim.claim, **fields}
        await self._say(NAMES.control_exchange(self.tenant), control_key(WORKER), model, said)

    async def _say(self, exchange: str, key: str, model: type[Order], fields: dict[str, Any]) -> None:
        body = await self.speaker.order(PROVIDER, model, **fields)
        answer = await self.bus.publish(exchange, key, body, message_type=model.TYPE, correlation_id="test")
        assert isinstance(answer, Sent), answer

    def log(self, claim: Claim) -> bytes:
        chunks = {log.offset: log.data for log in self.of(Log) if log.claim == claim.claim}
        return b"".join(chunks[offset] for offset in sorted(chunks))


@dataclass
class Place:
    """A provider with a desk, a worker's directory, an issuer, and one customer."""

    directory: Path
    issuer: FakeIssuer
    customer: Customer
    key: bytes

    @asynccontextmanager
    async def process(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """The worker as it is deployed; killed at the end of the block."""
        command = (sys.executable, "-m", "fedci", "worker", "run", str(self.directory))
        process = await asyncio.create_subprocess_exec(*command)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Stop]:
        stop = Stop()
        running = asyncio.create_task(worker_wiring.serve(self.directory, stop))
        try:
            yield stop
        finally:
            stop.rise_to(StopLevel.HAND_BACK)
            async with asyncio.timeout(WAIT_SECONDS):
                await running


@pytest_asyncio.fixture
async def place(rabbitmq: AdminAccess, vhost: str, tmp_path: Path) -> AsyncIterator[Place]:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(served_issuer(clock))
        listen = f"127.0.0.1:{_free_port()}"
        desk = await _make_desk(tmp_path / "desk", issuer, rabbitmq, vhost, listen)
        key = _make_worker(tmp_path / "worker", issuer, desk, listen)
        account = [f"{issuer.url}={WORKER}"]
        await desk_setup.enrol(tmp_path / "desk", desk_setup.agent(WORKER, "worker", b64url(key), account))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        stop = Stop()
        tasks.create_task(desk_wiring.serve(tmp_path / "desk", stop))
        stack.callback(stop.rise_to, StopLevel.DRAIN)
        http = await stack.enter_async_context(open_client())
        customer = await _make_customer(issuer, DeskClient(f"http://{listen}", http), clock)
        running = tasks.create_task(customer.bus.run())
        stack.callback(running.cancel)
        await customer.bus.up()
        card = verify_statement(await DeskClient(f"http://{listen}", http).card(), Card, key=desk)
        assert not isinstance(card, Refusal)
        customer.rate_card = card.message.rate_card
        yield Place(tmp_path / "worker", issuer, customer, key)


async def _make_desk(directory: Path, issuer: FakeIssuer, rabbitmq: AdminAccess, vhost: str, listen: str) -> bytes:
    text = DESK_SETTINGS.format(
        provider=PROVIDER,
        listen=listen,
        url=f"http://{listen}",
        amqp_host=rabbitmq.amqp_host,
        amqp_port=rabbitmq.amqp_port,
        vhost=vhost,
        api_url=rabbitmq.api_url,
        admin_user=rabbitmq.user,
    )
    text += f'[[issuers]]\nurl = "{issuer.url}"\nwelcome = "admit"\n'
    made = await desk_setup.init(directory, text, bus_password=rabbitmq.password.encode())
    return made.root_key


def _make_worker(directory: Path, issuer: FakeIssuer, root_key: bytes, listen: str) -> bytes:
    issuer.accounts[WORKER] = "secret-of-the-worker"
    text = WORKER_SETTINGS.format(
        provider=PROVIDER,
        name=WORKER,
        pool="fast",
        labels="[]",
        slots=2,
        desk_url=f"http://{listen}",
        root_key=b64url(root_key),
        executor="process",
    )
    text += f'[[issuers]]\nurl = "{issuer.url}"\n'
    text += f'[[accounts]]\nurl = "{issuer.url}"\nsub = "{WORKER}"\napi_token_file = "issuer.token"\n'
    key = worker_setup.init(directory, text)
    write_secret(directory / "issuer.token", b"secret-of-the-worker")
    return key


async def _make_customer(issuer: FakeIssuer, desk: DeskClient, clock: SystemClock) -> Customer:
    issuer.accounts["dinah"] = "secret"
    key, http = SigningKey.generate(), open_client()
    account = Account(issuer=issuer.url, sub="dinah", api_token="secret", key=key, client=http, clock=clock)
    speaker = Speaker([account], key=key, clock=clock)

    async def credentials(_: int | None) -> SessionGranted | Refusal:
        while True:
            try:
                return await desk.session(await speaker.ticket(ids.provider_audience(PROVIDER), SessionTicket))
            except OSError:
                await asyncio.sleep(0.05)

    tenant = ids.tenant_id(issuer.url, "dinah")
    customer = Customer(speaker, tenant, BusSession(credentials, name="dinah", clock=clock))
    for queue in (NAMES.replies(tenant), NAMES.logs(tenant)):
        customer.bus.consume(queue, customer.hear)
    return customer


async def _pool_is_there(customer: Customer) -> None:
    """Jobs can be published once the desk has heard the worker's offer."""
    body = await customer.speaker.order(PROVIDER, Job, **job_fields(rate_card="0" * 64))
    exchange, key = NAMES.jobs_exchange(customer.tenant), jobs_key("fast")
    async with asyncio.timeout(WAIT_SECONDS):
        while not isinstance(  # noqa: ASYNC110 - what we wait for happens in another's RabbitMQ
            await customer.bus.publish(exchange, key, body, message_type=Job.TYPE, correlation_id="t"), Sent
        ):
            await asyncio.sleep(0.1)
    await customer.first(Refused)


async def test_a_job_goes_all_the_way(place: Place) -> None:
    customer = place.customer
    async with place.worker():
        await _pool_is_there(customer)
        await customer.publish_job(steps=({"name": "say", "run": "echo hello; echo $TOKEN"},), secrets=("TOKEN",))
        claim = await customer.first(Claim)
        await customer.grant(claim, secrets={"TOKEN": "s3cret"})
        finished = await customer.first(Finished)
        await customer.until(lambda: len(customer.log(claim)) == finished.log_bytes)
        await customer.first(Usage, 5)
        await customer.order(claim, Settled)
    assert finished.reason is EndReason.SUCCEEDED
    assert customer.log(claim).endswith(b"hello\ns3cret\n")
    assert sha256_hex(customer.log(claim)) == finished.log_sha256
    audience = ids.controller_audience(customer.tenant)
    for message, body in customer.heard:
        if isinstance(message, Log | Heartbeat | Finished):
            assert not isinstance(verify_report(body, key=place.key, audience=audience), Refusal)
        if isinstance(message, Usage):
            assert not isinstance(verify_statement(body, Usage, key=place.key), Refusal)


async def test_an_idle_worker_claims_at_once(place: Place) -> None:
    customer = place.customer
    async with place.worker():
        await _pool_is_there(customer)
        loop = asyncio.get_running_loop()
        times = []
        for count in (1, 2, 3):
            started = loop.time()
            await customer.publish_job()
            claim = await customer.first(Claim, count)
            times.append(loop.time() - started)
            await customer.grant(claim)
            await customer.first(Finished, count)
    assert min(times) < 0.2, times


async def test_a_cancel_reaches_a_running_job(place: Place) -> None:
    customer = place.customer
    async with place.worker():
        await _pool_is_there(customer)
        await customer.publish_job(steps=({"name": "wait", "run": "echo started; sleep 600"},))
        claim = await customer.first(Claim)
        await customer.grant(claim)
        await customer.until(lambda: b"started" in customer.log(claim))
        await customer.order(claim, Cancel, cause="user")
        assert (await customer.first(Finished)).reason is EndReason.CANCELLED


async def test_a_worker_that_is_handed_back_says_so_and_another_start_says_the_rest(place: Place) -> None:
    customer = place.customer
    async with place.worker() as stop:
        await _pool_is_there(customer)
        await customer.publish_job(steps=({"name": "wait", "run": "echo started; sleep 600"},))
        claim = await customer.first(Claim)
        await customer.grant(claim)
        await customer.until(lambda: b"started" in customer.log(claim))
        stop.rise_to(StopLevel.HAND_BACK)
    assert (await customer.first(Finished)).reason is EndReason.WORKER_SHUTDOWN
    async with place.worker():
        await customer.publish_job()
        assert (await customer.first(Claim, 2)).claim != claim.claim


async def test_a_worker_that_was_killed_reports_its_job_at_its_next_start(place: Place) -> None:
    customer = place.customer
    async with place.process() as process:
        await _pool_is_there(customer)
        await customer.publish_job(steps=({"name": "wait", "run": "echo started; sleep 600"},))
        claim = await customer.first(Claim)
        await customer.grant(claim)
        await customer.until(lambda: b"started" in customer.log(claim))
        process.kill()
    async with place.worker():
        finished = await customer.first(Finished)
        await customer.until(lambda: len(customer.log(claim)) == finished.log_bytes)
    assert finished.reason is EndReason.WORKER_RESTARTED
    assert sha256_hex(customer.log(claim)) == finished.log_sha256


async def test_an_idle_worker_is_small_and_stops_at_a_signal(place: Place) -> None:
    customer = place.customer
    async with place.process() as process:
        await _pool_is_there(customer)
        await customer.publish_job()
        await customer.grant(await customer.first(Claim))
        await customer.first(Finished)
        resident_bytes = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WAIT_SECONDS):
            assert await process.wait() == 0
    assert resident_bytes < 80_000_000, resident_bytes
