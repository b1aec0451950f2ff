"""A desk is a stranger: its answers are read strictly, bounded, and never followed."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from bus.desk_client import DeskClient
from runtime.errors import PeerFault, WorldFault
from runtime.http_client import open_client
from schemas import limits
from schemas.refusals import Reason, Refusal
from schemas.sessions import SessionGranted

GRANTED = {
    "provider": "alice.example",
    "bus": {"host": "127.0.0.1", "port": 5672, "vhost": "alice", "is_tls": False, "ca": None},
    "user": "alice.example:x:1",
    "password": "p" * 30,
    "ends_at": 1_800_000_000_000,
    "revision": 7,
    "tenants": ["t" + "a" * 26],
    "pools": ["fast"],
    "workers": ["w7"],
}


class Answering:
    """A desk that gives one answer and remembers what it was asked."""

    def __init__(self, status: int, body: bytes) -> None:
        self._answer = b"HTTP/1.1 %d x\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (status, len(body), body)
        self.asked = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked = await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            writer.write(self._answer)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def desk(status: int, body: object) -> AsyncIterator[tuple[DeskClient, Answering]]:
    answering = Answering(status, body if isinstance(body, bytes) else json.dumps(body).encode())
    async with await asyncio.start_server(answering.serve, "127.0.0.1", 0) as server, open_client() as client:
        port = server.sockets[0].getsockname()[1]
        yield DeskClient(f"http://127.0.0.1:{port}/", client), answering


async def test_a_session_is_read_and_its_password_shows_nowhere() -> None:
    async with desk(200, GRANTED) as (client, answering):
        granted = await client.session(b"ticket")
    assert isinstance(granted, SessionGranted)
    assert granted.revision == 7
    assert "pppp" not in repr(granted)
    assert answering.asked.startswith(b"POST /session HTTP")
    assert b"application/msgpack" in answering.asked


async def test_who_waits_for_changes_says_what_it_knows() -> None:
    async with desk(200, GRANTED) as (client, answering):
        await client.session(b"ticket", known_revision=7, wait_seconds=25)
    assert answering.asked.startswith(b"POST /session?known=7&wait=25 HTTP")


@pytest.mark.parametrize("status", [403, 409, 429])
async def test_a_refusal_is_a_value_with_its_reason(status: int) -> None:
    async with desk(status, {"reason": "held-for-approval", "detail": "ask Alice"}) as (client, _):
        assert await client.session(b"ticket") == Refusal(Reason.HELD_FOR_APPROVAL, "ask Alice")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"not json"),
        (200, GRANTED | {"ends_at": "tomorrow"}),
        (200, GRANTED | {"surprise": 1}),
        (200, GRANTED | {"password": "short"}),
        (200, []),
        (403, {"reason": "because"}),
        (403, b"<html>"),
        (302, b""),
        (204, b""),
    ],
)
async def test_an_answer_that_breaks_the_contract_is_the_desks_fault(status: int, body: object) -> None:
    async with desk(status, body) as (client, _):
        with pytest.raises(PeerFault) as caught:
            await client.session(b"ticket")
    assert "pppp" not in str(caught.value)


async def test_a_desk_out_of_order_is_asked_again_later() -> None:
    async with desk(503, b"") as (client, _):
        with pytest.raises(WorldFault):
            await client.session(b"ticket")
        with pytest.raises(WorldFault):
            await client.card()


async def test_a_card_is_handed_over_as_it_came() -> None:
    async with desk(200, b"an envelope") as (client, answering):
        assert await client.card() == b"an envelope"
    assert answering.asked.startswith(b"GET /card HTTP")


async def test_an_answer_without_end_is_not_read() -> None:
    async with desk(200, b"x" * (limits.STATEMENT_BYTES + 1)) as (client, _):
        with pytest.raises(PeerFault, match="more than"):
            await client.card()
