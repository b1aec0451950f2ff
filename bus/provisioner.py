"""The desk's hand at RabbitMQ's management API: virtual host, declarations, short-lived users, depths.

It carries out what it is told; who may have what is decided in `bus.topology` and by the desk. Every call may be
repeated: declaring what is there, removing what is gone and setting rights again change nothing.

Rules: the administrator's credentials travel to a loopback address or over TLS only; every call has a deadline and a
bound on its answer; a declaration that contradicts what is there is an error with a remedy, never a silent success.
Works with the management API of RabbitMQ 3.10 and 4.x (guide "Management HTTP API").
"""

import asyncio
import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from bus.access import AdminAccess
from bus.topology import Binding, Declaration, Exchange, ProviderNames, Queue, Rights
from runtime.errors import OurFault, WorldFault
from runtime.http_client import Fetched, fetch

DEADLINE_SECONDS = 15.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024
AT_ONCE = 8
"""Calls under way at a time: the management API is no place for hundreds."""
SESSION_CONNECTIONS = 4
"""Publishing and consuming, and the same again while an old pair is not yet known to be dead."""
SESSION_CHANNELS = 1024
"""A worker has one for each tenant's queue and each tenant's exchanges."""


class ProvisionFault(WorldFault):
    """RabbitMQ's management did not do as it was told."""


class TopologyConflict(OurFault):
    """Something is there already and has other arguments; a person must decide what becomes of it."""


@dataclass(frozen=True)
class QueueDepth:
    """How much waits in a queue; RabbitMQ counts every few seconds, so this is a little old."""

    messages: int
    ready: int
    unacknowledged: int
    consumers: int
    bytes: int


class Provisioner:
    """One virtual host of one RabbitMQ, with the administrator's rights. The client is `runtime.http_client`'s.

    All methods raise `WorldFault` when RabbitMQ cannot be reached, `ProvisionFault` (also a `WorldFault`) when it
    refuses. Cancelling leaves the call under way done or not done; doing it again is safe.
    """

    def __init__(self, access: AdminAccess, vhost: str, client: httpx.AsyncClient) -> None:
        self._access = access
        self._vhost = vhost
        self._client = client
        self._gate = asyncio.Semaphore(AT_ONCE)
        secret = base64.b64encode(f"{access.user}:{access.password}".encode()).decode("ascii")
        self._headers = {"authorization": f"Basic {secret}", "content-type": "application/json"}

    async def ensure_vhost(self) -> None:
        """Make the virtual host, and let the administrator declare in it."""
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        await self._do("PUT", self._path("vhosts"), {})
        await self._do("PUT", self._path("permissions", self._access.user), everything)

    async def declare(self, declarations: Iterable[Declaration]) -> None:
        """Declare exchanges, then queues, then bindings; what is there already stays as it is.

        Raises TopologyConflict when something of the name is there with another type or other arguments.
        """
        wanted = list(declarations)
        for kind in (Exchange, Queue, Binding):
            await self._all_at_once(part for part in wanted if isinstance(part, kind))

    async def create_session_user(
        self,
        user: str,
        password: str,
        rights: Rights,
        *,
        max_connections: int = SESSION_CONNECTIONS,
        max_channels: int = SESSION_CHANNELS,
    ) -> None:
        """Make a user with exactly these rights in this virtual host and none elsewhere; it may be there already."""
        await self._do("PUT", _path("users", user), {"password": password, "tags": ""})
        await self._limit(user, "max-connections", max_connections)
        await self._limit(user, "max-channels", max_channels)
        # Last, so that a user that was only half made can do nothing.
        await self.update_rights(user, rights)

    async def update_rights(self, user: str, rights: Rights) -> None:
        """Give an existing user exactly these rights.

        What is new holds at once. What is taken away holds for a busy channel only after `close_connections`, because
        it remembers what it was allowed; and a consumer, once started, is never checked again.
        """
        body = {"configure": rights.configure, "write": rights.write, "read": rights.read}
        await self._do("PUT", self._path("permissions", user), body)

    async def remove_user(self, user: str) -> None:
        """Remove a user, which closes all its connections at once; already gone is fine."""
        await self._do("DELETE", _path("users", user), missing_is_fine=True)

    async def list_session_users(self, prefix: str) -> list[str]:
        """Names of the users that begin with `prefix`; never the administrator's own."""
        rows = await self._read(_path("users") + "?columns=name")
        names = (str(row["name"]) for row in rows)
        return sorted(name for name in names if name.startswith(prefix) and name != self._access.user)

    async def remove_tenant(self, names: ProviderNames, tenant: str) -> None:
        """Delete a tenant's exchanges and queues with all that waits in them."""
        for kind in ("exchanges", "queues"):
            rows = await self._read(self._path(kind) + "?columns=name")
            own = [str(row["name"]) for row in rows if names.is_of_tenant(str(row["name"]), tenant)]
            for name in own:
                await self._do("DELETE", self._path(kind, name), missing_is_fine=True)

    async def queue_depths(self) -> dict[str, QueueDepth]:
        """The depth of every queue of the virtual host, by name."""
        columns = "name,messages,messages_ready,messages_unacknowledged,consumers,message_bytes"
        rows = await self._read(self._path("queues") + f"?columns={columns}")
        return {str(row["name"]): _depth(row) for row in rows}

    async def close_connections(self, user: str, reason: str) -> None:
        """Close a user's connections and leave the user be."""
        path = _path("connections", "username", user)
        await self._do("DELETE", path, missing_is_fine=True, headers={"x-reason": reason})

    # -- one call

    async def _all_at_once(self, declarations: Iterable[Declaration]) -> None:
        try:
            async with asyncio.TaskGroup() as calls:
                for declaration in declarations:
                    calls.create_task(self._declare(declaration))
        except ExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _declare(self, declaration: Declaration) -> None:
        match declaration:
            case Exchange(name, kind):
                body: dict[str, Any] = {"type": kind, "durable": True, "auto_delete": False, "arguments": {}}
                await self._do("PUT", self._path("exchanges", name), body)
            case Queue(name, arguments):
                body = {"durable": True, "auto_delete": False, "arguments": dict(arguments)}
                await self._do("PUT", self._path("queues", name), body)
            case Binding(exchange, queue, key):
                body = {"routing_key": key, "arguments": {}}
                await self._do("POST", self._path("bindings", "e", exchange, "q", queue), body)

    async def _limit(self, user: str, limit: str, value: int) -> None:
        await self._do("PUT", _path("user-limits", user, limit), {"value": value})

    async def _read(self, path: str) -> list[dict[str, Any]]:
        answer = await self._call("GET", path)
        if answer.status == 404:
            return []
        _expect_success(answer, path)
        try:
            return list(json.loads(answer.body))
        except ValueError as error:
            raise ProvisionFault("RabbitMQ's management answered broken JSON", where=answer.url) from error

    async def _do(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        missing_is_fine: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        answer = await self._call(method, path, body, headers)
        if not (missing_is_fine and answer.status == 404):
            _expect_success(answer, path)

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Fetched:
        url = f"{self._access.api_url}/api/{path}"
        content = None if body is None else json.dumps(body).encode("utf-8")
        async with self._gate:
            return await fetch(
                self._client,
                method,
                url,
                max_bytes=MAX_ANSWER_BYTES,
                deadline_seconds=DEADLINE_SECONDS,
                headers={**self._headers, **(headers or {})},
                body=content,
            )

    def _path(self, kind: str, *parts: str) -> str:
        return _path(kind, self._vhost, *parts)


def _path(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def _depth(row: Mapping[str, Any]) -> QueueDepth:
    def count(column: str) -> int:
        return int(row.get(column, 0))  # absent until RabbitMQ has counted for the first time

    return QueueDepth(
        messages=count("messages"),
        ready=count("messages_ready"),
        unacknowledged=count("messages_unacknowledged"),
        consumers=count("consumers"),
        bytes=count("message_bytes"),
    )


def _expect_success(answer: Fetched, path: str) -> None:
    if 200 <= answer.status < 300:
        return
    reason = _reason(answer)
    if answer.status == 400 and "inequivalent arg" in reason:
        raise TopologyConflict(
            f"already there with other arguments ({reason})",
            where=answer.url,
            remedy="Put the old limits back into the settings; or, once it is drained, delete it at RabbitMQ "
            "(`rabbitmqctl delete_queue`, or the management page) and let the desk declare it anew.",
        )
    raise ProvisionFault(
        f"RabbitMQ's management answered {answer.status} to {path.partition('/')[0]} ({reason})",
        where=answer.url,
        remedy=_REMEDIES.get(answer.status, "See the RabbitMQ log; it is tried again later."),
    )


_REMEDIES = {
    401: "See that the administrator's name and password are right.",
    403: "The desk's RabbitMQ user needs the tag `administrator`.",
    404: "The virtual host, or something bound to, is missing: `ensure_vhost` and declare first.",
}


def _reason(answer: Fetched) -> str:
    try:
        told = json.loads(answer.body)
        return str(told.get("reason") or told.get("error"))[:500]
    except (ValueError, AttributeError):
        return answer.body[:200].decode("utf-8", "replace")
