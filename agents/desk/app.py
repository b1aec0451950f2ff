"""The desk's HTTP face (DESIGN §6).

| request | answer |
|---|---|
| `GET /card` | the provider's card, a signed envelope |
| `GET /root` | `{"root_key", "fingerprint"}`: the key that signs it, to be compared out of band and pinned |
| `GET /statements/{digest}` | a card or rate card that was ever signed here |
| `POST /session` | a ticket in; `SessionGranted` as JSON, or a refusal with its reason |

An agent adds `?known=REVISION&wait=SECONDS`: its answer is held until the facts are others than those of the revision.
"""

import re
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from agents.desk.publications import Publications
from agents.desk.sessions import Sessions
from identity.keys import SigningKey, b64url, fingerprint
from runtime.errors import WorldFault
from runtime.logging import get_logger
from schemas import frame, limits
from schemas.refusals import Reason, Refusal
from schemas.sessions import RefusalBody, SessionGranted
from schemas.tickets import AgentTicket

ENVELOPE = "application/vnd.fedci.envelope+msgpack"
_NO_STORE = {"cache-control": "no-store"}
_STATUS = {
    Reason.TOO_LARGE: 413,
    Reason.INVALID_REQUEST: 400,
    Reason.MALFORMED_FRAME: 400,
    Reason.UNKNOWN_TYPE: 400,
    Reason.UNKNOWN_VERSION: 400,
    Reason.WRONG_KIND: 400,
    Reason.MALFORMED_PAYLOAD: 400,
    Reason.REPLAYED: 409,
    Reason.EQUIVOCATION: 409,
    Reason.TOO_MANY_TENANTS: 429,
    Reason.RATE_LIMITED: 429,
    Reason.ISSUER_UNREACHABLE: 503,
    Reason.REVOCATION_STALE: 503,
    Reason.UNAVAILABLE: 503,
}
_FORBIDDEN = 403
_REVISION = re.compile(r"[0-9]{1,16}")
_log = get_logger(__name__)


class DeskApp:
    """The handlers; each answers for itself and lets no error through."""

    def __init__(self, sessions: Sessions, publications: Publications, root: SigningKey) -> None:
        self._sessions = sessions
        self._publications = publications
        self._root = root

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/card", _answering(self._card), methods=["GET"]),
            Route("/root", _answering(self._root_key), methods=["GET"]),
            Route("/statements/{digest}", _answering(self._statement), methods=["GET"]),
            Route("/session", _answering(self._session), methods=["POST"]),
        ]

    async def _card(self, _request: Request) -> Response:
        return Response((await self._publications.card()).raw, media_type=ENVELOPE, headers=_NO_STORE)

    async def _root_key(self, _request: Request) -> Response:
        return JSONResponse({"root_key": b64url(self._root.public), "fingerprint": fingerprint(self._root.public)})

    async def _statement(self, request: Request) -> Response:
        raw = await self._publications.by_digest(request.path_params["digest"])
        if raw is None:
            return refused(Refusal(Reason.NOT_FOUND, "no statement of that digest was signed here"), 404)
        return Response(raw, media_type=ENVELOPE)

    async def _session(self, request: Request) -> Response:
        raw = await request.body()
        envelope = frame.split(raw, limits.MESSAGE_BYTES)
        if isinstance(envelope, Refusal):
            return refused(envelope)
        if envelope.type != AgentTicket.TYPE:
            return _session_answer(await self._sessions.for_tenant(raw))
        known, wait_seconds = _revision(request.query_params.get("known")), _seconds(request.query_params.get("wait"))
        return _session_answer(await self._sessions.for_agent(raw, known, wait_seconds))


def build_app(desk: DeskApp, other_routes: list[BaseRoute]) -> Starlette:
    return Starlette(routes=[*desk.routes(), *other_routes])


def refused(refusal: Refusal, status: int | None = None) -> Response:
    body = RefusalBody.of(refusal).model_dump(mode="json")
    return JSONResponse(body, status or _STATUS.get(refusal.reason, _FORBIDDEN), headers=_NO_STORE)


def _session_answer(answer: SessionGranted | Refusal) -> Response:
    if isinstance(answer, Refusal):
        return refused(answer)
    return JSONResponse(answer.model_dump(mode="json"), headers=_NO_STORE)


def _revision(text: str | None) -> int | None:
    return int(text) if text and _REVISION.fullmatch(text) else None


def _seconds(text: str | None) -> float:
    return float(text) if text and _REVISION.fullmatch(text) else 0.0


def _answering(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except WorldFault as error:
            _log.warning("request_failed", path=request.url.path, why=str(error))
            return refused(Refusal(Reason.UNAVAILABLE, "the desk cannot reach its database or its bus now"))

    return answer
