"""The executors of this machine: `bubblewrap` and `process`. The composition of rooms, plan, cgroup and warden.

`LocalExecutor` is the only class with a life here; what differs between the two is a plan and a uid.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agents.sandbox import bubblewrap, cgroups, orphans, process, seccomp
from agents.sandbox.cgroups import Group, Layout
from agents.sandbox.executor import JobSpec, Sandbox, SandboxUnavailable
from agents.sandbox.orders import Order, Plan, make_order
from agents.sandbox.rooms import Rooms, make_rooms, record_warden, remove_rooms
from agents.sandbox.sandbox import WardenSandbox

PROGRAM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
EXECUTORS = ("bubblewrap", "process")


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how this worker's jobs run.

    `state` is the worker's own directory for running jobs. With root, slot N runs as uid `first_uid + N`; nothing
    else may use those. `may_nest` lets jobs make user namespaces (for jobs that run containers), which opens more of
    the kernel to them.
    """

    state: Path
    first_uid: int = 61000
    cgroup_parent: str = "fedci"
    may_nest: bool = False


class LocalExecutor:
    """An `Executor` (see `executor`). `uid` says which uid a slot's files have, `plan` how its job is started."""

    def __init__(
        self,
        name: str,
        place: Place,
        groups: Layout,
        uid: Callable[[int], int],
        plan: Callable[[JobSpec, Rooms], Plan],
    ) -> None:
        self._name = name
        self._place = place
        self._groups = groups
        self._prefix = orphans.group_prefix(place.state)
        self._uid = uid
        self._plan = plan

    @property
    def name(self) -> str:
        return self._name

    @asynccontextmanager
    async def prepare(self, spec: JobSpec) -> AsyncIterator[Sandbox]:
        uid = self._uid(spec.slot)
        jail_uid = uid if os.getuid() == 0 else bubblewrap.UNPRIVILEGED_UID
        rooms = await asyncio.to_thread(make_rooms, self._place.state, spec, uid, jail_uid)
        try:
            async with self._guarded(spec, rooms) as sandbox:
                yield sandbox
        finally:
            await to_the_end(asyncio.to_thread(remove_rooms, rooms.directory))

    @asynccontextmanager
    async def _guarded(self, spec: JobSpec, rooms: Rooms) -> AsyncIterator[WardenSandbox]:
        group = self._prefix + spec.job_id

        def order(lease_until: float) -> Order:
            return make_order(spec, rooms, self._plan(spec, rooms), self._groups, group, lease_until)

        clean_up = partial(orphans.end_leftovers, spec.job_id, Group(self._groups, group))
        sandbox = WardenSandbox(spec, rooms, order, clean_up)
        await sandbox.start_warden()
        try:
            _record(rooms, sandbox.warden_pid)
            yield sandbox
        finally:
            await to_the_end(sandbox.close())

    async def reap(self) -> tuple[str, ...]:
        return await asyncio.to_thread(orphans.reap, self._place.state, self._groups)


def _record(rooms: Rooms, warden: int) -> None:
    try:
        record_warden(rooms.directory, warden)
    except OSError as error:
        raise SandboxUnavailable(f"the warden of {rooms.directory.name} did not stay: {error}") from error


async def to_the_end(work: Awaitable[None]) -> None:
    """Awaits `work` to its end even if cancelled meanwhile, and raises the cancel only then."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    await task


def open_executor(name: str, place: Place) -> LocalExecutor:
    """Returns the executor called `name` in a worker's configuration; probes cgroups. Blocks for a moment.

    Raises:
        SandboxUnavailable: this machine lacks its programs, or there is no such executor.
    """
    groups = cgroups.find_layout(place.cgroup_parent)
    if name == "process":
        return LocalExecutor(name, place, groups, lambda _slot: os.getuid(), process.make_plan)
    if name == "bubblewrap":
        is_root = os.getuid() == 0
        return LocalExecutor(name, place, groups, _uid_of_slot(place, is_root), _bubblewrap_plan(place, is_root))
    raise SandboxUnavailable(f"there is no executor {name!r}; choose one of {', '.join(EXECUTORS)}")


def _uid_of_slot(place: Place, is_root: bool) -> Callable[[int], int]:
    return lambda slot: place.first_uid + slot if is_root else os.getuid()


def _bubblewrap_plan(place: Place, is_root: bool) -> Callable[[JobSpec, Rooms], Plan]:
    bwrap = _program("bwrap", "bubblewrap")
    setpriv = _program("setpriv", "util-linux") if is_root else ""
    filtered = None if place.may_nest else seccomp.own_program()

    def plan(spec: JobSpec, rooms: Rooms) -> Plan:
        return bubblewrap.make_plan(spec, rooms, is_root=is_root, bwrap=bwrap, setpriv=setpriv, seccomp=filtered)

    return plan


def _program(name: str, package: str) -> str:
    found = find_program(name)
    if found is None:
        raise SandboxUnavailable(f"{name} is not installed: install {package}")
    return found


def find_program(name: str) -> str | None:
    """Looks where the system's package manager puts programs: setpriv must lie at the same place inside the jail."""
    return shutil.which(name, path=PROGRAM_PATH)
