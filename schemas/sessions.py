"""What a desk answers: a session at its bus (DESIGN §6). JSON over HTTPS, so that a refusal can be read by people.

The names of exchanges and queues are not in here: both sides compute them from the same facts (`bus.topology`).
"""

from typing import Annotated

from pydantic import Field

from schemas.ids import Label, ProviderName, TenantId
from schemas.refusals import Reason, Refusal
from schemas.wire import Count, Instant, Part


class BusAddress(Part):
    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Annotated[int, Field(ge=1, le=65535)]
    vhost: Annotated[str, Field(min_length=1, max_length=200)]
    is_tls: bool
    ca: str | None = None


class SessionGranted(Part):
    """A RabbitMQ user of one's own until `ends_at`, and the facts that name what it may touch.

    For a controller `tenants` is its own tenant alone; for an agent all that are served. `revision` changes when any
    of the facts does; an agent passes the last one it knows and waits for the next (DESIGN §6). The password is good
    for this session only.
    """

    provider: ProviderName
    bus: BusAddress
    user: Annotated[str, Field(min_length=1, max_length=100)]
    password: Annotated[str, Field(min_length=20, max_length=200, repr=False)]
    ends_at: Instant
    revision: Count
    tenants: tuple[TenantId, ...]
    pools: tuple[Label, ...]
    workers: tuple[Label, ...]


class RefusalBody(Part):
    """The body of every refusing HTTP answer of fedci."""

    reason: Annotated[Reason, Field(strict=False)]
    detail: str = ""

    @classmethod
    def of(cls, refusal: Refusal) -> "RefusalBody":
        return cls(reason=refusal.reason, detail=refusal.detail)
