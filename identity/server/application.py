"""The HTTP face of an identity server: forms in, JSON out (Starlette).

Forms are read here, strictly: `application/x-www-form-urlencoded` in UTF-8, no parameter twice (RFC 6749 §3.2), few and
small. What they mean is `authorization`'s. The documents that verifiers poll are read from the database for each
request, so that what the command line changes shows at once.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from identity.server import metadata, signing_keys
from identity.server.authorization import Answer, Authorization, Issuer, PostedForm
from identity.server.grants import BoundClientCredentials
from identity.server.logins import read_credentials
from identity.server.revocations import RevocationLists
from identity.server.store import Store, read, write
from identity.server.token_endpoints import Introspection, Revocation
from runtime.database import Database
from runtime.errors import FedciError, WorldFault
from runtime.http_guards import guarded
from runtime.http_probes import probe_routes
from runtime.logging import get_logger

BODY_BYTES = 16 * 1024
_FIELDS = 20
_FORM_TYPE = "application/x-www-form-urlencoded"
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_log = get_logger(__name__)

Flow = Callable[[Authorization, PostedForm], Answer]


@dataclass(frozen=True)
class Measures:
    """What `/metrics` shows."""

    registry: CollectorRegistry
    answers: Counter
    seconds: Histogram

    @classmethod
    def new(cls) -> "Measures":
        registry = CollectorRegistry()
        return cls(
            registry,
            Counter("fedci_identity_answers", "Answers to posted forms.", ("path", "outcome"), registry=registry),
            Histogram("fedci_identity_seconds", "Time to answer a posted form.", ("path",), registry=registry),
        )


def build_application(issuer: Issuer, database: Database, measures: Measures) -> ASGIApp:
    """The whole face, behind its guards."""
    face = _Face(issuer, database, measures, RevocationLists(issuer.settings.issuer, issuer.files))
    routes = [
        Route(metadata.OPENID_PATH, face.describe),
        Route(metadata.OAUTH_PATH, face.describe),
        Route(metadata.JWKS_PATH, face.key_set),
        Route(metadata.RETIRED_PATH, face.retired_keys),
        Route(metadata.REVOCATIONS_PATH, face.revocations),
        Route(metadata.TOKEN_PATH, face.form(_token), methods=["POST"]),
        Route(metadata.REVOKE_PATH, face.form(_endpoint(Revocation)), methods=["POST"]),
        Route(metadata.INTROSPECT_PATH, face.form(_endpoint(Introspection)), methods=["POST"]),
        *probe_routes({"database": face.check_database}, measures.registry),
    ]
    return guarded(Starlette(routes=routes, exception_handlers={WorldFault: _say_unavailable}), body_bytes=BODY_BYTES)


def _token(server: Authorization, posted: PostedForm) -> Answer:
    server.register_grant(BoundClientCredentials)
    answer: Answer = server.create_token_response(posted)
    return answer


def _endpoint(endpoint: type[Revocation] | type[Introspection]) -> Flow:
    def flow(server: Authorization, posted: PostedForm) -> Answer:
        server.register_endpoint(endpoint)
        answer: Answer = server.create_endpoint_response(endpoint.ENDPOINT_NAME, posted)
        return answer

    return flow


class _Face:
    def __init__(self, issuer: Issuer, database: Database, measures: Measures, lists: RevocationLists) -> None:
        self._issuer = issuer
        self._database = database
        self._measures = measures
        self._lists = lists

    async def describe(self, _: Request) -> Response:
        return self._cached(metadata.describe(self._issuer.settings.issuer))

    async def key_set(self, _: Request) -> Response:
        now = self._issuer.clock.now()
        return self._cached(await read(self._database, lambda store: signing_keys.key_set(store.published_keys(now))))

    async def retired_keys(self, _: Request) -> Response:
        return self._cached(await read(self._database, lambda store: signing_keys.former_keys(store.former_keys())))

    async def revocations(self, request: Request) -> Response:
        now = self._issuer.clock.now()
        signed = await read(self._database, lambda store: self._lists.current(store, now))
        headers = {"ETag": signed.etag, "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == signed.etag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(signed.text, media_type="application/jwt", headers=headers)

    async def check_database(self) -> str | None:
        """Ready only with keys to sign with."""
        try:
            await read(self._database, lambda store: signing_keys.load_keys(store, self._issuer.files))
        except FedciError as error:
            return str(error)
        return None

    def form(self, flow: Flow) -> Callable[[Request], Awaitable[Response]]:
        """A route that runs a flow on the posted form, in one transaction."""

        async def answer(request: Request) -> Response:
            path = request.url.path
            with self._measures.seconds.labels(path).time():
                result = await self._answer(request, flow)
            self._measures.answers.labels(path, result.error or "ok").inc()
            if result.error:
                _log.info("request_refused", path=path, error=result.error, address=_address(request))
            return JSONResponse(result.body, result.status, headers=_NO_STORE | dict(result.headers))

        return answer

    async def _answer(self, request: Request, flow: Flow) -> Answer:
        posted = await _read_form(request)
        if isinstance(posted, Answer):
            return posted
        now = self._issuer.clock.now()
        return await write(self._database, lambda store: self._run(flow, store, posted, now))

    def _run(self, flow: Flow, store: Store, posted: PostedForm, now: datetime) -> Answer:
        return flow(Authorization(self._issuer, store, now), posted)

    def _cached(self, document: Mapping[str, Any]) -> Response:
        max_age = f"public, max-age={self._issuer.settings.jwks_max_age_seconds}"
        return JSONResponse(document, headers={"Cache-Control": max_age})


async def _read_form(request: Request) -> PostedForm | Answer:
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != _FORM_TYPE:
        return _malformed(f"the content type is not {_FORM_TYPE}")
    try:
        text = (await request.body()).decode("utf-8")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_FIELDS)
    except ValueError:
        return _malformed(f"the body is not a form in UTF-8 of at most {_FIELDS} fields")
    form = dict(pairs)
    if len(form) != len(pairs):
        return _malformed("a form field stands twice")
    return PostedForm(
        path=request.url.path,
        form=form,
        credentials=read_credentials(request.headers.get("Authorization")),
        proofs=request.headers.getlist("DPoP"),
        address=_address(request),
    )


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _malformed(description: str) -> Answer:
    return Answer(HTTPStatus.BAD_REQUEST, {"error": "invalid_request", "error_description": description})


async def _say_unavailable(_: Request, error: Exception) -> Response:
    _log.error("database_failed", reason=str(error))
    body = {"error": "temporarily_unavailable", "error_description": "the identity server cannot use its database"}
    return JSONResponse(body, HTTPStatus.SERVICE_UNAVAILABLE, headers={**_NO_STORE, "Retry-After": "5"})
