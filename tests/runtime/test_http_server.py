"""Serving: the address, the end, and TLS."""

import asyncio
import signal
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from runtime.addresses import Listen
from runtime.errors import WorldFault
from runtime.http_client import fetch, open_client
from runtime.http_server import serve_http
from runtime.lifecycle import Stop, StopLevel
from runtime.listening import CannotListen, bind
from tests.runtime.serving import FREE_PORT, make_tls_files, served


async def hello(_: Request) -> Response:
    return PlainTextResponse("hello")


APP = Starlette(routes=[Route("/", hello)])


async def test_it_answers_at_the_url_it_reports_and_hides_its_make() -> None:
    async with served(APP) as url, open_client() as client:
        answer = await fetch(client, "GET", url, max_bytes=100)
    assert (answer.status, answer.body) == (200, b"hello")
    assert "server" not in answer.headers


async def test_a_port_bound_earlier_can_be_handed_over() -> None:
    bound, stop, ready = bind(FREE_PORT), Stop(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(serve_http(APP, bound, stop, ready=lambda _: ready.set()))
        async with open_client() as client:
            assert (await fetch(client, "GET", bound.url, max_bytes=100)).status == 200
        stop.press()
    assert ready.is_set()


async def test_a_port_in_use_is_told_with_its_setting() -> None:
    taken = bind(FREE_PORT)
    with taken.socket, pytest.raises(CannotListen, match=f"port {taken.listen.port} is in use"):
        await serve_http(APP, taken.listen, Stop(), setting="web.listen")


async def test_plaintext_is_not_offered_to_other_machines() -> None:
    with pytest.raises(CannotListen, match="could be read"):
        await serve_http(APP, Listen("0.0.0.0", 0), Stop())  # noqa: S104  # refused is what is shown


async def test_signals_stay_with_the_role() -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with served(APP):
        assert signal.getsignal(signal.SIGTERM) is before


async def test_on_drain_a_running_request_is_answered_and_the_port_is_free_again() -> None:
    begun, finish = asyncio.Event(), asyncio.Event()

    async def slow(_: Request) -> Response:
        begun.set()
        await finish.wait()
        return PlainTextResponse("done")

    app, bound, stop = Starlette(routes=[Route("/", slow)]), bind(FREE_PORT), Stop()
    listen, url = bound.listen, bound.url
    async with asyncio.TaskGroup() as group, open_client() as client:
        server = group.create_task(serve_http(app, bound, stop))
        request = group.create_task(fetch(client, "GET", url, max_bytes=100))
        await begun.wait()
        stop.press()
        finish.set()
        assert (await request).body == b"done"
        await server
    bind(listen).socket.close()


async def test_on_hand_back_a_hanging_request_is_dropped() -> None:
    begun = asyncio.Event()

    async def hang(_: Request) -> Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    bound, stop = bind(FREE_PORT), Stop()
    url = bound.url
    app = Starlette(routes=[Route("/", hang)])
    async with open_client() as client, asyncio.timeout(4), asyncio.TaskGroup() as group:
        group.create_task(serve_http(app, bound, stop, grace_seconds=60))
        request = group.create_task(_lost(client, url))
        await begun.wait()
        stop.rise_to(StopLevel.HAND_BACK)
        assert await request


async def _lost(client: httpx.AsyncClient, url: str) -> bool:
    try:
        await fetch(client, "GET", url, max_bytes=100)
    except WorldFault:
        return True
    return False


async def test_a_cancel_frees_the_port() -> None:
    bound, ready = bind(FREE_PORT), asyncio.Event()
    listen = bound.listen
    task = asyncio.create_task(serve_http(APP, bound, Stop(), ready=lambda _: ready.set()))
    await ready.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    bind(listen).socket.close()


async def test_tls_is_served_and_only_the_pinned_ca_is_trusted(tmp_path: Path) -> None:
    files = make_tls_files(tmp_path)
    async with served(APP, tls=files) as url, open_client(files.certificate) as client:
        assert url.startswith("https://")
        assert (await fetch(client, "GET", url, max_bytes=100)).body == b"hello"


async def test_unusable_tls_files_are_told_by_name(tmp_path: Path) -> None:
    files = make_tls_files(tmp_path)
    files.key.write_text("not a key")
    bound = bind(FREE_PORT, files)
    with pytest.raises(CannotListen, match=r"tls\.key"):
        await serve_http(APP, bound, Stop())
