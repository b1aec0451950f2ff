"""Follows the desk's word on who is a tenant: whose job queues are served, and whose control queues are read.

A new tenant is served from the moment the desk names it, without a restart; one that is gone is let go of.
"""

from collections.abc import Callable

from agents.worker.orders.control import Control
from bus.delivery import Delivery, Fate
from bus.session import BusSession, Subscription, Taker
from bus.topology import ProviderNames
from runtime.logging import get_logger

_log = get_logger(__name__)


class Tenancy:
    def __init__(
        self, session: BusSession, taker: Taker, control: Control, names: ProviderNames, *, pool: str, worker: str
    ) -> None:
        self._session = session
        self._taker = taker
        self._control = control
        self._names = names
        self._pool = pool
        self._worker = worker
        self._subscriptions: dict[str, Subscription] = {}

    @property
    def tenants(self) -> tuple[str, ...]:
        return tuple(self._subscriptions)

    async def follow(self) -> None:
        """Serve whoever the desk names, until cancelled."""
        granted = None
        while True:
            granted = await self._session.changed(granted)
            await self._serve(granted.tenants)

    async def tell_when_up(self, on_up: Callable[[], None]) -> None:
        """Call back each time the session comes up, until cancelled."""
        status = self._session.status
        while True:
            status = await self._session.status_changed(status)
            _log.info("bus_up" if status.is_up else "bus_down", reason=status.reason)
            if status.is_up:
                on_up()

    async def _serve(self, tenants: tuple[str, ...]) -> None:
        self._taker.serve([self._names.jobs_queue(tenant, self._pool) for tenant in tenants])
        for tenant in tenants:
            if tenant not in self._subscriptions:
                queue = self._names.control_queue(tenant, self._worker)
                self._subscriptions[tenant] = self._session.consume(queue, self._handle)
        for tenant in set(self._subscriptions) - set(tenants):
            await self._subscriptions.pop(tenant).stop()
        _log.info("tenants_served", tenants=tenants)

    async def _handle(self, delivery: Delivery) -> Fate:
        return await self._control.handle(delivery)
