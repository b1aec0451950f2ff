"""How the API refuses: one JSON shape, `{"reason", "detail"}`, and a status that follows from the reason."""

from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from runtime.errors import PeerFault, WorldFault
from runtime.logging import get_logger
from schemas.refusals import Reason, Refusal
from schemas.sessions import RefusalBody

_log = get_logger(__name__)
T = TypeVar("T")

_STATUS: dict[Reason, int] = {
    Reason.INVALID_REQUEST: 400,
    Reason.UNAUTHENTICATED: 401,
    Reason.NOT_FOUND: 404,
    Reason.CONFLICT: 409,
    Reason.TOO_LARGE: 413,
    Reason.DIGEST_MISMATCH: 422,
    Reason.RATE_LIMITED: 429,
    Reason.ISSUER_UNREACHABLE: 503,
}
_OTHER_REFUSALS = 403


class Refused(Exception):
    """Carries a refusal from a route to the one place that answers with it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def granted(value: T | Refusal) -> T:
    """The value, or the end of the request with the refusal's status."""
    if isinstance(value, Refusal):
        raise Refused(value)
    return value


def found(value: T | None, what: str) -> T:
    """The value, or 404 with what was not found."""
    if value is None:
        raise Refused(Refusal(Reason.NOT_FOUND, f"there is no {what}"))
    return value


def answer(refusal: Refusal, status: int | None = None) -> JSONResponse:
    headers = {"www-authenticate": "Bearer"} if refusal.reason is Reason.UNAUTHENTICATED else None
    body = RefusalBody.of(refusal).model_dump(mode="json")
    return JSONResponse(body, status_code=status or _STATUS.get(refusal.reason, _OTHER_REFUSALS), headers=headers)


def install(app: FastAPI) -> None:
    """Make the application answer every refusal and fault in this shape."""

    @app.exception_handler(Refused)
    async def _refused(_: Request, error: Refused) -> JSONResponse:
        return answer(error.refusal)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return answer(Refusal(Reason.INVALID_REQUEST, f"{where}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        reason = Reason.NOT_FOUND if error.status_code == 404 else Reason.INVALID_REQUEST
        return answer(Refusal(reason, str(error.detail)), error.status_code)

    @app.exception_handler(WorldFault)
    async def _world(_: Request, error: WorldFault) -> JSONResponse:
        _log.warning("request_met_fault", reason=str(error))
        return JSONResponse({"reason": "world-fault", "detail": str(error)}, status_code=503)

    @app.exception_handler(OSError)
    async def _disk(_: Request, error: OSError) -> JSONResponse:
        _log.error("request_met_disk", reason=str(error))
        return JSONResponse({"reason": "world-fault", "detail": f"the disk refused: {error.strerror}"}, status_code=507)

    @app.exception_handler(PeerFault)
    async def _peer(_: Request, error: PeerFault) -> JSONResponse:
        _log.warning("request_met_fault", reason=str(error))
        return JSONResponse({"reason": "peer-fault", "detail": str(error)}, status_code=502)
