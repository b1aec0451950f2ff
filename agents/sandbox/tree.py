"""Finds, signals, kills and reaps a tree of processes from its root's parent.

The caller is a child subreaper (`become_subreaper`): whatever a job detaches falls to it and stays below it, so
"no child is left" (`ECHILD`) proves that the whole tree is dead. Signals go through pidfds whose place in the tree
was checked after opening, so a recycled pid is never hit. Linux only.

Imported by the warden: no dataclasses, no typing, no pathlib.
"""
# pathlib alone would add a third to the warden's start:
# ruff: noqa: PTH123, PTH208

import ctypes
import os
import signal
import time
from collections.abc import Iterable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def become_subreaper() -> None:
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """Has the kernel SIGKILL this process when `parent` dies; ends it at once if that happened already."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(125)


def boottime() -> float:
    """Seconds since the boot, time in suspend included: a lease goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def parent_and_start(pid: int) -> tuple[int, int]:
    """Returns the parent's pid and the start time in ticks since the boot; raises OSError if there is no `pid`."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[1]), int(fields[19])


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(root: int) -> list[int]:
    """Returns every process below `root`, parents first."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        try:
            children.setdefault(parent_and_start(pid)[0], []).append(pid)
        except OSError:
            continue
    found = list(children.get(root, ()))
    for pid in found:  # grows while it is read
        found.extend(children.get(pid, ()))
    return found


def send(pids: Iterable[int], number: int) -> None:
    """Signals each of `pids` that is still the process that was found."""
    for pid in pids:
        try:
            start = parent_and_start(pid)[1]
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if parent_and_start(pid)[1] == start:
                signal.pidfd_send_signal(descriptor, number)
        except OSError:
            pass  # it has just died, or is not ours to signal (a setuid program of the `process` executor)
        finally:
            os.close(descriptor)


def stop_and_kill(root: int) -> None:
    """Kills everything below `root`: stops first until no new process shows, so that a fork bomb cannot outrun it."""
    stopped: set[int] = set()
    for _ in range(20):
        fresh = [pid for pid in descendants(root) if pid not in stopped]
        if not fresh:
            break
        send(fresh, signal.SIGSTOP)
        stopped.update(fresh)
    send(descendants(root), signal.SIGKILL)


def reap_all() -> tuple[dict[int, int], bool]:
    """Reaps every child that has ended. Returns their wait statuses by pid, and whether any other child is left."""
    statuses: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return statuses, False
        if pid == 0:
            return statuses, True
        statuses[pid] = status
