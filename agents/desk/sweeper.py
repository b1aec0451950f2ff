"""What ends by itself at a desk: sessions past their end, sessions of those no longer welcome, long idle tenants.

One round every few seconds, so that whoever is expired, suspended or denied is off the bus well within a minute
(DESIGN §6). A round that fails is told and tried again; the rounds after it make up for it. Now and then a round also
compares RabbitMQ with the database, since neither must rely on the other having forgotten nothing.
"""

import asyncio
from datetime import timedelta

from agents.desk import policy, store
from agents.desk.sessions import Sessions
from agents.desk.store import OpenSession
from agents.desk.tables import TenantRow
from identity.trust import Principal, Trust
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import WorldFault
from runtime.logging import get_logger
from schemas import limits
from schemas.refusals import Reason

ROUND_SECONDS = 5.0
ROUNDS_BETWEEN_RECONCILING = 12
_log = get_logger(__name__)


class Sweeper:
    def __init__(self, sessions: Sessions, database: Database, trust: Trust, clock: Clock, *, idle: timedelta) -> None:
        self._sessions = sessions
        self._database = database
        self._trust = trust
        self._clock = clock
        self._idle = idle

    async def run(self) -> None:
        """Sweep until cancelled; a cancel between two rounds leaves nothing undone that the next start does not do."""
        rounds = 0
        while True:
            try:
                await self.sweep()
                if rounds % ROUNDS_BETWEEN_RECONCILING == 0:
                    await self._sessions.reconcile()
                rounds += 1
            except WorldFault as error:
                _log.warning("sweep_failed", why=str(error))
            await asyncio.sleep(ROUND_SECONDS)

    async def sweep(self) -> None:
        """One round."""
        now = self._clock.now()
        for holder in await self._holders_to_close():
            await self._sessions.close(holder)
            _log.info("session_closed", holder=holder)
        async with self._database.write() as session:
            await store.forget_tickets(session, now - timedelta(seconds=limits.CLOCK_SKEW_SECONDS))
            idle = await store.idle_tenants(session, now - self._idle)
        for tenant in idle:
            await self._sessions.deprovision(tenant)
            _log.info("tenant_deprovisioned", tenant=tenant)

    async def _holders_to_close(self) -> list[str]:
        now = self._clock.now()
        async with self._database.read() as session:
            open_sessions = await store.open_sessions(session)
            roles = await store.agent_roles(session)
            tenants = {row.tenant: row for row in await store.tenants(session)}
        return [
            opened.holder
            for opened in open_sessions
            if opened.ends_at <= now
            or (opened.holder not in roles and not self._is_welcome(opened, tenants.get(opened.holder)))
        ]

    def _is_welcome(self, opened: OpenSession, tenant: TenantRow | None) -> bool:
        if tenant is None or policy.refusal_of(tenant.standing) is not None:
            return False
        if opened.token is None:
            return True
        refusal = self._trust.revocation_of(
            Principal(tenant.iss, tenant.sub), token_id=opened.token.id, issued_at=opened.token.issued_at
        )
        # An issuer that is away only stops new sessions; what it has taken back ends those that are open.
        return refusal is None or refusal.reason is Reason.REVOCATION_STALE
