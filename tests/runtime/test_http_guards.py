"""What is stopped before an application, and what it may rely on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.http_guards import guarded

LIMIT = 100


async def count(request: Request) -> Response:
    return JSONResponse(len(await request.body()))


async def swallow(request: Request) -> Response:
    with contextlib.suppress(Exception):  # a careless application is what is shown
        await request.body()
    return PlainTextResponse("all is well")


async def hang(_: Request) -> Response:
    await asyncio.Event().wait()
    raise AssertionError


async def fail(_: Request) -> Response:
    raise TimeoutError("the application's own")


async def trickle(_: Request) -> Response:
    async def parts() -> AsyncIterator[str]:
        for part in "abc":
            await asyncio.sleep(0.1)  # longer in all than the deadline below
            yield part

    return StreamingResponse(parts(), headers={"cache-control": "max-age=9"})


APP = Starlette(
    routes=[
        Route("/count", count, methods=["POST"]),
        Route("/blobs/count", count, methods=["POST"]),
        Route("/swallow", swallow, methods=["POST"]),
        Route("/hang", hang),
        Route("/fail", fail),
        Route("/trickle", trickle),
    ]
)


def client(app: ASGIApp, scheme: str = "http") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"{scheme}://test")


def guarded_client(deadline_seconds: float = 5) -> httpx.AsyncClient:
    return client(
        guarded(
            APP,
            body_bytes=LIMIT,
            body_bytes_by_prefix={"/blobs/": 10 * LIMIT, "/blobs/count/not": 1},
            deadline_seconds=deadline_seconds,
        )
    )


async def chunks(sizes: list[int]) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"x" * size


@given(st.lists(st.integers(0, LIMIT), max_size=5))
async def test_a_streamed_body_passes_exactly_up_to_the_limit(sizes: list[int]) -> None:
    async with guarded_client() as http:
        answer = await http.post("/count", content=chunks(sizes))
    if sum(sizes) <= LIMIT:
        assert answer.json() == sum(sizes)
    else:
        assert (answer.status_code, answer.json()["reason"]) == (413, "too-large")


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/count", LIMIT, 200),
        ("/count", LIMIT + 1, 413),
        ("/blobs/count", LIMIT + 1, 200),
        ("/blobs/count", 10 * LIMIT + 1, 413),
    ],
)
async def test_a_declared_body_is_judged_by_the_limit_of_its_path(path: str, size: int, status: int) -> None:
    async with guarded_client() as http:
        assert (await http.post(path, content=b"x" * size)).status_code == status


async def test_an_application_that_swallows_the_refusal_still_refuses() -> None:
    async with guarded_client() as http:
        assert (await http.post("/swallow", content=chunks([LIMIT, 1]))).status_code == 413


async def test_a_plain_asgi_application_is_guarded_too() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass

    async with client(guarded(app, body_bytes=LIMIT)) as http:
        assert (await http.post("/", content=chunks([LIMIT, 1]))).status_code == 413


async def test_a_request_without_an_answer_in_time_is_ended() -> None:
    async with guarded_client(deadline_seconds=0.02) as http:
        answer = await http.get("/hang")
    assert (answer.status_code, answer.json()["reason"]) == (503, "deadline")
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_begun_response_may_take_its_time() -> None:
    async with guarded_client(deadline_seconds=0.25) as http:
        assert (await http.get("/trickle")).text == "abc"


async def test_an_applications_own_timeout_is_not_taken_for_ours() -> None:
    async with guarded_client() as http:
        with pytest.raises(TimeoutError, match="own"):
            await http.get("/fail")


async def test_headers_are_added_but_never_overwritten() -> None:
    async with guarded_client() as http:
        plain = (await http.get("/trickle")).headers
    assert plain["cache-control"] == "max-age=9"
    assert plain["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in plain["content-security-policy"]
    assert "strict-transport-security" not in plain
    async with client(guarded(APP), "https") as https:
        assert "strict-transport-security" in (await https.get("/none")).headers
