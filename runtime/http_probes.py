"""The three routes that every role shows to whoever watches over it.

`/healthz`: the process answers. `/readyz`: every check passes, else 503 with each reason. `/metrics`: Prometheus text
of the role's own registry (never the library's global one). None of them tells a secret or a customer's name, so they
need no token; bind them where only the owner's monitoring looks, if even counts are private.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

CHECK_SECONDS = 3.0

# Returns why the role is not ready, None when this part is.
Check = Callable[[], Awaitable[str | None]]


def probe_routes(checks: Mapping[str, Check], registry: CollectorRegistry) -> list[Route]:
    """Return the routes `/healthz`, `/readyz` and `/metrics`."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        answers = await asyncio.gather(*(_answer(check) for check in checks.values()))
        waiting = {name: why for name, why in zip(checks, answers, strict=True) if why is not None}
        return JSONResponse({"ready": not waiting, "waiting_for": waiting}, status_code=503 if waiting else 200)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


async def _answer(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:g} s"
