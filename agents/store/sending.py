"""Sends blobs: `GET` and `HEAD` of `/tabs/{tab}/blobs/{digest}`, as an ASGI endpoint of its own.

The transfer is counted from before the look at the tab until what was sent is counted, so that a tab is not settled in
between. A receiver that takes nothing for a while is gone. A damaged blob's answer is never ended properly: the server
closes the connection, and the receiver knows.
"""

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from agents.store.answers import NO_STORE, asked, failed, refused
from agents.store.downloads import Damaged, Download, Downloads
from agents.store.tabs import Tabs
from agents.store.transfers import Transfers
from runtime.errors import WorldFault
from runtime.logging import get_logger
from schemas.refusals import Refusal

SEND_SECONDS = 60.0
_log = get_logger(__name__)


class BlobEndpoint:
    def __init__(self, tabs: Tabs, downloads: Downloads, transfers: Transfers) -> None:
        self._tabs = tabs
        self._downloads = downloads
        self._transfers = transfers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        with self._transfers.through(request.path_params["tab"]):
            download = await self._open(request)
            if isinstance(download, Response):
                await download(scope, receive, send)
                return
            sent = _Sent(send)
            try:
                await self._send(download, request.method == "HEAD", receive, sent)
            finally:
                await self._downloads.end(download, sent.bytes)

    async def _open(self, request: Request) -> Download | Response:
        tab_id, digest = request.path_params["tab"], request.path_params["digest"]
        try:
            tab = await self._tabs.who(tab_id, asked(request), digest)
            if isinstance(tab, Refusal):
                return refused(tab)
            download = await self._downloads.open(tab, digest, request.headers.get("range"))
        except (WorldFault, OSError) as error:
            return failed(request, error)
        return refused(download) if isinstance(download, Refusal) else download

    async def _send(self, download: Download, is_head: bool, receive: Receive, sent: "_Sent") -> None:
        async with asyncio.TaskGroup() as tasks:
            gone = tasks.create_task(_gone(receive))
            try:
                await sent.message(_start(download))
                if not is_head:
                    await self._send_chunks(download, gone, sent)
                if not gone.done():
                    await sent.body(b"", is_last=True)
            except (Damaged, WorldFault, OSError) as error:  # a TimeoutError is an OSError
                _log.warning("download_cut", tab=download.tab.id, why=type(error).__name__)
            finally:
                gone.cancel()

    async def _send_chunks(self, download: Download, gone: asyncio.Task[None], sent: "_Sent") -> None:
        async for chunk in self._downloads.chunks(download):
            if gone.done():
                return
            await sent.body(chunk)


class _Sent:
    """Counts what the receiver was sent, and gives each piece its time."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.bytes = 0

    async def message(self, message: Message) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await self._send(message)

    async def body(self, chunk: bytes, *, is_last: bool = False) -> None:
        await self.message({"type": "http.response.body", "body": chunk, "more_body": not is_last})
        self.bytes += len(chunk)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _start(download: Download) -> Message:
    part = download.part
    headers = {
        **NO_STORE,
        "content-type": "application/octet-stream",
        "accept-ranges": "bytes",
        "content-length": str(part.length),
    }
    if not part.is_whole:
        headers["content-range"] = part.content_range
    encoded = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": 200 if part.is_whole else 206, "headers": encoded}
