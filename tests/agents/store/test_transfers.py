"""Putting and getting: resumed, repeated, concurrent, spoilt, cut off."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from agents.store.disk import Disk
from agents.store.tabs import Tab as StoreTab
from agents.store.uploads import UploadLimits, Uploads, Wanted
from runtime.database import Database
from runtime.store_client import BlobStream
from runtime.store_files import FileFault
from schemas import store_api
from schemas.refusals import Reason, Refusal
from schemas.store_api import UploadState
from tests.agents.store.world import World, digest_of, reason
from tests.clocks import ManualClock

DATA = bytes(range(256)) * 4096  # 1 MiB
DIGEST = digest_of(DATA)


async def test_a_file_comes_back_as_it_went(world: World, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(DATA)
    tab = await world.tab()
    assert await tab.put_file(tmp_path / "out", DIGEST, len(DATA)) is None
    assert await tab.get_to_file(DIGEST, tmp_path / "in", len(DATA)) == len(DATA)
    assert (tmp_path / "in").read_bytes() == DATA
    assert world.blob_file(world.dinah, DIGEST).stat().st_mode & 0o777 == 0o600
    assert (world.directory / "blobs" / "data").stat().st_mode & 0o777 == 0o700


async def test_a_blob_can_be_read_on_the_way(world: World) -> None:
    tab = await world.tab()
    await world.put(tab, DATA)
    async with tab.stream(DIGEST) as blob:
        assert isinstance(blob, BlobStream)
        assert blob.size_bytes == len(DATA)
        assert b"".join([chunk async for chunk in blob]) == DATA


async def test_an_empty_blob_is_a_blob(world: World, tmp_path: Path) -> None:
    tab = await world.tab()
    assert await tab.put_bytes(b"") == digest_of(b"")
    assert await tab.get_to_file(digest_of(b""), tmp_path / "empty", 0) == 0
    assert (tmp_path / "empty").read_bytes() == b""


async def test_what_the_tab_has_is_not_sent_again(world: World) -> None:
    tab = await world.tab(write_bytes=len(DATA))
    await world.put(tab, DATA)
    await world.put(tab, DATA)
    await tab.close()
    assert await world.billed("store-bytes-in") == {f"{tab.id}:in": len(DATA)}


async def test_knowing_a_digest_gives_no_right_to_it(world: World, tmp_path: Path) -> None:
    await world.put(await world.tab(), DATA)
    other_job = await world.tab()
    answer = await other_job.get_to_file(DIGEST, tmp_path / "in", len(DATA))
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.NOT_FOUND
    state = await world.ask(
        other_job.id, "GET", f"{store_api.upload_path(other_job.id, DIGEST)}?size={len(DATA)}", digest=DIGEST
    )
    assert state.json() == {"offset": 0, "is_complete": False}
    named = await other_job.name("stolen", DIGEST, len(DATA))
    assert isinstance(named, Refusal)
    assert named.reason is Reason.NOT_FOUND


async def test_two_jobs_of_one_tenant_share_one_file(world: World) -> None:
    for _ in range(2):
        await world.put(await world.tab(), DATA)
    assert world.files() == [world.blob_file(world.dinah, DIGEST)]


async def test_tenants_share_nothing(world: World) -> None:
    await world.put(await world.tab(world.dinah), DATA)
    theirs = await world.tab(world.eliza, reads=(DIGEST,), reads_all=True)
    async with theirs.stream(DIGEST) as blob:
        assert isinstance(blob, Refusal)
        assert blob.reason is Reason.NOT_FOUND
    await world.put(theirs, DATA)
    assert world.files() == sorted([world.blob_file(world.dinah, DIGEST), world.blob_file(world.eliza, DIGEST)])


async def test_a_ticket_lists_what_may_be_read(world: World, tmp_path: Path) -> None:
    await world.put(await world.tab(), DATA)
    tab = await world.tab(reads=(DIGEST,), write_prefix=None, write_bytes=0)
    assert await tab.get_to_file(DIGEST, tmp_path / "in", len(DATA)) == len(DATA)


async def test_a_blob_larger_than_expected_is_not_fetched(world: World, tmp_path: Path) -> None:
    tab = await world.tab()
    await world.put(tab, DATA)
    refusal = await tab.get_to_file(DIGEST, tmp_path / "in", len(DATA) - 1)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.TOO_LARGE
    assert list(tmp_path.glob("*in*")) == []


async def test_an_upload_goes_on_where_it_was_cut(world: World) -> None:
    tab = await world.tab()
    await send_part(world, tab.id, 300_000)
    state = await world.ask(tab.id, "GET", f"{store_api.upload_path(tab.id, DIGEST)}?size={len(DATA)}", digest=DIGEST)
    assert 0 < state.json()["offset"] <= 300_000
    await world.put(tab, DATA)
    await tab.close()
    assert await world.billed("store-bytes-in") == {f"{tab.id}:in": len(DATA)}
    assert world.files() == [world.blob_file(world.dinah, DIGEST)]


async def test_an_upload_goes_on_after_a_restart(world: World) -> None:
    tab = await world.tab()
    await send_part(world, tab.id, 300_000)
    async with world.running():
        path = f"{store_api.upload_path(tab.id, DIGEST)}?size={len(DATA)}"
        offset = (await world.ask(tab.id, "GET", path, digest=DIGEST)).json()["offset"]
        assert offset > 0
        path = f"{store_api.upload_path(tab.id, DIGEST)}?offset={offset}&size={len(DATA)}"
        done = await world.ask(tab.id, "PUT", path, digest=DIGEST, body=DATA[offset:])
        assert done.json() == {"offset": len(DATA), "is_complete": True}


async def begin(world: World, tab: str, count: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Begin an upload of DATA and send so many bytes; returns when the store has some of them."""
    path = f"{store_api.upload_path(tab, DIGEST)}?offset=0&size={len(DATA)}"
    signed = store_api.StoreRequest(tab, "PUT", path, DIGEST, world.clock.now()).headers(world.dinah.key.private)
    host, _, port = world.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = [f"PUT {path} HTTP/1.1", f"host: {host}", f"content-length: {len(DATA)}"]
    head += [f"{name}: {value}" for name, value in signed.items()]
    writer.write("\r\n".join([*head, "", ""]).encode() + DATA[:count])
    await writer.drain()
    await world.receiving()
    return reader, writer


async def send_part(world: World, tab: str, count: int) -> None:
    """Begin an upload of DATA, and lose the connection after so many bytes."""
    reader, writer = await begin(world, tab, count)
    writer.write_eof()
    await reader.read()
    writer.close()


async def test_uploads_of_one_blob_at_once_all_succeed_and_are_stored_once(world: World) -> None:
    tabs = [await world.tab() for _ in range(4)]
    results = await asyncio.gather(*(tab.put_bytes(DATA) for tab in [*tabs, *tabs]))
    assert results == [DIGEST] * 8
    assert world.files() == [world.blob_file(world.dinah, DIGEST)]


async def test_a_newer_request_ends_the_older_one(world: World) -> None:
    tab = await world.tab()
    reader, writer = await begin(world, tab.id, 300_000)
    await world.put(tab, DATA)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 409")
    assert b"a newer request" in answer
    writer.close()


async def test_a_request_that_gives_up_its_turn_neither_blocks_the_next_one_nor_lets_it_in_too_early(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is at the disk, the second one's client goes away while it waits, the third one comes."""
    keep = UploadLimits(blob_bytes=1, quota_bytes=1, keep=timedelta(days=1))
    uploads = Uploads(Database.open(tmp_path / "x.sqlite"), Disk(tmp_path), keep, clock)
    wanted = Wanted(cast(StoreTab, SimpleNamespace(id="t1")), DIGEST, len(DATA))
    at_work, may_end = asyncio.Semaphore(0), asyncio.Event()

    async def at_the_disk(_: Wanted, offset: int) -> UploadState:
        at_work.release()
        await may_end.wait()
        return UploadState(offset=offset, is_complete=False)

    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    monkeypatch.setattr(uploads, "_begin", at_the_disk)
    first, second = (asyncio.create_task(uploads.receive(wanted, 0, nothing())) for _ in range(2))
    await at_work.acquire()
    second.cancel()
    await asyncio.wait([second])
    third = asyncio.create_task(uploads.receive(wanted, 0, nothing()))
    await asyncio.wait([third], timeout=0.05)
    assert at_work.locked()
    may_end.set()
    async with asyncio.timeout(10):
        await asyncio.gather(first, third)
    assert not at_work.locked()


async def test_other_bytes_than_the_digest_are_thrown_away(world: World, tmp_path: Path) -> None:
    tab = await world.tab()
    (tmp_path / "file").write_bytes(DATA)
    refusal = await tab.put_file(tmp_path / "file", digest_of(b"something else"), len(DATA))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.DIGEST_MISMATCH
    assert world.files() == []
    await world.put(tab, DATA)


async def test_a_file_that_shrank_is_told_from_a_broken_network(world: World, tmp_path: Path) -> None:
    tab = await world.tab()
    (tmp_path / "file").write_bytes(DATA[:-1])
    refusal = await tab.put_file(tmp_path / "file", DIGEST, len(DATA))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.DIGEST_MISMATCH


async def test_a_file_that_is_gone_is_not_asked_for_again_and_again(world: World, tmp_path: Path) -> None:
    with pytest.raises(FileFault):
        await (await world.tab()).put_file(tmp_path / "nothing", DIGEST, len(DATA))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("offset=1&size=10", "conflict"),
        ("offset=-1&size=10", "invalid-request"),
        ("offset=11&size=10", "invalid-request"),
        ("offset=0&size=9", "invalid-request"),
        ("offset=0&size=11", "invalid-request"),
        ("offset=0", "invalid-request"),
        ("size=10", "invalid-request"),
        ("offset=0&size=9999999999999999", "invalid-request"),
    ],
)
async def test_offsets_and_sizes_must_add_up(world: World, query: str, expected: str) -> None:
    tab, data = await world.tab(), b"0123456789"
    path = f"{store_api.upload_path(tab.id, digest_of(data))}?{query}"
    body = data[1:] if query.startswith("offset=1&") else data
    answer = await world.ask(tab.id, "PUT", path, digest=digest_of(data), body=body)
    assert reason(answer) == expected
    assert world.files() == []


async def test_a_body_longer_than_its_size_is_not_stored(world: World) -> None:
    async def chunked() -> "asyncio.AsyncIterator[bytes]":  # type: ignore[name-defined]
        yield b"0123456789"

    tab = await world.tab()
    path = f"{store_api.upload_path(tab.id, digest_of(b'01234'))}?offset=0&size=5"
    answer = await world.ask(tab.id, "PUT", path, digest=digest_of(b"01234"), body=chunked())
    assert reason(answer) == "invalid-request"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=2-4", (206, b"234", "bytes 2-4/10")),
        ("bytes=7-", (206, b"789", "bytes 7-9/10")),
        ("bytes=-2", (206, b"89", "bytes 8-9/10")),
        ("bytes=8-99", (206, b"89", "bytes 8-9/10")),
        ("bytes=0-9", (200, b"0123456789", None)),
        ("bytes=4-2", (200, b"0123456789", None)),
        ("bytes=0-1,4-5", (200, b"0123456789", None)),
        ("lines=1-2", (200, b"0123456789", None)),
    ],
)
async def test_a_part_can_be_asked_for(world: World, asked: str, expected: tuple[int, bytes, str | None]) -> None:
    tab, data = await world.tab(), b"0123456789"
    digest = await world.put(tab, data)
    path = store_api.blob_path(tab.id, digest)
    answer = await world.ask(tab.id, "GET", path, digest=digest, headers={"range": asked})
    assert (answer.status_code, answer.content, answer.headers.get("content-range")) == expected


async def test_a_part_behind_the_end_is_refused(world: World) -> None:
    tab = await world.tab()
    digest = await world.put(tab, b"0123456789")
    path = store_api.blob_path(tab.id, digest)
    answer = await world.ask(tab.id, "GET", path, digest=digest, headers={"range": "bytes=10-"})
    assert reason(answer) == "invalid-request"


async def test_asking_for_the_head_sends_nothing(world: World) -> None:
    tab = await world.tab()
    digest = await world.put(tab, DATA)
    answer = await world.ask(tab.id, "HEAD", store_api.blob_path(tab.id, digest), digest=digest)
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, str(len(DATA)), b"")
    await tab.close()
    assert await world.billed("store-bytes-out") == {}


@pytest.mark.parametrize("asked", [None, "bytes=0-9", "bytes=1000000-"])
async def test_a_blob_that_rots_on_the_disk_is_never_served_whole(
    world: World, tmp_path: Path, asked: str | None
) -> None:
    tab = await world.tab()
    await world.put(tab, DATA)
    file = world.blob_file(world.dinah, DIGEST)
    file.write_bytes(DATA[:500_000] + b"x" + DATA[500_001:])
    with pytest.raises(Exception, match=r"peer closed|incomplete|without sending"):
        await world.ask(
            tab.id,
            "GET",
            store_api.blob_path(tab.id, DIGEST),
            digest=DIGEST,
            headers={"range": asked} if asked else None,
        )
    refusal = await tab.get_to_file(DIGEST, tmp_path / "in", len(DATA))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.NOT_FOUND


@pytest.mark.parametrize("damage", ["gone", "shorter"])
async def test_a_damaged_blob_is_mended_by_the_next_upload(world: World, tmp_path: Path, damage: str) -> None:
    tab = await world.tab()
    await world.put(tab, DATA)
    file = world.blob_file(world.dinah, DIGEST)
    file.unlink() if damage == "gone" else file.write_bytes(DATA[:-1])
    assert isinstance(await tab.get_to_file(DIGEST, tmp_path / "in", len(DATA)), Refusal)
    await world.put(tab, DATA)
    assert await tab.get_to_file(DIGEST, tmp_path / "in", len(DATA)) == len(DATA)
