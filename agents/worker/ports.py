"""The doors of the worker's services that are not built of values: the bus, and the stores of customers' choice.

`wiring` puts the real ones in; the tests put others in that obey the same words. Every call that leaves the process
answers within a deadline of its own, or raises `WorldFault`.
"""

from datetime import timedelta
from pathlib import Path
from typing import Protocol

from runtime.outbox import PublishResult
from schemas.refusals import Refusal


class Publisher(Protocol):
    """The bus, as far as the worker speaks."""

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        message_type: str,
        correlation_id: str,
        expires_after: timedelta | None = None,
    ) -> PublishResult: ...


class Delivery(Protocol):
    """One message taken from a queue, not yet settled. Settling one whose connection is gone does nothing."""

    @property
    def body(self) -> bytes: ...

    @property
    def exchange(self) -> str:
        """Where it was published: the origin that counts (DESIGN §6)."""
        ...

    async def ack(self) -> object: ...

    async def requeue(self) -> object:
        """Give it back for another worker, or for later."""
        ...

    async def reject(self) -> object:
        """Send it to the dead letters, which the desk reads and answers."""
        ...


class StoreTab(Protocol):
    """An open tab at a store; refusals are the store's own words.

    Raises WorldFault where it stays away, PeerFault where it answers nonsense (`runtime.store_client`).
    """

    async def get_to_file(self, digest: str, path: Path, max_bytes: int) -> int | Refusal:
        """Fetch a blob into a new file and check it; return its size."""
        ...

    async def put_file(self, path: Path, digest: str, size_bytes: int) -> Refusal | None: ...

    async def name(self, path: str, digest: str, size_bytes: int) -> Refusal | None:
        """Publish a stored blob under the tab's prefix."""
        ...

    async def close(self) -> object: ...


class StoreDoor(Protocol):
    async def open_tab(self, store: str, ticket: bytes) -> StoreTab | Refusal:
        """Present the customer's ticket at the store of this name, whose address the worker's owner configured."""
        ...
