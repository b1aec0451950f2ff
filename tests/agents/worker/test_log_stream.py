"""Every byte arrives once, in its place, whatever the bus does; and the job waits rather than the memory fills."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.worker.journal.spool import Cut, Spool
from agents.worker.speech.log_stream import LogStream, StreamLimits
from runtime.errors import WorldFault
from runtime.outbox import Later, PublishResult, Rejected, Sent
from schemas import ids, limits
from tests.clocks import ManualClock

FAST = StreamLimits(batch_seconds=0.001, first_retry_seconds=0.001, last_retry_seconds=0.001, backlog_bytes=1000)


class Bus:
    """Takes a chunk only after so many refusals; may be closed altogether."""

    def __init__(self, refusals: list[PublishResult | Exception] | None = None) -> None:
        self.refusals = refusals or []
        self.chunks: dict[int, bytes] = {}
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.under_way = 0
        self.most_under_way = 0

    async def send(self, cut: Cut, data: bytes) -> PublishResult:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.is_open.wait()
            await asyncio.sleep(0)
            if self.refusals:
                answer = self.refusals.pop()
                if isinstance(answer, Exception):
                    raise answer
                return answer
            assert len(data) == cut.length
            assert self.chunks.setdefault(cut.offset, data) == data
            return Sent()
        finally:
            self.under_way -= 1

    def log(self) -> bytes:
        whole = b""
        for offset in sorted(self.chunks):
            assert offset == len(whole)
            whole += self.chunks[offset]
        return whole


@asynccontextmanager
async def _streaming(stream: LogStream) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(stream.run())
    try:
        async with asyncio.timeout(10):
            yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


pieces = st.lists(st.binary(min_size=1, max_size=3000) | st.just(b"x" * 70_000), max_size=10)
troubles = st.lists(st.sampled_from([Later("away"), Rejected("full"), WorldFault("lost")]), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=pieces, trouble=troubles)
def test_all_bytes_arrive_in_place_whatever_the_bus_does(
    tmp_path_factory: pytest.TempPathFactory, written: list[bytes], trouble: list[PublishResult | Exception]
) -> None:
    async def story() -> None:
        bus = Bus(trouble)
        stream = LogStream(Spool(tmp_path_factory.mktemp("spool"), "c"), bus.send, ManualClock(), bounds=FAST)
        async with _streaming(stream) as running:
            for piece in written:
                await stream.write(piece)
            digest = await stream.close()
            await running
        assert bus.log() == b"".join(written)
        assert digest == ids.sha256_hex(bus.log())
        assert stream.acknowledged == len(bus.log())

    asyncio.run(story())


def _stream(tmp_path: Path, bus: Bus, bounds: StreamLimits = FAST, acknowledged: int = 0) -> LogStream:
    return LogStream(Spool(tmp_path, "c"), bus.send, ManualClock(), acknowledged=acknowledged, bounds=bounds)


async def test_a_writer_waits_while_the_bus_is_too_far_behind(tmp_path: Path) -> None:
    bus = Bus()
    bus.is_open.clear()
    stream = _stream(tmp_path, bus)
    async with _streaming(stream):
        await stream.write(b"x" * 1000)
        writing = asyncio.create_task(stream.write(b"y"))
        done, _ = await asyncio.wait([writing], timeout=0.05)
        assert not done
        bus.is_open.set()
        await writing


async def test_a_writer_that_must_not_wait_any_more_does_not(tmp_path: Path) -> None:
    bus = Bus()
    bus.is_open.clear()
    stream = _stream(tmp_path, bus)
    async with _streaming(stream):
        writing = asyncio.create_task(stream.write(b"x" * 5000))
        await stream.stop_pausing()
        await writing
        await stream.write(b"y" * 5000)


async def test_no_more_than_a_window_is_under_way(tmp_path: Path) -> None:
    bus = Bus()
    stream = _stream(tmp_path, bus, replace(FAST, window=3, backlog_bytes=limits.GIB))
    async with _streaming(stream) as running:
        await stream.write(b"x" * (20 * limits.LOG_CHUNK_BYTES))
        await stream.close()
        await running
    assert len(bus.chunks) == 20
    assert bus.most_under_way <= 3


async def test_small_writes_travel_together(tmp_path: Path) -> None:
    bus = Bus()
    stream = _stream(tmp_path, bus, replace(FAST, batch_seconds=5))
    async with _streaming(stream) as running:
        for _ in range(100):
            await stream.write(b"line\n")
        await stream.close()
        await running
    assert len(bus.chunks) == 1


async def test_a_stream_goes_on_from_where_the_bus_had_it(tmp_path: Path) -> None:
    first = Bus()
    stream = _stream(tmp_path, first)
    async with _streaming(stream) as running:
        await stream.write(b"already there ")
        await stream.close()
        await running
    acknowledged = stream.acknowledged
    second = Bus()
    again = _stream(tmp_path, second, acknowledged=acknowledged)
    async with _streaming(again) as running:
        await again.write(b"and the rest")
        await again.close()
        await running
    assert second.chunks == {acknowledged: b"and the rest"}


@contextmanager
def _full(spool: Spool) -> Iterator[None]:
    """The disk has no room for another record of the spool, while the block lasts."""
    descriptor, room, none = spool._cuts, os.dup(spool._cuts), os.open("/dev/full", os.O_RDWR)
    os.dup2(none, descriptor)
    try:
        yield
    finally:
        os.dup2(room, descriptor)
        os.close(room)
        os.close(none)


async def test_a_full_disk_delays_the_log_and_takes_nothing_of_it(tmp_path: Path) -> None:
    bus, spool = Bus(), Spool(tmp_path, "c")
    stream = LogStream(spool, bus.send, ManualClock(), bounds=FAST)
    async with _streaming(stream) as running:
        with _full(spool):
            await stream.write(b"before ")
            done, _ = await asyncio.wait([running], timeout=0.05)
            assert not done
        await stream.write(b"and after")
        await stream.close()
        await running
    assert bus.log() == b"before and after"
