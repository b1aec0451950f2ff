"""Tabs: a ticket in, a tab out; who is asking through it; and its end (DESIGN §10).

Opening, in this order: the holder's signature over the request, the ticket (`identity.trust`), the tenant (one of the
provider's, so that whoever uses the store can be billed), then ticket and tab in one transaction. The same ticket from
its holder again is the same tab, because an answer may get lost; no second tab ever comes of it.

Later requests: the tab, its holder's signature over method, path, digest and time, then that the tab is open and the
token it came with has not been revoked. Nothing is told to somebody who is not the holder.

A tab that is over is settled once nothing moves through it any more: its use is stated, its unfinished uploads go.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from agents.store import admission, metering, store
from agents.store.billing import Billing
from agents.store.disk import Disk
from agents.store.metering import Customer
from agents.store.tables import TabRow, TenantRow
from agents.store.transfers import Transfers
from identity.trust import Principal, Trust, Verified, settle_duplicate
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import OurFault
from runtime.logging import get_logger
from schemas import store_api
from schemas.ids import new_tab_id, sha256_hex, store_audience
from schemas.refusals import Reason, Refusal
from schemas.store_api import TabClosed, TabOpened
from schemas.tickets import StoreTicket, Ticket

TABS_AT_ONCE = 50
LAST_TRANSFER_SECONDS = 2.0
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tab:
    """A tab whose holder has signed the request at hand; only `Tabs` makes one. `row` is as it was at that moment."""

    row: TabRow

    @property
    def id(self) -> str:
        return self.row.tab

    @property
    def tenant(self) -> str:
        return self.row.tenant


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came: nothing in it is believed."""

    method: str
    path: str
    """The raw path with its query."""
    headers: Mapping[str, str]


IsTenant = Callable[[str], Awaitable[bool | None]]
"""Whether this is one of the provider's tenants; None while the desk has not said yet."""


class Tabs:
    """The tabs of one store."""

    def __init__(
        self,
        *,
        provider: str,
        trust: Trust,
        is_tenant: IsTenant,
        database: Database,
        disk: Disk,
        billing: Billing,
        transfers: Transfers,
        longest: timedelta,
        clock: Clock,
    ) -> None:
        self._audience = store_audience(provider)
        self._trust = trust
        self._is_tenant = is_tenant
        self._database = database
        self._disk = disk
        self._billing = billing
        self._transfers = transfers
        self._longest = longest
        self._clock = clock

    async def open(self, raw: bytes, asked: Asked) -> TabOpened | Refusal:
        """Open a tab, or give the one that this ticket has opened before."""
        ticket = await self._trust.ticket(raw, audience=self._audience)
        if isinstance(ticket, Refusal):
            return ticket
        if not isinstance(ticket.message, StoreTicket):
            return Refusal(Reason.WRONG_KIND, "a store takes store tickets")
        request = _signed_by(ticket.message.holder_key, asked, store_api.NO_TAB, sha256_hex(raw), self._clock.now())
        if request is not None:
            return request
        is_tenant = await self._is_tenant(ticket.principal.tenant)
        async with self._database.write() as session:
            opened = await self._open_in(session, ticket, ticket.message, is_tenant)
        if isinstance(opened, Refusal):
            _log.info("tab_refused", tenant=ticket.principal.tenant, reason=opened.reason)
        return opened

    async def who(self, tab_id: str, asked: Asked, digest: str = store_api.NO_DIGEST) -> Tab | Refusal:
        """The open tab that a request comes through, once its holder's signature holds for exactly this request."""
        tab = await self.whose(tab_id, asked, digest)
        if isinstance(tab, Refusal):
            return tab
        return ended(tab.row, self._clock.now()) or await self._revoked(tab.row) or tab

    async def whose(self, tab_id: str, asked: Asked, digest: str = store_api.NO_DIGEST) -> Tab | Refusal:
        """As `who`, for a tab that may be over."""
        async with self._database.read() as session:
            row = await store.tab(session, tab_id)
        if row is None:
            return Refusal(Reason.TAB_UNKNOWN, "no such tab here; present a ticket")
        return _signed_by(row.holder_key, asked, tab_id, digest, self._clock.now()) or Tab(row)

    async def close(self, tab: Tab) -> TabClosed:
        """Close a tab for its holder; closing it again changes nothing."""
        async with self._database.write() as session:
            row = await the_tab(session, tab.id)
            if row.closed_at is None:
                row.closed_at = min(self._clock.now(), row.ends_at)
        # What was received whole may not be counted yet.
        await self._transfers.idle(tab.id, LAST_TRANSFER_SECONDS)
        await self.settle(tab.id)
        async with self._database.read() as session:
            row = await the_tab(session, tab.id)
        return TabClosed(tab=row.tab, bytes_in=row.bytes_in, bytes_out=row.bytes_out)

    async def settle(self, tab_id: str) -> bool:
        """State the use of a tab that is over, unless something still moves in it or prices are not known yet."""
        if not await self._billing.is_ready():
            return False
        async with self._database.write() as session:
            row = await the_tab(session, tab_id)
            is_open = ended(row, self._clock.now()) is None
            # What begins from here on finds the tab over: requests are counted before their tab is looked at.
            if is_open or row.settled_at is not None or self._transfers.is_busy(tab_id):
                return False
            row.settled_at = self._clock.now()
            await store.end_uploads(session, tab_id)
            self._billing.state(session, await customer_of(session, row.tenant), _facts(row))
        await asyncio.to_thread(self._disk.discard_partials, tab_id)
        _log.info("tab_settled", tab=tab_id, attempt=row.attempt, bytes_in=row.bytes_in, bytes_out=row.bytes_out)
        return True

    async def settle_ended(self) -> int:
        """Settle what is over; returns how many were."""
        async with self._database.read() as session:
            over = await store.tabs_to_settle(session, self._clock.now(), TABS_AT_ONCE)
        return sum([await self.settle(tab_id) for tab_id in over])

    # -- opening

    async def _open_in(
        self, session: AsyncSession, ticket: Verified[Ticket], message: StoreTicket, is_tenant: bool | None
    ) -> TabOpened | Refusal:
        now, known = self._clock.now(), await store.tab_of_ticket(session, message.id)
        seen = settle_duplicate(known.ticket_digest if known else None, ticket.digest)
        if isinstance(seen, Refusal):
            return seen
        if known is not None:
            is_over = ended(known, now) is not None
            return (
                Refusal(Reason.REPLAYED, "the tab of this ticket is over") if is_over else await _told(session, known)
            )
        ends_at = admission.tab_end(message, now, self._longest)
        if isinstance(ends_at, Refusal):
            return ends_at
        refusal = await _admit(session, ticket.principal, now, is_tenant)
        if refusal is not None:
            return refusal
        row = _new_tab(ticket, message, now, ends_at)
        await store.add_tab(session, row, message.reads)
        _log.info("tab_opened", tab=row.tab, tenant=row.tenant, attempt=row.attempt, ends_at=ends_at)
        return await _told(session, row)

    async def _revoked(self, row: TabRow) -> Refusal | None:
        """Work under way ends only when its token is known to be revoked (DESIGN §4)."""
        async with self._database.read() as session:
            customer = await customer_of(session, row.tenant)
        principal = Principal(customer.iss, customer.sub)
        refusal = self._trust.revocation_of(principal, token_id=row.token_id, issued_at=row.token_issued_at)
        return None if refusal is None or refusal.reason is Reason.REVOCATION_STALE else refusal


async def _admit(session: AsyncSession, principal: Principal, now: datetime, is_tenant: bool | None) -> Refusal | None:
    """Why this principal is not served; who was a tenant before is one while the desk cannot be asked."""
    known = await store.tenant(session, principal.tenant)
    if is_tenant is False:
        return Refusal(Reason.NOT_ADMITTED, "no tenant of this provider: open a session at the provider's desk first")
    if is_tenant is None and known is None:
        return Refusal(Reason.UNAVAILABLE, "the store cannot ask its desk for tenants now; try again soon")
    if known is None:
        session.add(TenantRow(tenant=principal.tenant, iss=principal.iss, sub=principal.sub, first_seen_at=now))
        await session.flush()
    return None


def ended(row: TabRow, now: datetime) -> Refusal | None:
    """Why nothing more goes through this tab, or None while it is open."""
    if row.closed_at is not None:
        return Refusal(Reason.TAB_ENDED, "the tab was closed")
    if row.ends_at <= now:
        return Refusal(Reason.TAB_ENDED, "the tab's time is over; a new ticket opens another")
    return None


async def bytes_left(session: AsyncSession, row: TabRow) -> int:
    return max(0, row.write_bytes - row.bytes_in - await store.reserved_by_tab(session, row.tab))


async def customer_of(session: AsyncSession, tenant: str) -> Customer:
    row = await store.tenant(session, tenant)
    if row is None:
        raise OurFault(f"the tenant {tenant} has no row", where="the store's database")
    return Customer(row.tenant, row.iss, row.sub)


def _signed_by(holder_key: bytes, asked: Asked, tab: str, digest: str, now: datetime) -> Refusal | None:
    """Why this request is not the holder's, for this tab and digest, now."""
    read = store_api.read_request(asked.method, asked.path, asked.headers)
    if isinstance(read, Refusal):
        return read
    request = read.verify(holder_key, now)
    if isinstance(request, Refusal):
        return request
    if (request.tab, request.digest) != (tab, digest):
        return Refusal(Reason.REQUEST_SIGNATURE, "the request is signed for another tab or digest than its path names")
    return None


def _new_tab(ticket: Verified[Ticket], message: StoreTicket, now: datetime, ends_at: datetime) -> TabRow:
    return TabRow(
        tab=new_tab_id(),
        ticket_id=message.id,
        ticket_digest=ticket.digest,
        tenant=ticket.principal.tenant,
        holder_key=message.holder_key,
        attempt=message.attempt,
        project=admission.project_of(message.write_prefix),
        reads_all=message.reads_all,
        write_prefix=message.write_prefix,
        write_bytes=message.write_bytes,
        bytes_in=0,
        bytes_out=0,
        token_id=ticket.token_id,
        token_issued_at=ticket.token_issued_at,
        opened_at=now,
        ends_at=ends_at,
    )


async def _told(session: AsyncSession, row: TabRow) -> TabOpened:
    left = await bytes_left(session, row)
    return TabOpened(tab=row.tab, ends_at=row.ends_at, bytes_left=left, write_prefix=row.write_prefix)


async def the_tab(session: AsyncSession, tab_id: str) -> TabRow:
    """The row of a tab that was there a moment ago."""
    row = await store.tab(session, tab_id)
    if row is None:
        raise OurFault(f"the tab {tab_id} has no row", where="the store's database")
    return row


def _facts(row: TabRow) -> tuple[metering.Fact, ...]:
    over_at = row.closed_at or row.ends_at
    return metering.moved(row.tab, row.bytes_in, row.bytes_out, row.opened_at, over_at, row.project, row.attempt)
