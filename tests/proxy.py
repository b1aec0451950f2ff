"""A TCP proxy that fails on purpose: what a network does to a connection, when a test says so."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from enum import Enum


class Mode(Enum):
    OK = "ok"
    REFUSE = "refuse"
    """New connections are closed at once."""
    BLACKHOLE = "blackhole"
    """Bytes are swallowed both ways, on old and new connections; nobody is told."""


class Proxy:
    """Passes bytes from its own loopback port to a target while `mode` is OK."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.mode = Mode.OK
        self.accepted = 0

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Break all connections now, without a goodbye."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode is Mode.REFUSE:
            writer.transport.abort()
            return
        self.accepted += 1
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(*self._target)
            self._writers |= {writer, back}
            try:
                await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
            finally:
                self._writers -= {writer, back}
                for end in (writer, back):
                    end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.mode is not Mode.BLACKHOLE:
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def proxy_to(host: str, port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """A proxy to a plain TCP service; with `tls` it speaks TLS to who comes."""
    proxy = Proxy(host, port)
    proxy._server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0, ssl=tls)
    async with proxy._server:
        try:
            yield proxy
        finally:
            proxy.cut()
