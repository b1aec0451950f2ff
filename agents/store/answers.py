"""From requests to what services read, and from their values to HTTP answers.

A refusal is JSON with its reason; the words of a person's next step are in `detail`.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agents.store.tabs import Asked
from runtime.errors import WorldFault
from runtime.logging import get_logger
from schemas.refusals import Reason, Refusal
from schemas.sessions import RefusalBody
from schemas.wire import Part

_STATUS = {
    Reason.TOO_LARGE: 413,
    Reason.MALFORMED_FRAME: 400,
    Reason.UNKNOWN_TYPE: 400,
    Reason.UNKNOWN_VERSION: 400,
    Reason.WRONG_KIND: 400,
    Reason.MALFORMED_PAYLOAD: 400,
    Reason.INVALID_REQUEST: 400,
    Reason.DIGEST_MISMATCH: 422,
    Reason.NOT_FOUND: 404,
    Reason.TAB_UNKNOWN: 404,
    Reason.TAB_ENDED: 410,
    Reason.REPLAYED: 409,
    Reason.EQUIVOCATION: 409,
    Reason.CONFLICT: 409,
    Reason.RATE_LIMITED: 429,
    Reason.ISSUER_UNREACHABLE: 503,
    Reason.REVOCATION_STALE: 503,
    Reason.UNAVAILABLE: 503,
    Reason.STORE_FULL: 507,
}
_FORBIDDEN = 403
NO_STORE = {"cache-control": "no-store"}
Handler = Callable[[Request], Awaitable[Part | Refusal]]
_log = get_logger(__name__)


def answering(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint of a handler: its value or refusal as JSON, 503 where disk or database fail."""

    async def answer(request: Request) -> Response:
        try:
            result = await handler(request)
        except (WorldFault, OSError) as error:
            return failed(request, error)
        if isinstance(result, Refusal):
            # The rest of a refused body is not read; without this its sender would wait for a long time.
            return refused(result, {"connection": "close"} if request.method == "PUT" else None)
        status = 201 if request.method in ("POST", "PUT") else 200
        return JSONResponse(result.model_dump(mode="json"), status, headers=NO_STORE)

    return answer


def refused(refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    body = RefusalBody.of(refusal).model_dump(mode="json")
    return JSONResponse(body, _STATUS.get(refusal.reason, _FORBIDDEN), headers={**NO_STORE, **(headers or {})})


def failed(request: Request, error: Exception) -> Response:
    _log.warning("request_failed", path=request.url.path, why=str(error))
    return refused(Refusal(Reason.UNAVAILABLE, "the store cannot use its disk or its database now"))


def asked(request: Request) -> Asked:
    """What the holder's signature must cover."""
    path = request.scope["raw_path"].decode("ascii")
    query = request.scope["query_string"].decode("latin-1")
    return Asked(request.method, f"{path}?{query}" if query else path, request.headers)
