"""All routes as one ASGI application."""

from collections.abc import Sequence

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import JSONResponse
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from broker.api import accounts, answers, projects, providers, runs
from broker.api.access import Access, authenticated
from broker.controller import Controller
from runtime.http_guards import guarded
from schemas import limits
from schemas.pipeline import json_schema

PREFIX = "/api/v1"
_UPLOAD_SECONDS = 3600.0
_SUBMIT_SECONDS = 600.0


def build_app(controller: Controller, access: Access, more_routes: Sequence[BaseRoute] = ()) -> FastAPI:
    """The API; `more_routes` (probes, pages) stand beside it and see to their own access."""
    app = FastAPI(
        title="fedci controller",
        version="1",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.controller = controller
    app.state.access = access
    answers.install(app)
    api = APIRouter(prefix=PREFIX, dependencies=[Depends(authenticated)])
    for router in (projects.router, providers.router, runs.router, accounts.router):
        api.include_router(router)
    app.include_router(api)
    app.add_api_route(f"{PREFIX}/pipeline.schema.json", _pipeline_schema, tags=["runs"], include_in_schema=True)
    app.router.routes.extend(more_routes)
    return app


async def _pipeline_schema() -> JSONResponse:
    """The JSON Schema of a pipeline file, for editors."""
    return JSONResponse(json_schema(), media_type="application/schema+json")


def behind_guards(app: ASGIApp) -> ASGIApp:
    """The application with limits on bodies and deadlines, for `serve_http`."""
    return guarded(
        app,
        body_bytes=limits.MIB,
        body_bytes_by_prefix={f"{PREFIX}/snapshots": limits.SNAPSHOT_BYTES},
        deadline_seconds_by_prefix={f"{PREFIX}/snapshots": _UPLOAD_SECONDS, f"{PREFIX}/runs": _SUBMIT_SECONDS},
    )
