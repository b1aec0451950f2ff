"""The stores that this worker's owner has configured, each at its pinned address (DESIGN §8, §10)."""

from collections.abc import Mapping

from agents.worker.ports import StoreTab
from runtime.store_client import StoreClient
from schemas.refusals import Reason, Refusal


class ConfiguredStores:
    """Obeys `ports.StoreDoor`."""

    def __init__(self, clients: Mapping[str, StoreClient]) -> None:
        self._clients = clients

    async def open_tab(self, store: str, ticket: bytes) -> StoreTab | Refusal:
        client = self._clients.get(store)
        if client is None:
            return Refusal(Reason.STORE_NOT_REACHABLE, f"this worker knows no store {store}")
        return await client.open_tab(ticket)
