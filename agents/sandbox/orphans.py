"""Finds and ends what an earlier life of the worker left: wardens, cgroups, detached processes, directories.

Normally there is nothing but directories: a warden ends its job when its worker dies. The rest is for two deaths at
once. Only what carries this worker's own marks is touched: processes recorded with their start time and boot,
cgroups with the worker's prefix, and (for the `process` executor, whose jobs have no namespace to die with)
processes with the job's id in their environment.
"""

import hashlib
import os
import select
import signal
import time
from pathlib import Path

from agents.sandbox import cgroups, tree
from agents.sandbox.cgroups import Group, Layout
from agents.sandbox.orders import JOB_VARIABLE
from agents.sandbox.rooms import recorded_warden, remove_rooms

PATIENCE_SECONDS = 10.0


def group_prefix(state: Path) -> str:
    """Names this worker's cgroups apart from those of another worker on the machine."""
    return hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:12] + "-"


def reap(state: Path, layout: Layout) -> tuple[str, ...]:
    """Ends and removes everything of earlier lives; returns the job ids found. Blocks: call it in a thread."""
    prefix = group_prefix(state)
    jobs = sorted(path.name for path in state.iterdir() if path.is_dir()) if state.is_dir() else []
    grouped = {name.removeprefix(prefix) for name in cgroups.group_names(layout, prefix)}
    for job in sorted({*jobs, *grouped}):
        _end_warden(state / job)
        end_leftovers(job, Group(layout, prefix + job))
        remove_rooms(state / job)
    return tuple(sorted({*jobs, *grouped}))


def _end_warden(directory: Path) -> None:
    pid = recorded_warden(directory)
    if pid is None:
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # It has seen its worker's end and is killing its job; only a stuck one has to be helped.
        if not select.select([descriptor], [], [], PATIENCE_SECONDS)[0]:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [], PATIENCE_SECONDS)
    finally:
        os.close(descriptor)


def end_leftovers(job_id: str, group: Group) -> bool:
    """Kills what a dead warden left of a job and waits for its end; False if something will not die."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        group.kill()
        left = {*group.pids(), *marked(job_id)}
        if not left:
            return group.remove()
        tree.send(left, signal.SIGKILL)
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.005)


def marked(job_id: str) -> set[int]:
    """Returns the processes that were started with the job's id in their environment, wardens not among them."""
    mark = f"{JOB_VARIABLE}={job_id}".encode()
    return {pid for pid in tree.all_pids() if pid != os.getpid() and mark in _environment(pid)}


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
