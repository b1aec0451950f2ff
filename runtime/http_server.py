"""Serves an ASGI application with uvicorn, as one task of a role.

Rules: the address is bound before anything starts (`runtime.listening`); signals belong to `runtime.lifecycle`, not to
uvicorn; on drain no new connection is taken and running requests get `grace_seconds`, on hand-back none. No access
log, no server header, no WebSocket, no trust in forwarding headers, no settings from the environment.
Bodies, deadlines and headers are guarded by `runtime.http_guards`.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from socket import socket

import uvicorn
from starlette.types import ASGIApp

from runtime.addresses import Listen
from runtime.lifecycle import Stop
from runtime.listening import Bound, CannotListen, bind
from runtime.settings import TlsFiles

KEEP_ALIVE_SECONDS = 20
MAX_CONNECTIONS = 1000
MAX_HEADER_BYTES = 32 * 1024


async def serve_http(
    app: ASGIApp,
    listen: Listen | Bound,
    stop: Stop,
    *,
    tls: TlsFiles | None = None,
    ready: Callable[[str], None] | None = None,
    setting: str = "listen",
    grace_seconds: int = 5,
) -> None:
    """Serve `app` until `stop` drains; `ready` is called once with the real URL when requests are answered.

    Give what `runtime.listening.bind` returned when the port must be known earlier (`tls` is then the bound one's).
    A cancel closes the listener and every connection at once. Raises CannotListen when the address or the TLS files
    cannot be used.
    """
    bound = listen if isinstance(listen, Bound) else bind(listen, tls, setting=setting)
    server = _Server(_config(app, bound, grace_seconds), lambda: ready(bound.url) if ready else None)
    try:
        _load(server, bound)
        await _serve_until_stopped(server, bound, stop)
    finally:
        server.close_everything()
        bound.socket.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.servers: list[asyncio.base_events.Server] = []
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the role's signals are not ours to catch

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def close_everything(self) -> None:
        """Drop what is still open; after an orderly end that is nothing."""
        for server in self.servers:
            server.close()
        for task in self.server_state.tasks:
            task.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _config(app: ASGIApp, bound: Bound, grace_seconds: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        lifespan="off",
        http="h11",
        ws="none",
        workers=1,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=grace_seconds,
        ssl_certfile=bound.tls.certificate if bound.tls else None,
        ssl_keyfile=bound.tls.key if bound.tls else None,
    )


def _load(server: _Server, bound: Bound) -> None:
    try:
        server.config.load()
    except OSError as error:  # also ssl.SSLError
        raise CannotListen(
            f"the TLS files cannot be used ({error})",
            where=f"{bound.tls.certificate}, {bound.tls.key}" if bound.tls else str(bound.listen),
            remedy="Give a PEM certificate chain and its own private key without a passphrase.",
        ) from error


async def _serve_until_stopped(server: _Server, bound: Bound, stop: Stop) -> None:
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(_watch(server, stop))
        await server.serve(sockets=[bound.socket])
        watcher.cancel()


async def _watch(server: _Server, stop: Stop) -> None:
    await stop.draining()
    server.should_exit = True
    await stop.handing_back()
    server.force_exit = True
    server.close_everything()  # 3.12 waits for each connection otherwise
