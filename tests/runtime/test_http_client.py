"""Calls to parties that are away, odd or hostile."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from runtime.errors import OurFault, PeerFault, WorldFault
from runtime.http_client import Fetched, fetch, json_object, open_client
from runtime.listening import bind
from tests.runtime.serving import FREE_PORT, make_tls_files, served


async def echo(request: Request) -> Response:
    return JSONResponse({"method": request.method, "body": (await request.body()).decode()}, status_code=403)


async def endless(_: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0)

    return StreamingResponse(parts())


async def compressed(_: Request) -> Response:
    return Response(gzip.compress(b"x" * 10**6), headers={"content-encoding": "gzip"})


async def redirect(_: Request) -> Response:
    return RedirectResponse("http://127.0.0.1:1/elsewhere")


async def hang(_: Request) -> Response:
    await asyncio.Event().wait()
    raise AssertionError


APP = Starlette(
    routes=[
        Route("/echo", echo, methods=["POST"]),
        Route("/endless", endless),
        Route("/compressed", compressed),
        Route("/redirect", redirect),
        Route("/hang", hang),
    ]
)


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with served(APP) as served_at:
        yield served_at


async def call(url: str, method: str = "GET", deadline_seconds: float = 5, body: bytes | None = None) -> Fetched:
    async with open_client() as client:
        return await fetch(client, method, url, max_bytes=10_000, deadline_seconds=deadline_seconds, body=body)


async def test_any_status_is_an_answer(url: str) -> None:
    answer = await call(f"{url}/echo", "POST", body=b"hi")
    assert answer.status == 403
    assert json_object(answer) == {"method": "POST", "body": "hi"}


async def test_a_redirect_is_not_followed(url: str) -> None:
    assert (await call(f"{url}/redirect")).status == 307


async def test_an_answer_without_end_is_cut_off(url: str) -> None:
    with pytest.raises(PeerFault, match="more than 10000 bytes"):
        await call(f"{url}/endless")


async def test_a_compressed_answer_is_refused_before_it_unfolds(url: str) -> None:
    with pytest.raises(PeerFault, match="compressed"):
        await call(f"{url}/compressed")


async def test_no_answer_in_time_is_the_worlds_fault(url: str) -> None:
    with pytest.raises(WorldFault, match=r"no answer within 0\.05 s"):
        await call(f"{url}/hang", deadline_seconds=0.05)


async def test_nobody_there_is_the_worlds_fault() -> None:
    gone = bind(FREE_PORT)
    gone.socket.close()
    with pytest.raises(WorldFault, match="cannot be reached"):
        await call("http://127.0.0.1:1/")


async def test_plaintext_to_another_machine_is_never_sent() -> None:
    with pytest.raises(OurFault, match="plaintext"):
        await call("http://192.0.2.1/")


@pytest.mark.parametrize("bad", ["ftp://127.0.0.1/", "nothing", "http://[::1", "https://"])
async def test_a_url_that_is_none_is_our_fault(bad: str) -> None:
    with pytest.raises(OurFault):
        await call(bad)


async def test_the_environments_proxies_are_not_used(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert (await call(f"{url}/redirect")).status == 307


async def test_a_certificate_nobody_vouches_for_is_not_trusted(tmp_path: Path) -> None:
    async with served(APP, tls=make_tls_files(tmp_path)) as https:
        with pytest.raises(WorldFault, match="cannot be reached"):
            await call(https)


def test_a_ca_file_that_is_none_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    with pytest.raises(OurFault, match=r"ca\.pem"):
        open_client(path)


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        ("text/html", b"{}", "text/html instead of JSON"),
        ("", b"{}", "no content type"),
        ("application/json", b"{", "broken JSON"),
        ("application/json", b"[" * 100_000, "broken JSON"),
        ("application/json", b"\xff", "broken JSON"),
        ("application/json; charset=utf-8", b"[]", "no object"),
    ],
)
def test_what_is_no_json_object_is_the_peers_fault(content_type: str, body: bytes, reason: str) -> None:
    with pytest.raises(PeerFault, match=reason):
        json_object(Fetched("https://x", 200, {"content-type": content_type}, body))


@given(st.binary(max_size=40))
def test_any_bytes_give_an_object_or_a_peers_fault(body: bytes) -> None:
    try:
        value = json_object(Fetched("https://x", 200, {"content-type": "application/problem+json"}, body))
    except PeerFault:
        return
    assert isinstance(value, dict)
