"""Finds and ends the processes of a private node, even those whose parent is long dead.

A process belongs to a node when its environment carries the node's mark (`MARK=<directory>`). The mark is inherited by
whatever the node starts, including what daemonises itself, and unlike a process id it is never used again by another.
Linux only (`/proc`, pidfd); sees only processes of the same user, which are the only ones it could end anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from pathlib import Path

MARK = "FEDCI_PRIVATE_NODE"
_PROC = Path("/proc")


def marked_processes(directory: Path) -> list[int]:
    """Process ids of everything alive that was started for the node in `directory`."""
    mark = f"{MARK}={directory}".encode()
    pids = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [pid for pid in pids if pid != os.getpid() and mark in _environment(pid)]


async def end_marked_processes(directory: Path, *, seconds: float = 5.0) -> None:
    """Kill everything of the node in `directory` and wait until it is gone, at most `seconds`."""
    async with asyncio.timeout(seconds):
        while pids := marked_processes(directory):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.gather(*(wait_for_exit(pid) for pid in pids))


def has_ended(pid: int) -> bool:
    """Whether process `pid` has ended, reaped or not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 0)[0])
    finally:
        os.close(descriptor)


async def wait_for_exit(pid: int) -> None:
    """Return when process `pid` has ended (it may still be unreaped); at once when there is none. Safe to cancel."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _environment(pid: int) -> list[bytes]:
    """Variables of a process; none when it is gone, another user's, or dead and unreaped."""
    try:
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
