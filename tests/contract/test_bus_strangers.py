"""What a stranger writes beside its messages does not break those who read them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from pamqp.commands import Basic

from bus.access import AdminAccess
from bus.delivery import Delivery, Fate
from tests.bus_world import DINAH, ELIZA, NAMES, Bus, bus_for_tests, running, soon

D, E = NAMES.jobs_queue(DINAH, "fast"), NAMES.jobs_queue(ELIZA, "fast")
_TIMESTAMP, _HEADERS, _TYPE = 0x0040, 0x2000, 0x0020


class Written(Basic.Properties):
    """Properties as the bytes that somebody put on the wire."""

    def __init__(self, flags: int, data: bytes) -> None:
        super().__init__()
        self._bytes = flags.to_bytes(2, "big") + data

    def marshal(self) -> bytes:
        return self._bytes


class OddKey(str):
    """A routing key whose bytes are no text."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


def table(*fields: bytes) -> bytes:
    entries = b"".join(fields)
    return len(entries).to_bytes(4, "big") + entries


HOSTILE = {
    "a time in the year 292 million": (_TIMESTAMP, (2**63 - 1).to_bytes(8, "big")),
    "a type that is no text": (_TYPE, b"\x02\xff\xfe"),
    "a header whose name is no text": (_HEADERS, table(b"\x01\xffS\x00\x00\x00\x01x")),
    "a header with a time that never comes": (_HEADERS, table(b"\x01aT" + (2**63 - 1).to_bytes(8, "big"))),
}


@pytest_asyncio.fixture
async def bus(rabbitmq: AdminAccess, vhost: str) -> AsyncIterator[Bus]:
    async with bus_for_tests(rabbitmq, vhost) as bus:
        yield bus


async def write(bus: Bus, exchange: str, key: str, properties: Basic.Properties) -> None:
    async with bus.admin.channel() as channel:
        raw = await channel.get_underlay_channel()
        await soon(raw.basic_publish(b"hostile", exchange=exchange, routing_key=key, properties=properties))


@pytest.mark.parametrize("written", HOSTILE.values(), ids=HOSTILE)
async def test_a_tenants_odd_properties_cost_no_other_tenant_its_worker(bus: Bus, written: tuple[int, bytes]) -> None:
    await write(bus, NAMES.jobs_exchange(DINAH), "fast", Written(*written))
    async with running(bus.worker()) as session:
        await soon(session.up())
        since = session.status.since
        taker = session.taker([D, E])
        delivery = await soon(taker.take())
        assert delivery.body == b"hostile"
        await delivery.ack()
        await bus.put(NAMES.jobs_exchange(ELIZA), "fast", b"e1")
        other = await soon(taker.take())
        assert other.body == b"e1"
        await other.ack()
        assert session.status.since == since, "the connection was lost in between"


async def test_a_tenants_odd_routing_key_does_not_stop_the_ledger(bus: Bus) -> None:
    await write(bus, NAMES.receipts_exchange(DINAH), OddKey("any"), Basic.Properties())
    await bus.put(NAMES.receipts_exchange(ELIZA), "", b"receipt")
    came: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(delivery: Delivery) -> Fate:
        came.put_nowait(delivery.body)
        return Fate.SETTLED

    async with running(bus.ledger()) as session:
        session.consume(NAMES.receipts_queue, handle)
        assert [await soon(came.get()), await soon(came.get())] == [b"hostile", b"receipt"]
