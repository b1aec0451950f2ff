"""Sessions: a ticket in, a short-lived RabbitMQ user out, or a refusal with its reason (DESIGN §6).

The order of things, for tenants and agents alike: verify the ticket; use it up and open or extend the session in one
transaction; then bring the bus to what the database says. A crash between the two leaves a session without a user,
which the next call or the sweeper mends; never a user without a session.

All changes at the bus pass through one lock, in the order in which they were decided, so that two calls at once or a
policy changed between them leave neither a door open nor a customer locked out.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from agents.desk import policy, store
from agents.desk.bus_users import BusUsers
from agents.desk.policy import IssuerPolicy, Standing
from agents.desk.store import OpenSession, SessionToken
from agents.desk.tables import TenantRow
from bus.provisioner import Provisioner
from bus.topology import MAX_TENANTS, ProviderNames, Rights, agent_rights, controller_rights
from identity.trust import Principal, SignedBy, Trust, Verified, spend_ticket, verify_agent_ticket
from runtime.clock import Clock
from runtime.database import Database
from runtime.logging import get_logger
from schemas.ids import provider_audience
from schemas.refusals import Reason, Refusal
from schemas.sessions import BusAddress, SessionGranted
from schemas.tickets import AgentRole, AgentTicket, SessionTicket, Ticket

LONGEST_WAIT_SECONDS = 30.0
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Facts:
    """Who is here: what names and rights follow from."""

    tenants: tuple[str, ...]
    pools: Mapping[str, str]
    """The pool of each live worker."""
    roles: Mapping[str, AgentRole]

    @property
    def workers(self) -> tuple[str, ...]:
        return tuple(self.pools)

    @property
    def pool_names(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.pools.values())))

    @property
    def revision(self) -> int:
        """A number that is another one when the facts are: what agents wait for. It outlives a restart of the desk."""
        text = repr((self.tenants, sorted(self.pools.items())))
        return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:6], "big")


async def read_facts(session: AsyncSession) -> Facts:
    offers = await store.offers(session)
    return Facts(
        tenants=await store.provisioned_tenants(session),
        pools={worker: offer.pool for worker, offer in offers.items()},
        roles=await store.agent_roles(session),
    )


class Sessions:
    """The sessions of one provider. `changed` is set whenever the facts may have become others."""

    def __init__(
        self,
        *,
        provider: str,
        address: BusAddress,
        database: Database,
        provisioner: Provisioner,
        users: BusUsers,
        trust: Trust,
        policies: Mapping[str, IssuerPolicy],
        session_seconds: int,
        clock: Clock,
    ) -> None:
        self._provider = provider
        self._names = ProviderNames(provider)
        self._address = address
        self._database = database
        self._provisioner = provisioner
        self._users = users
        self._trust = trust
        self._policies = policies
        self._length = timedelta(seconds=session_seconds)
        self._clock = clock
        self._bus = asyncio.Lock()
        self._declared: set[tuple[str, tuple[str, ...], tuple[str, ...]]] = set()
        self._changed = asyncio.Condition()
        self._answers_at_once = False

    async def for_tenant(self, raw: bytes) -> SessionGranted | Refusal:
        """Open or extend the session of the principal whose ticket this is.

        Raises WorldFault when the database or RabbitMQ's management cannot be reached; the ticket is then spent, and
        a new one is needed, which costs nothing.
        """
        ticket = await self._trust.ticket(raw, audience=provider_audience(self._provider))
        if isinstance(ticket, Refusal):
            return ticket
        if not isinstance(ticket.message, SessionTicket):
            return Refusal(Reason.WRONG_KIND, "a desk takes session tickets")
        principal = ticket.principal
        async with self._bus:
            session = await self._admit(ticket, ticket.message)
            if isinstance(session, Refusal):
                _log.info("session_refused", tenant=principal.tenant, reason=session.reason)
                return session
            facts = await self._provision(principal.tenant)
            await self._users.apply(session, controller_rights(self._provider, principal.tenant))
        await self._tell_agents()
        _log.info("session_granted", tenant=principal.tenant, ends_at=session.ends_at)
        return self._granted(session, facts, tenants=(principal.tenant,))

    async def for_agent(
        self, raw: bytes, known_revision: int | None = None, wait_seconds: float = 0
    ) -> SessionGranted | Refusal:
        """Open or extend the session of the agent whose ticket this is.

        With `known_revision`, the answer is held for up to `wait_seconds` while the facts are those of that revision.
        """
        async with self._database.read() as session:
            keys = await store.agent_keys(session)
        ticket = verify_agent_ticket(raw, keys=keys, audience=provider_audience(self._provider), now=self._clock.now())
        if isinstance(ticket, Refusal):
            return ticket
        opened = await self._open_for_agent(ticket)
        if isinstance(opened, Refusal):
            return opened
        facts = await self._wait_for_news(known_revision, min(wait_seconds, LONGEST_WAIT_SECONDS))
        return self._granted(opened, facts, tenants=facts.tenants)

    async def for_desk(self, name: str) -> SessionGranted:
        """Open or extend the desk's own session, which needs no ticket."""
        async with self._bus:
            async with self._database.write() as session:
                opened = await store.extend_session(session, name, self._clock.now() + self._length)
            facts = await self._apply_all()
        return self._granted(opened, facts, tenants=facts.tenants)

    async def close(self, holder: str) -> None:
        """End a holder's session now: its connections are closed by RabbitMQ."""
        async with self._bus:
            async with self._database.write() as session:
                opened = await store.open_session(session, holder)
                if opened is None:
                    return
                await store.close_session(session, holder, opened.epoch)
            await self._users.remove(opened)
        await self._tell_agents()

    async def answer_all(self) -> None:
        """Hold no agent's answer any more: the desk is about to stop."""
        self._answers_at_once = True
        await self._tell_agents()

    async def reconcile(self) -> None:
        """Compare with the bus and mend what differs; the tables of DESIGN §6 and the users of all open sessions."""
        async with self._bus:
            self._declared.clear()
            await self._apply_all(reconcile=True)
        await self._tell_agents()

    async def deprovision(self, tenant: str) -> None:
        """Remove the queues of a tenant that has been away; it gets new ones when it comes again."""
        async with self._bus:
            async with self._database.write() as session:
                await store.mark_provisioned(session, tenant, is_provisioned=False)
                store.audit(session, self._clock.now(), "tenant-deprovisioned", tenant)
            await self._provisioner.remove_tenant(self._names, tenant)
            self._declared = {entry for entry in self._declared if entry[0] != tenant}
            await self._apply_all()
        await self._tell_agents()

    async def facts(self) -> Facts:
        async with self._database.read() as session:
            return await read_facts(session)

    # -- inside the lock

    async def _admit(self, ticket: Verified[Ticket], message: SessionTicket) -> OpenSession | Refusal:
        now = self._clock.now()
        async with self._database.write() as session:
            spent = await _spend(session, message, ticket.digest)
            if spent is not None:
                return spent
            row = await self._tenant_row(session, ticket.principal, now)
            if isinstance(row, Refusal):
                return row
            row.last_seen_at = now
            refusal = policy.refusal_of(row.standing)
            if refusal is not None:
                return refusal
            if not row.is_provisioned and await store.count_provisioned(session) >= MAX_TENANTS:
                # One more, and no right of an agent could be written any more: nobody would get a session.
                return Refusal(Reason.TOO_MANY_TENANTS, f"{MAX_TENANTS} accounts use this bus already, its most")
            ends_at = min(now + self._length, ticket.token_expires_at)
            token = SessionToken(ticket.token_id, ticket.token_issued_at)
            return await store.extend_session(session, row.tenant, ends_at, token)

    async def _tenant_row(self, session: AsyncSession, principal: Principal, now: datetime) -> TenantRow | Refusal:
        row = await store.tenant(session, principal.tenant)
        if row is not None:
            return row
        known = await store.count_tenants(session, principal.iss)
        standing = policy.first_standing(principal.iss, self._policies, known)
        if isinstance(standing, Refusal):
            return standing
        row = TenantRow(
            tenant=principal.tenant,
            iss=principal.iss,
            sub=principal.sub,
            standing=standing,
            is_provisioned=False,
            first_seen_at=now,
            last_seen_at=now,
        )
        session.add(row)
        store.audit(session, now, f"tenant-{standing}", principal.tenant, f"{principal.sub} at {principal.iss}")
        return row

    async def _provision(self, tenant: str) -> Facts:
        async with self._database.write() as session:
            await store.mark_provisioned(session, tenant, is_provisioned=True)
        return await self._apply_all()

    async def _open_for_agent(self, ticket: SignedBy[AgentTicket]) -> OpenSession | Refusal:
        async with self._bus:
            async with self._database.write() as session:
                opened = await self._admit_agent(session, ticket)
            if not isinstance(opened, Refusal):
                await self._apply_all()
        await self._tell_agents()
        return opened

    async def _admit_agent(self, session: AsyncSession, signed: SignedBy[AgentTicket]) -> OpenSession | Refusal:
        ticket = signed.message
        spent = await _spend(session, ticket, signed.digest)
        if spent is not None:
            return spent
        row = await store.agent(session, ticket.agent)
        if row is None or row.key != signed.key:  # it may have got another key since the ticket was verified
            return Refusal(Reason.UNKNOWN_AGENT, "no agent of that name is enrolled at this desk")
        if (ticket.offer is not None) != (row.role == "worker"):
            return Refusal(Reason.INVALID_REQUEST, "a worker's ticket carries its offer, no other agent's does")
        now = self._clock.now()
        row.last_seen_at = now
        row.offer = ticket.offer.model_dump_json().encode("utf-8") if ticket.offer else None
        return await store.extend_session(session, row.name, now + self._length)

    async def _apply_all(self, *, reconcile: bool = False) -> Facts:
        """Bring names and rights at the bus to what the database says now."""
        async with self._database.read() as session:
            facts, open_sessions = await read_facts(session), await store.open_sessions(session)
        for tenant in facts.tenants:
            await self._declare(tenant, facts)
        wanted = {opened: self._rights(opened.holder, facts) for opened in open_sessions}
        if reconcile:
            await self._users.reconcile(wanted)
        else:
            for opened, rights in wanted.items():
                await self._users.apply(opened, rights)
        return facts

    async def _declare(self, tenant: str, facts: Facts) -> None:
        entry = (tenant, facts.pool_names, facts.workers)
        if entry not in self._declared:
            await self._provisioner.declare(self._names.declarations(tenant, facts.pool_names, facts.workers))
            self._declared.add(entry)

    def _rights(self, holder: str, facts: Facts) -> Rights:
        role = facts.roles.get(holder)
        if role is None:
            return controller_rights(self._provider, holder)
        pool = facts.pools.get(holder)
        return agent_rights(role, self._provider, facts.tenants, worker=holder, pools=(pool,) if pool else ())

    # -- waiting and answering

    async def _tell_agents(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _wait_for_news(self, known_revision: int | None, seconds: float) -> Facts:
        facts = await self.facts()
        try:
            async with asyncio.timeout(seconds), self._changed:
                while facts.revision == known_revision and not self._answers_at_once:
                    await self._changed.wait()
                    facts = await self.facts()
        except TimeoutError:
            pass
        return facts

    def _granted(self, opened: OpenSession, facts: Facts, tenants: tuple[str, ...]) -> SessionGranted:
        credentials = self._users.credentials(opened)
        return SessionGranted(
            provider=self._provider,
            bus=self._address,
            user=credentials.user,
            password=credentials.password,
            ends_at=opened.ends_at,
            revision=facts.revision,
            tenants=tenants,
            pools=facts.pool_names,
            workers=facts.workers,
        )


async def _spend(session: AsyncSession, ticket: Ticket, digest: str) -> Refusal | None:
    """Use a ticket up; a second use is refused, for its answer holds a password that only its sender may read."""
    known = await store.use_ticket(session, ticket.id, digest, ticket.expires_at)
    outcome = spend_ticket(known, digest)
    return outcome if isinstance(outcome, Refusal) else None


async def set_standing(database: Database, tenant: str, standing: Standing, now: datetime) -> bool:
    """What the owner says of a tenant; an open session of it ends at the sweeper's next round."""
    async with database.write() as session:
        is_known = await store.set_standing(session, tenant, standing)
        if is_known:
            store.audit(session, now, f"tenant-{standing}", tenant, "by the owner")
        return is_known
