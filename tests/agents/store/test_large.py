"""Large blobs: memory does not grow with them."""

import hashlib
from pathlib import Path

import pytest

from schemas import limits
from tests.agents.store.world import World

SIZE = 200 * limits.MIB
ALLOWED = 48 * limits.MIB
"""Client and server share this process, each with buffers of a few chunks, and sockets with theirs."""


def memory(field: str) -> int:
    """A field of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def forget_peak() -> int:
    """Let the peak begin anew (proc(5), clear_refs), and return what is in use now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS:")


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_blob(world: World, tmp_path: Path) -> None:
    whole = hashlib.sha256()
    with (tmp_path / "out").open("wb") as file:
        for number in range(200):
            piece = bytes([number]) * limits.MIB
            whole.update(piece)
            file.write(piece)
    tab, digest = await world.tab(write_bytes=SIZE), whole.hexdigest()
    before = forget_peak()
    assert await tab.put_file(tmp_path / "out", digest, SIZE) is None
    assert await tab.get_to_file(digest, tmp_path / "in", SIZE) == SIZE
    assert memory("VmHWM:") - before < ALLOWED
