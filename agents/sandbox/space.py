"""Measures and removes directories that a hostile job has filled.

Why measured, and not mounted with a size: a size-limited tmpfs would hold a build in memory, project quotas need a
file system mounted for them, loop devices need root and room of their own. Counting works everywhere, and is made
tight in two ways: it is repeated as often as its own cost allows, and at once when the file system has lost as much
room as the job still had. Unlinked files that the job still holds open are counted too. What remains: between two
counts a job can write past its limit by what its disk takes in a quarter of a second, and without root a directory
that the job has made unreadable is counted only by the file system's own loss of room.

Imported by the warden: no dataclasses, no typing, no pathlib.
"""
# pathlib alone would add a third to the warden's start:
# ruff: noqa: PTH106, PTH116, PTH208

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator

BLOCK_BYTES = 512
# Each entry costs the file system an inode and a name; without this a job could use all inodes and no bytes.
ENTRY_BYTES = 1024
SLICE_ENTRIES = 256
SHORTEST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 10.0
COST_FACTOR = 20


class TooDeep(Exception):
    """A path is longer than the kernel can walk: nothing below it can be counted."""


def count(roots: Iterable[str]) -> Iterator[int]:
    """Yields bytes to add, a slice of the tree at a time, without following a link.

    Raises:
        TooDeep: directories are nested beyond `PATH_MAX`.
    """
    linked: set[tuple[int, int]] = set()
    pending = list(roots)
    entries = found = 0
    while pending:
        for entry in _entries(pending.pop()):
            entries += 1
            found += _entry_bytes(entry, linked, pending)
            if entries % SLICE_ENTRIES == 0:
                yield found
                found = 0
    yield found


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            return list(found)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise TooDeep(path[:200]) from error
        return []


def _entry_bytes(entry: os.DirEntry[str], linked: set[tuple[int, int]], pending: list[str]) -> int:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise TooDeep(entry.path[:200]) from error
        return 0
    if stat.S_ISDIR(status.st_mode):
        pending.append(entry.path)
    elif status.st_nlink > 1:
        if (status.st_dev, status.st_ino) in linked:
            return ENTRY_BYTES
        linked.add((status.st_dev, status.st_ino))
    return status.st_blocks * BLOCK_BYTES + ENTRY_BYTES


def unlinked_bytes(pids: Iterable[int], device: int) -> int:
    """Returns the bytes of files on `device` that are open in `pids` but have no name any more."""
    found: dict[int, int] = {}
    for pid in pids:
        for kind in ("fd", "map_files"):
            for status in _open_files(f"/proc/{pid}/{kind}"):
                if status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode):
                    found[status.st_ino] = status.st_blocks * BLOCK_BYTES
    return sum(found.values())


def _open_files(directory: str) -> Iterator[os.stat_result]:
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        try:
            yield os.stat(f"{directory}/{name}")
        except OSError:
            continue


class SpaceWatch:
    """Counts again and again, a slice at each call, and says when the limit is passed."""

    def __init__(self, roots: list[str], limit: int, now: float) -> None:
        self._roots = roots
        self._limit = limit
        self._device = os.stat(roots[0]).st_dev
        self._counting: Iterator[int] | None = None
        self._started = self._next = now
        self._sum = self._room_left = 0
        self._free = _free_bytes(roots[0])

    def is_exceeded(self, now: float, pids: Iterable[int]) -> bool:
        """Goes on counting for a few milliseconds; True once a count has passed the limit."""
        if self._counting is None:
            if now < self._next and not self._has_lost_room():
                return False
            self._counting, self._started, self._sum = count(self._roots), now, 0
            self._free = _free_bytes(self._roots[0])
        try:
            return self._advance(self._counting, now, pids)
        except TooDeep:
            return True

    def is_exceeded_at_last(self, patience_seconds: float) -> bool:
        """Counts once more, to the end: a job that was too quick for the watch meets the same limit."""
        give_up_at = time.monotonic() + patience_seconds
        total = 0
        try:
            for found in count(self._roots):
                total += found
                if total > self._limit or time.monotonic() > give_up_at:
                    break
        except TooDeep:
            return True
        return total > self._limit

    def _has_lost_room(self) -> bool:
        return self._free - _free_bytes(self._roots[0]) > self._room_left

    def _advance(self, counting: Iterator[int], now: float, pids: Iterable[int]) -> bool:
        pause_at = time.monotonic() + 0.02
        for found in counting:
            self._sum += found
            if self._sum > self._limit:
                return True
            if time.monotonic() > pause_at:
                return False
        self._sum += unlinked_bytes(pids, self._device)
        self._counting = None
        self._room_left = max(0, self._limit - self._sum)
        cost = COST_FACTOR * (now - self._started)
        self._next = now + min(LONGEST_PAUSE_SECONDS, max(SHORTEST_PAUSE_SECONDS, cost))
        return self._sum > self._limit


def _free_bytes(path: str) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def remove_tree(path: str) -> None:
    """Removes `path` whatever a job has made of it: any depth, any modes, links, sockets; follows no link.

    Every directory found is first moved to the top and emptied there, so that neither depth nor the number of open
    files matters. Nothing of the job may run any more.
    """
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        os.fchmod(top, 0o700)
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(path)


def _empty(top: int) -> None:
    moved = 0
    while True:
        directories = _unlink_files(top)
        if not directories:
            return
        for name in directories:
            moved = _empty_one(top, name, moved)


def _empty_one(top: int, name: str, moved: int) -> int:
    os.chmod(name, 0o700, dir_fd=top)
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        for child in _unlink_files(inner):
            os.chmod(child, 0o700, dir_fd=inner)  # moving a directory writes its ".."
            moved += 1
            while _exists(top, f".removed-{moved}"):
                moved += 1
            os.rename(child, f".removed-{moved}", src_dir_fd=inner, dst_dir_fd=top)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=top)
    return moved


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _unlink_files(directory: int) -> list[str]:
    """Unlinks everything but directories; returns those."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in found if is_directory]
