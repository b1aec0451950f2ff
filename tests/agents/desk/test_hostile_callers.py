"""Callers that come too often, too late, in too great a number, or with a key that is theirs no more."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest_asyncio

from agents.desk import setup, store
from agents.desk.bus_users import BusUsers
from agents.desk.policy import IssuerPolicy, Standing, Welcome
from agents.desk.sessions import Sessions
from agents.desk.sweeper import Sweeper
from agents.desk.tables import TenantRow
from bus.topology import MAX_TENANTS
from identity.account import Account
from identity.keys import SigningKey
from identity.speech import Speaker
from identity.trust import Trust
from runtime.database import Database
from runtime.migrations import upgrade
from schemas.ids import provider_audience, tenant_id
from schemas.refusals import Reason, Refusal
from schemas.sessions import BusAddress, SessionGranted
from schemas.statements import Agent
from schemas.tickets import SessionTicket, WorkerOffer
from tests.clocks import ManualClock
from tests.issuers import FakeIssuer, client_of

PROVIDER = "alice.example"
OFFER = WorkerOffer(
    pool="fast",
    labels=(),
    toolchains=(),
    stores=(),
    slots=1,
    cores=1,
    memory_bytes=2**30,
    disk_bytes=2**30,
    is_network_allowed=False,
)


class ObedientBus:
    """A RabbitMQ that does what it is told; `users` is who may log in."""

    def __init__(self) -> None:
        self.users: set[str] = set()

    async def declare(self, _declarations: Any) -> None: ...

    async def create_session_user(self, name: str, _password: str, _rights: Any, **_limits: int) -> None:
        self.users.add(name)

    async def update_rights(self, _name: str, _rights: Any) -> None: ...

    async def remove_user(self, name: str) -> None:
        self.users.discard(name)

    async def list_session_users(self, _prefix: str) -> list[str]:
        return sorted(self.users)


@dataclass
class Desk:
    sessions: Sessions
    sweeper: Sweeper
    database: Database
    bus: ObedientBus
    issuer: FakeIssuer
    clock: ManualClock

    def customer(self, sub: str) -> Speaker:
        self.issuer.accounts[sub] = "secret"
        key, client = SigningKey.generate(), client_of(self.issuer)
        account = Account(issuer=self.issuer.url, sub=sub, api_token="secret", key=key, client=client, clock=self.clock)
        return Speaker([account], key=key, clock=self.clock)

    async def enrol(self, name: str) -> Speaker:
        key = SigningKey.generate()
        async with self.database.write() as session:
            await store.enrol(session, Agent(name=name, role="worker", key=key.public, accounts=()), self.clock.now())
        return Speaker([], key=key, clock=self.clock)

    async def admit(self, worker: Speaker, name: str) -> SessionGranted:
        answer = await self.sessions.for_agent(worker.agent_ticket(PROVIDER, agent=name, offer=OFFER))
        assert isinstance(answer, SessionGranted), answer
        return answer


@pytest_asyncio.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    path, bus = tmp_path / "desk.sqlite", ObedientBus()
    issuer = FakeIssuer("https://id.fatima.example", clock)
    await upgrade(path, setup.MIGRATIONS)
    database = Database.open(path)
    trust = Trust([issuer.profile()], client=issuer.client(), clock=clock)
    provisioner: Any = bus
    sessions = Sessions(
        provider=PROVIDER,
        address=BusAddress(host="127.0.0.1", port=5672, vhost="v", is_tls=False),
        database=database,
        provisioner=provisioner,
        users=BusUsers(PROVIDER, provisioner, b"s" * 32, connections=4, channels=64),
        trust=trust,
        policies={issuer.url: IssuerPolicy(Welcome.ADMIT, 10_000)},
        session_seconds=600,
        clock=clock,
    )
    yield Desk(
        sessions, Sweeper(sessions, database, trust, clock, idle=timedelta(days=30)), database, bus, issuer, clock
    )
    await database.close()


async def settle(desk: Desk, subs: list[str]) -> None:
    """Tenants that have been here before."""
    now = desk.clock.now()
    async with desk.database.write() as session:
        session.add_all(
            TenantRow(
                tenant=tenant_id(desk.issuer.url, sub),
                iss=desk.issuer.url,
                sub=sub,
                standing=Standing.ADMITTED,
                is_provisioned=True,
                first_seen_at=now,
                last_seen_at=now,
            )
            for sub in subs
        )


async def test_one_tenant_more_than_the_bus_can_tell_apart_is_refused_and_costs_nobody_anything(desk: Desk) -> None:
    worker = await desk.enrol("w7")
    await settle(desk, [f"sub{number}" for number in range(MAX_TENANTS)])
    newcomer = await desk.sessions.for_tenant(
        await desk.customer("dinah").ticket(provider_audience(PROVIDER), SessionTicket)
    )
    assert isinstance(newcomer, Refusal)
    assert newcomer.reason is Reason.TOO_MANY_TENANTS
    assert len((await desk.admit(worker, "w7")).tenants) == MAX_TENANTS
    old = await desk.sessions.for_tenant(await desk.customer("sub1").ticket(provider_audience(PROVIDER), SessionTicket))
    assert isinstance(old, SessionGranted)


async def test_a_ticket_that_was_used_is_not_good_again_in_the_seconds_that_clocks_are_forgiven(desk: Desk) -> None:
    ticket = await desk.customer("dinah").ticket(provider_audience(PROVIDER), SessionTicket)
    assert isinstance(await desk.sessions.for_tenant(ticket), SessionGranted)
    for _ in range(20):
        desk.clock.advance(5)
        await desk.sweeper.sweep()
        assert isinstance(await desk.sessions.for_tenant(ticket), Refusal)


async def test_who_held_an_agents_old_key_is_out_once_it_has_a_new_one(desk: Desk) -> None:
    thief = await desk.admit(await desk.enrol("w7"), "w7")
    owner = await desk.admit(await desk.enrol("w7"), "w7")
    assert (owner.user, owner.password) != (thief.user, thief.password)
    await desk.sessions.reconcile()
    assert desk.bus.users == {owner.user}


async def test_an_agent_whose_accounts_change_keeps_its_session(desk: Desk) -> None:
    worker = await desk.enrol("w7")
    before = await desk.admit(worker, "w7")
    async with desk.database.write() as session:
        known = next(agent for agent in await store.agents(session) if agent.name == "w7")
        await store.enrol(session, known, desk.clock.now())
    assert (await desk.admit(worker, "w7")).user == before.user
