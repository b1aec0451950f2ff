"""The desk at a real RabbitMQ: who gets a session, what it may do, and how it ends."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import aio_pika
import pytest
import pytest_asyncio
from aio_pika.exceptions import AMQPException

from agents.desk import setup, store
from agents.desk.bus_users import BusUsers
from agents.desk.policy import IssuerPolicy, Standing, Welcome
from agents.desk.sessions import Sessions, set_standing
from agents.desk.sweeper import Sweeper
from bus.access import AdminAccess
from bus.provisioner import Provisioner
from bus.topology import ProviderNames
from identity.account import Account
from identity.keys import SigningKey
from identity.speech import Speaker
from identity.trust import Trust
from runtime.database import Database
from runtime.http_client import open_client
from runtime.migrations import upgrade
from schemas.ids import provider_audience, tenant_id
from schemas.refusals import Reason, Refusal
from schemas.sessions import BusAddress, SessionGranted
from schemas.statements import Agent
from schemas.tickets import SessionTicket, WorkerOffer
from tests.clocks import ManualClock
from tests.issuers import FakeIssuer, client_of

PROVIDER = "alice.example"
NAMES = ProviderNames(PROVIDER)
AUDIENCE = provider_audience(PROVIDER)
OFFER = WorkerOffer(
    pool="fast",
    labels=("os=linux",),
    toolchains=(),
    stores=(),
    slots=1,
    cores=1,
    memory_bytes=2**30,
    disk_bytes=2**30,
    is_network_allowed=False,
)


@dataclass
class Desk:
    sessions: Sessions
    sweeper: Sweeper
    database: Database
    issuer: FakeIssuer
    clock: ManualClock
    access: AdminAccess
    vhost: str
    ended: dict[aio_pika.abc.AbstractConnection, asyncio.Event] = field(default_factory=dict)

    def customer(self, sub: str, issuer: FakeIssuer | None = None) -> Speaker:
        at = issuer or self.issuer
        at.accounts[sub] = "secret"
        key = SigningKey.generate()
        account = Account(issuer=at.url, sub=sub, api_token="secret", key=key, client=client_of(at), clock=self.clock)
        return Speaker([account], key=key, clock=self.clock)

    async def ask(self, speaker: Speaker) -> SessionGranted | Refusal:
        return await self.sessions.for_tenant(await speaker.ticket(AUDIENCE, SessionTicket))

    async def enrol(self, name: str) -> Speaker:
        key = SigningKey.generate()
        async with self.database.write() as session:
            await store.enrol(session, Agent(name=name, role="worker", key=key.public, accounts=()), self.clock.now())
        return Speaker([], key=key, clock=self.clock)

    async def connect(self, granted: SessionGranted) -> aio_pika.abc.AbstractConnection:
        url = self.access.amqp_url(self.vhost, granted.user, granted.password)
        connection = await aio_pika.connect(url, timeout=10)
        self.ended[connection] = asyncio.Event()
        connection.close_callbacks.add(lambda *_: self.ended[connection].set())
        return connection

    async def cut_off(self, connection: aio_pika.abc.AbstractConnection) -> None:
        """Return once RabbitMQ has closed this connection."""
        async with asyncio.timeout(20):
            await self.ended[connection].wait()


@pytest_asyncio.fixture
async def desk(rabbitmq: AdminAccess, vhost: str, tmp_path: Path) -> AsyncIterator[Desk]:
    clock = ManualClock()
    issuer = FakeIssuer("https://id.fatima.example", clock)
    path = tmp_path / "desk.sqlite"
    await upgrade(path, setup.MIGRATIONS)
    database = Database.open(path)
    http = open_client()
    provisioner = Provisioner(rabbitmq, vhost, http)
    await provisioner.ensure_vhost()
    trust = Trust([issuer.profile()], client=issuer.client(), clock=clock)
    sessions = Sessions(
        provider=PROVIDER,
        address=BusAddress(host=rabbitmq.amqp_host, port=rabbitmq.amqp_port, vhost=vhost, is_tls=False),
        database=database,
        provisioner=provisioner,
        users=BusUsers(f"{PROVIDER}-{vhost}", provisioner, b"s" * 32, connections=4, channels=64),
        trust=trust,
        policies={issuer.url: IssuerPolicy(Welcome.ADMIT, 3)},
        session_seconds=600,
        clock=clock,
    )
    sweeper = Sweeper(sessions, database, trust, clock, idle=timedelta(days=30))
    yield Desk(sessions, sweeper, database, issuer, clock, rabbitmq, vhost)
    for user in await provisioner.list_session_users(f"{PROVIDER}-{vhost}:"):
        await provisioner.remove_user(user)
    await database.close()
    await http.aclose()


def granted(answer: SessionGranted | Refusal) -> SessionGranted:
    assert isinstance(answer, SessionGranted), answer
    return answer


def reason(answer: SessionGranted | Refusal) -> Reason:
    assert isinstance(answer, Refusal)
    return answer.reason


async def test_a_tenant_gets_a_user_that_may_use_its_own_exchanges_and_nothing_else(desk: Desk) -> None:
    dinah = desk.customer("dinah")
    session = granted(await desk.ask(dinah))
    other = granted(await desk.ask(desk.customer("eliza")))
    assert session.tenants == (tenant_id(desk.issuer.url, "dinah"),)
    connection = await desk.connect(session)
    try:
        for exchange in (NAMES.jobs_exchange(other.tenants[0]), NAMES.billing_exchange, ""):
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
            with pytest.raises(AMQPException):
                await target.publish(aio_pika.Message(b"x"), routing_key="fast", timeout=10)
        channel = await connection.channel()
        with pytest.raises(AMQPException):
            await channel.declare_queue("mine", timeout=10)
    finally:
        await connection.close()


async def test_renewing_keeps_the_user_and_moves_the_end(desk: Desk) -> None:
    dinah = desk.customer("dinah")
    first = granted(await desk.ask(dinah))
    desk.clock.advance(60)
    second = granted(await desk.ask(dinah))
    assert (second.user, second.password) == (first.user, first.password)
    assert second.ends_at - first.ends_at == timedelta(seconds=60)


async def test_a_ticket_is_good_once(desk: Desk) -> None:
    ticket = await desk.customer("dinah").ticket(AUDIENCE, SessionTicket)
    granted(await desk.sessions.for_tenant(ticket))
    assert reason(await desk.sessions.for_tenant(ticket)) is Reason.REPLAYED


async def test_an_account_of_an_issuer_that_is_not_trusted_is_refused(desk: Desk) -> None:
    stranger = FakeIssuer("https://id.georgina.example", desk.clock)
    assert reason(await desk.ask(desk.customer("eliza", stranger))) is Reason.ISSUER_UNTRUSTED


async def test_the_fourth_account_of_an_issuer_with_a_cap_of_three_is_refused(desk: Desk) -> None:
    for sub in ("a", "b", "c"):
        granted(await desk.ask(desk.customer(sub)))
    assert reason(await desk.ask(desk.customer("d"))) is Reason.TOO_MANY_TENANTS


async def test_a_session_past_its_end_is_closed_with_its_connections_and_its_user_never_returns(desk: Desk) -> None:
    dinah = desk.customer("dinah")
    first = granted(await desk.ask(dinah))
    connection = await desk.connect(first)
    desk.clock.advance(601)
    await desk.sweeper.sweep()
    await desk.cut_off(connection)
    with pytest.raises(AMQPException):
        await desk.connect(first)
    second = granted(await desk.ask(dinah))
    assert second.user != first.user
    assert second.password != first.password


async def test_a_suspended_tenant_is_cut_off_and_told_why(desk: Desk) -> None:
    dinah = desk.customer("dinah")
    connection = await desk.connect(granted(await desk.ask(dinah)))
    tenant = tenant_id(desk.issuer.url, "dinah")
    assert await set_standing(desk.database, tenant, Standing.SUSPENDED, desk.clock.now())
    await desk.sweeper.sweep()
    await desk.cut_off(connection)
    assert reason(await desk.ask(dinah)) is Reason.SUSPENDED


async def test_an_account_that_its_issuer_takes_back_is_cut_off(desk: Desk) -> None:
    connection = await desk.connect(granted(await desk.ask(desk.customer("dinah"))))
    desk.clock.advance(30)
    desk.issuer.revoke_subject("dinah")
    await desk.ask(desk.customer("eliza"))
    await desk.sessions._trust.prime()
    await desk.sweeper.sweep()
    await desk.cut_off(connection)


async def test_a_worker_learns_of_a_new_tenant_while_it_waits(desk: Desk) -> None:
    worker = await desk.enrol("w7")
    first = granted(await desk.sessions.for_agent(worker.agent_ticket(PROVIDER, agent="w7", offer=OFFER)))
    assert first.tenants == ()
    waiting = asyncio.create_task(
        desk.sessions.for_agent(worker.agent_ticket(PROVIDER, agent="w7", offer=OFFER), first.revision, 25)
    )
    tenant = granted(await desk.ask(desk.customer("dinah"))).tenants
    async with asyncio.timeout(10):
        second = granted(await waiting)
    assert second.tenants == tenant
    connection = await desk.connect(second)
    channel = await connection.channel()
    queue = await channel.get_queue(NAMES.jobs_queue(tenant[0], "fast"), ensure=False)
    assert await queue.get(fail=False, timeout=10) is None
    await connection.close()


async def test_a_desk_that_stops_lets_no_agent_wait(desk: Desk) -> None:
    worker = await desk.enrol("w7")
    first = granted(await desk.sessions.for_agent(worker.agent_ticket(PROVIDER, agent="w7", offer=OFFER)))
    waiting = asyncio.create_task(
        desk.sessions.for_agent(worker.agent_ticket(PROVIDER, agent="w7", offer=OFFER), first.revision, 25)
    )
    await asyncio.sleep(0)
    await desk.sessions.answer_all()
    async with asyncio.timeout(5):
        assert granted(await waiting).revision == first.revision


async def test_a_tenants_job_reaches_the_worker_and_no_other_tenant(desk: Desk) -> None:
    worker = await desk.enrol("w7")
    dinah = granted(await desk.ask(desk.customer("dinah")))
    at_work = granted(await desk.sessions.for_agent(worker.agent_ticket(PROVIDER, agent="w7", offer=OFFER)))
    sending, receiving = await desk.connect(dinah), await desk.connect(at_work)
    exchange = await (await sending.channel(on_return_raises=True)).get_exchange(
        NAMES.jobs_exchange(dinah.tenants[0]), ensure=False
    )
    await exchange.publish(aio_pika.Message(b"job"), routing_key="fast", timeout=10)
    queue = await (await receiving.channel()).get_queue(NAMES.jobs_queue(dinah.tenants[0], "fast"), ensure=False)
    message = await queue.get(timeout=10)
    assert message is not None
    assert message.body == b"job"
    assert message.exchange == NAMES.jobs_exchange(dinah.tenants[0])
    await sending.close()
    await receiving.close()


async def test_an_agent_that_is_not_enrolled_or_signs_with_another_key_is_refused(desk: Desk) -> None:
    await desk.enrol("w7")
    thief = Speaker([], key=SigningKey.generate(), clock=desk.clock)
    for name in ("w7", "w8"):
        answer = await desk.sessions.for_agent(thief.agent_ticket(PROVIDER, agent=name, offer=OFFER))
        assert reason(answer) in (Reason.ENVELOPE_SIGNATURE, Reason.UNKNOWN_AGENT)


async def test_reconciling_removes_users_that_nobody_has_and_remakes_those_that_rabbitmq_lost(desk: Desk) -> None:
    session = granted(await desk.ask(desk.customer("dinah")))
    provisioner = desk.sessions._provisioner
    stray = session.user.replace(":1", ":99")
    await provisioner.create_session_user(stray, "x" * 30, desk.sessions._users._applied[session.user])
    await provisioner.remove_user(session.user)
    await desk.sessions.reconcile()
    prefix = session.user.partition(":")[0] + ":"
    assert await provisioner.list_session_users(prefix) == [session.user]
    await (await desk.connect(session)).close()


async def test_a_tenant_long_away_loses_its_queues_and_gets_new_ones_when_it_returns(desk: Desk) -> None:
    dinah = desk.customer("dinah")
    tenant = granted(await desk.ask(dinah)).tenants[0]
    desk.clock.advance(31 * 24 * 3600)
    await desk.sweeper.sweep()
    assert NAMES.replies(tenant) not in await desk.sessions._provisioner.queue_depths()
    assert (await desk.sessions.facts()).tenants == ()
    granted(await desk.ask(dinah))
    assert (await desk.sessions.facts()).tenants == (tenant,)
