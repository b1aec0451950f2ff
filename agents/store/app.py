"""The store's HTTP face: routes of `schemas.store_api` to the services, values to answers.

Every handler asks who is there first. Transfers are counted before that, so that a tab is not settled between the look
at it and the first byte. A refusal is JSON with its reason; the words of a person's next step are in `detail`.
"""

import re
from collections.abc import AsyncIterator

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from agents.store.answers import answering, asked, refused
from agents.store.downloads import Downloads
from agents.store.naming import Naming
from agents.store.sending import BlobEndpoint
from agents.store.tabs import Tabs
from agents.store.transfers import Transfers
from agents.store.uploads import Uploads, Wanted
from schemas.ids import Sha256
from schemas.refusals import Reason, Refusal
from schemas.store_api import NamedBlob, UploadState
from schemas.tickets import StoreTicket
from schemas.wire import Part

NAME_BODY_BYTES = 4 * 1024
_COUNT = re.compile(r"[0-9]{1,15}")
_DIGEST = TypeAdapter[str](Sha256)


class StoreApp:
    """The handlers."""

    def __init__(
        self, tabs: Tabs, uploads: Uploads, downloads: Downloads, naming: Naming, transfers: Transfers
    ) -> None:
        self._tabs = tabs
        self._uploads = uploads
        self._blobs = BlobEndpoint(tabs, downloads, transfers)
        self._naming = naming
        self._transfers = transfers

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/tabs", answering(self._open), methods=["POST"]),
            Route("/tabs/{tab}", answering(self._close), methods=["DELETE"]),
            Route("/tabs/{tab}/blobs/{digest}", self._blobs, methods=["GET"]),
            Route("/tabs/{tab}/uploads/{digest}", answering(self._upload_state), methods=["GET"]),
            Route("/tabs/{tab}/uploads/{digest}", answering(self._upload), methods=["PUT"]),
            Route("/tabs/{tab}/names/{name:path}", answering(self._find), methods=["GET"]),
            Route("/tabs/{tab}/names/{name:path}", answering(self._name), methods=["PUT"]),
        ]

    # -- tabs

    async def _open(self, request: Request) -> Part | Refusal:
        raw = await _bounded(request, StoreTicket.MAX_BYTES)
        return raw if isinstance(raw, Refusal) else await self._tabs.open(raw, asked(request))

    async def _close(self, request: Request) -> Part | Refusal:
        tab = await self._tabs.whose(request.path_params["tab"], asked(request))
        return tab if isinstance(tab, Refusal) else await self._tabs.close(tab)

    # -- blobs

    async def _upload_state(self, request: Request) -> Part | Refusal:
        wanted = await self._wanted(request)
        return wanted if isinstance(wanted, Refusal) else await self._uploads.state(wanted)

    async def _upload(self, request: Request) -> Part | Refusal:
        with self._transfers.through(request.path_params["tab"]):
            wanted = await self._wanted(request)
            if isinstance(wanted, Refusal):
                return wanted
            offset = _count(request.query_params, "offset")
            length = request.headers.get("content-length")
            if isinstance(offset, Refusal):
                return offset
            if length is not None and offset + int(length) != wanted.size:
                return Refusal(Reason.INVALID_REQUEST, "offset and content-length do not add up to the size")
            state = await self._uploads.receive(wanted, offset, _body(request))
        return _cut_off(state) or state

    async def _wanted(self, request: Request) -> Wanted | Refusal:
        digest = request.path_params["digest"]
        tab = await self._tabs.who(request.path_params["tab"], asked(request), digest)
        if isinstance(tab, Refusal):
            return tab
        size = _count(request.query_params, "size")
        if isinstance(size, Refusal):
            return size
        return Wanted(tab, digest, size) if _is_digest(digest) else Refusal(Reason.INVALID_REQUEST, "no SHA-256 digest")

    # -- names

    async def _name(self, request: Request) -> Part | Refusal:
        body = await _bounded(request, NAME_BODY_BYTES)
        if isinstance(body, Refusal):
            return body
        try:
            wanted = NamedBlob.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return Refusal(Reason.INVALID_REQUEST, f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}")
        tab = await self._tabs.who(request.path_params["tab"], asked(request), wanted.digest)
        return tab if isinstance(tab, Refusal) else await self._naming.give(tab, request.path_params["name"], wanted)

    async def _find(self, request: Request) -> Part | Refusal:
        tab = await self._tabs.who(request.path_params["tab"], asked(request))
        return tab if isinstance(tab, Refusal) else await self._naming.find(tab, request.path_params["name"])


def build_app(store: StoreApp, other_routes: list[BaseRoute]) -> Starlette:
    return Starlette(routes=[*store.routes(), *other_routes], exception_handlers={404: _no_route, 405: _no_method})


async def _no_route(_request: Request, _error: Exception) -> Response:
    return refused(Refusal(Reason.NOT_FOUND, "there is nothing at this address; see schemas.store_api"))


async def _no_method(_request: Request, _error: Exception) -> Response:
    return refused(Refusal(Reason.INVALID_REQUEST, "this address does not take that method"))


async def _bounded(request: Request, max_bytes: int) -> bytes | Refusal:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            return Refusal(Reason.TOO_LARGE, f"this body has at most {max_bytes} bytes")
    return bytes(body)


async def _body(request: Request) -> AsyncIterator[bytes]:
    """The body as far as it comes: a sender who goes away leaves a short one."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        return


def _cut_off(state: Part | Refusal) -> Refusal | None:
    if isinstance(state, UploadState) and not state.is_complete:
        return Refusal(Reason.CONFLICT, f"the body broke off; {state.offset} bytes are stored, go on from there")
    return None


def _count(query: QueryParams, name: str) -> int | Refusal:
    text = query.get(name, "")
    return int(text) if _COUNT.fullmatch(text) else Refusal(Reason.INVALID_REQUEST, f"`{name}` is a number of bytes")


def _is_digest(text: str) -> bool:
    try:
        _DIGEST.validate_python(text)
    except ValidationError:
        return False
    return True
