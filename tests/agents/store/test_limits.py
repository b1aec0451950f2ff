"""Quota, blob size and disk: what is full says so, and what has arrived is not lost."""

import asyncio
import sys
from pathlib import Path

import pytest

from agents.store import setup
from agents.store.disk import Disk, DiskFull, Partial
from agents.store.tables import Base
from runtime.migrations import check, upgrade
from runtime.store_client import Tab
from schemas import store_api
from schemas.refusals import Reason, Refusal
from tests.agents.store.world import NewWorld, World, digest_of, reason


async def refused(tab: Tab, data: bytes) -> Reason:
    answer = await tab.put_bytes(data)
    assert isinstance(answer, Refusal)
    return answer.reason


async def test_the_first_migration_makes_the_tables(tmp_path: Path) -> None:
    await upgrade(tmp_path / "fresh.sqlite", setup.MIGRATIONS)
    await check(tmp_path / "fresh.sqlite", setup.MIGRATIONS, Base.metadata)


async def test_a_tenant_fills_its_own_quota_only(new_world: NewWorld) -> None:
    async with new_world("keep_free_bytes = 0\nquota_bytes = 10").running() as world:
        await world.put(await world.tab(), b"12345678")
        assert await refused(await world.tab(), b"abc") is Reason.QUOTA_EXCEEDED
        await world.put(await world.tab(), b"ab")
        await world.put(await world.tab(world.eliza), b"12345678")


async def test_a_blob_has_a_largest_size(new_world: NewWorld) -> None:
    async with new_world("keep_free_bytes = 0\nblob_bytes = 10").running() as world:
        assert await refused(await world.tab(), b"12345678901") is Reason.TOO_LARGE


async def test_space_that_the_owner_keeps_is_not_given_away(new_world: NewWorld) -> None:
    async with new_world(f"keep_free_bytes = {2**52}").running() as world:
        answer = await (await world.tab()).put_bytes(b"data")
        assert isinstance(answer, Refusal)
        assert (answer.reason, "its owner must free some space" in answer.detail) == (Reason.STORE_FULL, True)


async def test_a_disk_that_fills_up_on_the_way_keeps_what_has_arrived(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab, data = await world.tab(), bytes(1_000_000)
    path = f"{store_api.upload_path(tab.id, digest_of(data))}?size={len(data)}"
    write = Partial.write

    def write_until_full(partial: Partial, piece: bytes) -> None:
        room = 400_000 - partial.size
        write(partial, piece[: max(0, room)])
        if len(piece) > room:
            raise DiskFull("No space left on device")

    monkeypatch.setattr(Partial, "write", write_until_full)
    put = f"{store_api.upload_path(tab.id, digest_of(data))}?offset=0&size={len(data)}"
    response = await world.ask(tab.id, "PUT", put, digest=digest_of(data), body=data)
    assert (response.status_code, reason(response)) == (507, Reason.STORE_FULL)
    monkeypatch.setattr(Partial, "write", write)
    assert (await world.ask(tab.id, "GET", path, digest=digest_of(data))).json()["offset"] == 400_000
    await world.put(tab, data)
    await tab.close()
    assert await world.billed("store-bytes-in") == {f"{tab.id}:in": len(data)}


async def test_a_real_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    """RLIMIT_FSIZE of a process of its own: the kernel refuses the write half way, as a full disk does."""
    script = (
        "import resource, signal, sys; from pathlib import Path; from agents.store.disk import Disk, DiskFull\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "disk = Disk(Path(sys.argv[1])); disk.prepare(); partial = disk.open_partial('b' + 'a' * 26, '0' * 64)\n"
        "try: partial.write(bytes(1500))\n"
        "except DiskFull: print('full', partial.size)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.split() == [b"full", b"1000"]


@pytest.mark.parametrize(("tenant", "digest"), [("../x", "0" * 64), ("t" + "a" * 26, "../" + "0" * 61), ("", "")])
def test_no_path_is_made_of_anything_but_ids(tmp_path: Path, tenant: str, digest: str) -> None:
    with pytest.raises(ValueError, match="made of a tenant id and a digest"):
        Disk(tmp_path).open_blob(tenant, digest)
    with pytest.raises(ValueError, match="named by a tab id"):
        Disk(tmp_path).open_partial(tenant, digest)
