"""The store's client against stores that are away, break off, or lie."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from runtime.errors import PeerFault, WorldFault
from runtime.http_client import open_client
from runtime.store_client import BlobStream, Patience, StoreClient, Tab
from schemas import store_api
from schemas.ids import new_tab_id, sha256_hex
from schemas.refusals import Reason, Refusal
from schemas.store_api import StoreRequest
from tests.clocks import ManualClock
from tests.runtime.serving import served

DATA = bytes(range(256)) * 2000
DIGEST = sha256_hex(DATA)
TAB = new_tab_id()
OPENED = {"tab": TAB, "ends_at": 1767225600000, "bytes_left": 1000, "write_prefix": "p/"}
UNAVAILABLE = JSONResponse({"reason": "unavailable", "detail": "soon"}, 503)
Answer = Callable[[Request], Awaitable[Response]]


class Liar:
    """A store that answers what a test tells it to, one answer after the other; the last one stays."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[Any] = []
        self.answers: list[Answer | Response] = []

    async def answer(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.url.path}")
        self.headers.append(request.headers)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Response):
            await request.body()
            return answer
        return await answer(request)


@pytest.fixture
def liar() -> Liar:
    return Liar()


@pytest_asyncio.fixture
async def client(liar: Liar, clock: ManualClock) -> AsyncIterator[StoreClient]:
    app = Starlette(routes=[Route("/{path:path}", liar.answer, methods=["GET", "PUT", "POST", "DELETE"])])
    patience = Patience(seconds=0.5, first_pause_seconds=0.001, last_pause_seconds=0.01)
    async with open_client() as http, served(app) as url:
        yield StoreClient(url, http, Ed25519PrivateKey.generate(), clock, patience=patience)


@pytest_asyncio.fixture
async def tab(client: StoreClient, liar: Liar) -> Tab:
    liar.answers = [JSONResponse(OPENED, 201)]
    opened = await client.open_tab(b"ticket")
    assert isinstance(opened, Tab)
    return opened


def blob(data: bytes, *, status: int = 200, said: int | None = None) -> Answer:
    """Answers with a blob, and breaks off where it has said more than it has."""

    async def answer(_: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        length = said if said is not None else len(data)
        return StreamingResponse(chunks(), status, {"content-length": str(length)})

    return answer


async def test_a_store_that_is_away_for_a_moment_costs_a_moment(client: StoreClient, liar: Liar) -> None:
    liar.answers = [UNAVAILABLE, UNAVAILABLE, JSONResponse(OPENED, 201)]
    assert isinstance(await client.open_tab(b"ticket"), Tab)
    assert len(liar.asked) == 3


async def test_a_store_that_stays_away_is_the_world_s_fault(client: StoreClient, liar: Liar) -> None:
    liar.answers = [UNAVAILABLE]
    with pytest.raises(WorldFault):
        await client.open_tab(b"ticket")


async def test_nobody_there_is_the_world_s_fault(clock: ManualClock) -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(nobody)) as http:
        key, patience = Ed25519PrivateKey.generate(), Patience(seconds=0.01, first_pause_seconds=0.001)
        store = StoreClient("http://127.0.0.1:1", http, key, clock, patience=patience)
        with pytest.raises(WorldFault):
            await store.open_tab(b"ticket")


async def test_a_refusal_is_a_value_and_asked_for_once(client: StoreClient, liar: Liar) -> None:
    liar.answers = [JSONResponse({"reason": "not-admitted", "detail": "see the desk"}, 403)]
    assert await client.open_tab(b"ticket") == Refusal(Reason.NOT_ADMITTED, "see the desk")
    assert len(liar.asked) == 1


async def test_a_full_store_is_a_refusal_not_an_outage(tab: Tab, liar: Liar) -> None:
    liar.answers = [JSONResponse({"reason": "store-full", "detail": "full"}, 507)]
    assert await tab.put_bytes(DATA) == Refusal(Reason.STORE_FULL, "full")


@pytest.mark.parametrize(
    "answer",
    [
        Response("<html>", 403),
        JSONResponse({"reason": "because"}, 403),
        JSONResponse({"tab": "x"}, 201),
        Response("no json", 201),
        Response("x" * 100_000, 201),
    ],
)
async def test_nonsense_is_the_peer_s_fault(client: StoreClient, liar: Liar, answer: Response) -> None:
    liar.answers = [answer]
    with pytest.raises(PeerFault):
        await client.open_tab(b"ticket")


async def test_each_try_is_signed_anew_over_what_is_sent(tab: Tab, liar: Liar, clock: ManualClock) -> None:
    liar.answers = [UNAVAILABLE, JSONResponse({"digest": DIGEST, "size_bytes": 1})]
    await tab.name("größe 100%.txt", DIGEST, 1)
    path = store_api.name_path(TAB, "p/größe 100%.txt")
    read = store_api.read_request("PUT", path, liar.headers[-1])
    assert not isinstance(read, Refusal)
    assert read.request == StoreRequest(TAB, "PUT", path, DIGEST, read.request.at)


async def test_a_blob_that_breaks_off_is_fetched_from_there(tab: Tab, liar: Liar, tmp_path: Path) -> None:
    begun: list[int] = []

    async def rest(request: Request) -> Response:
        begun.append(int(request.headers["range"].removeprefix("bytes=").removesuffix("-")))
        return await blob(DATA[begun[0] :], status=206)(request)

    liar.answers = [blob(DATA[:300_000], said=len(DATA)), rest]
    assert await tab.get_to_file(DIGEST, tmp_path / "file", len(DATA)) == len(DATA)
    assert (tmp_path / "file").read_bytes() == DATA
    assert 0 < begun[0] <= 300_000


async def test_a_store_that_knows_no_ranges_sends_it_all_again(tab: Tab, liar: Liar, tmp_path: Path) -> None:
    liar.answers = [blob(DATA[:300_000], said=len(DATA)), blob(DATA)]
    assert await tab.get_to_file(DIGEST, tmp_path / "file", len(DATA)) == len(DATA)
    assert (tmp_path / "file").read_bytes() == DATA


@pytest.mark.parametrize("sent", [DATA[:-1], DATA[:-1] + b"x", b"", b"x" + DATA[1:]])
async def test_other_bytes_never_become_a_file(tab: Tab, liar: Liar, tmp_path: Path, sent: bytes) -> None:
    (tmp_path / "file").write_bytes(b"as it was")
    liar.answers = [blob(sent)]
    answer = await tab.get_to_file(DIGEST, tmp_path / "file", len(DATA))
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.DIGEST_MISMATCH
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"as it was"


async def test_a_blob_larger_than_allowed_is_not_read(tab: Tab, liar: Liar, tmp_path: Path) -> None:
    liar.answers = [blob(b"", said=10**12)]
    answer = await tab.get_to_file(DIGEST, tmp_path / "file", 1000)
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.TOO_LARGE


async def test_a_stream_is_checked_at_its_end(tab: Tab, liar: Liar) -> None:
    liar.answers = [blob(DATA[:-1] + b"x")]
    async with tab.stream(DIGEST) as stream:
        assert isinstance(stream, BlobStream)
        with pytest.raises(PeerFault, match="other bytes"):
            [chunk async for chunk in stream]


async def test_a_cancelled_fetch_leaves_nothing(tab: Tab, liar: Liar, tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def never(_: Request) -> Response:
        asked.set()
        await asyncio.Event().wait()
        return Response()

    liar.answers = [never]
    fetch = asyncio.ensure_future(tab.get_to_file(DIGEST, tmp_path / "file", 1000))
    await asked.wait()
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    assert list(tmp_path.iterdir()) == []


async def test_two_puts_of_one_blob_do_not_chase_each_other(tab: Tab, liar: Liar) -> None:
    held: list[str] = []

    async def store(request: Request) -> Response:
        if request.method == "PUT":
            held.append(sha256_hex(await request.body()))
        return JSONResponse({"offset": 0, "is_complete": bool(held)})

    liar.answers = [store]
    both = await asyncio.gather(tab.put_bytes(DATA), tab.put_bytes(DATA))
    assert set(both) == {DIGEST}
    assert held == [DIGEST]


async def test_a_name_that_climbs_is_not_even_asked_for(tab: Tab, liar: Liar) -> None:
    asked = len(liar.asked)
    answer = await tab.name("../other/x", DIGEST, 1)
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.INVALID_REQUEST
    assert len(liar.asked) == asked
