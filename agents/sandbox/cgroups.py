"""Limits, accounts and kills a job's whole tree through cgroups, version 2 or 1, whichever this machine has.

`read_layout` decides from the text of `/proc/self/mountinfo` and `/proc/self/cgroup` where job groups may be made:
on version 1 below the top of each controller's hierarchy (as container engines do there), on version 2 below the
worker's own, delegated group. A machine may have both: controllers on version 1, and a bare version 2 hierarchy that
still gives `cgroup.kill`. What could not be made is not an error: `Group.controllers` says what holds, the rest falls
to rlimits, and `probe` tells the owner. Files are the kernel's `Documentation/admin-guide/cgroup-v{1,2}`.

Imported by the warden: no dataclasses, no typing, no pathlib.
"""
# pathlib alone would add a third to the warden's start:
# ruff: noqa: PTH103, PTH106, PTH110, PTH112, PTH120, PTH123

import os
import time

CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
PERIOD_MICROSECONDS = 100_000
# bwrap's monitor and its pid 1, the driver, and one to spare: ours, not the job's.
OWN_PROCESSES = 4


class Layout:
    """Where job groups are made: `v1` maps a controller to its directory, `v2` is a directory or None."""

    def __init__(self, v1: dict[str, str], v2: str | None, v2_controllers: tuple[str, ...]) -> None:
        self.v1 = v1
        self.v2 = v2
        self.v2_controllers = v2_controllers

    @property
    def controllers(self) -> set[str]:
        on_v2 = {"cpuacct" if name == "cpu" else name for name in self.v2_controllers}
        return set(self.v1) | set(self.v2_controllers) | on_v2


def read_layout(mountinfo: str, own: str, parent: str) -> Layout:
    """Decides where groups named below `parent` belong; touches no file."""
    groups = _own_groups(own)
    v1: dict[str, str] = {}
    v2 = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = [*right.split(" ", 2), "", ""][:3]
        root, mount_point = left.split(" ")[3:5]
        if kind == "cgroup":
            for name in set(options.split(",")) & set(CONTROLLERS):
                v1.setdefault(name, f"{mount_point}/{parent}")
        elif kind == "cgroup2" and v2 is None:
            inside = groups.get("", "/").removeprefix(root.rstrip("/")).strip("/")
            v2 = "/".join(part for part in (mount_point, inside, parent) if part)
    return Layout(v1, v2, ())


def _own_groups(text: str) -> dict[str, str]:
    """Returns this process's path by controller list; version 2 is the empty list."""
    lines = (line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2)
    return {names: path for _, names, path in lines}


def find_layout(parent: str) -> Layout:
    """Makes the parent directories that this process may make, and drops from the layout what it may not."""
    with open("/proc/self/mountinfo") as mounts, open("/proc/self/cgroup") as own:
        layout = read_layout(mounts.read(), own.read(), parent)
    return settle(layout)


def settle(layout: Layout) -> Layout:
    v1 = {name: path for name, path in layout.v1.items() if _make(path)}
    if layout.v2 is None or not _make(layout.v2):
        return Layout(v1, None, ())
    missing = [name for name in ("memory", "pids", "cpu") if name not in v1]
    return Layout(v1, layout.v2, _delegate(layout.v2, missing))


def _make(path: str) -> bool:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError:
        return False
    return os.access(path, os.W_OK)


def _delegate(v2: str, wanted: list[str]) -> tuple[str, ...]:
    """Hands `wanted` controllers down to `v2`'s children; returns those that arrived.

    A group with processes of its own cannot hand anything down, so the processes of the worker's own group (they are
    the worker's: the group was delegated to it) move into a leaf first.
    """
    own = os.path.dirname(v2)
    offered = [name for name in wanted if name in _read(f"{own}/cgroup.controllers").split()]
    if not offered:
        return ()
    orders = " ".join(f"+{name}" for name in offered)
    if not set(offered) <= set(_read(f"{own}/cgroup.subtree_control").split()):
        if os.path.exists(f"{own}/cgroup.type"):  # the root of a hierarchy has none, and may keep its processes
            _make(f"{own}/fedci-worker")
            for pid in _read(f"{own}/cgroup.procs").split():
                _write(f"{own}/fedci-worker/cgroup.procs", pid)
        _write(f"{own}/cgroup.subtree_control", orders)
    _write(f"{v2}/cgroup.subtree_control", orders)
    arrived = _read(f"{v2}/cgroup.subtree_control").split()
    return tuple(name for name in offered if name in arrived)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, value: str) -> bool:
    try:
        with open(path, "w") as file:
            file.write(value)
    except OSError:
        return False
    return True


class Group:
    """One job's group in every hierarchy there is. Every method may be called again and after a partial `create`."""

    def __init__(self, layout: Layout, name: str) -> None:
        self._v1 = {controller: f"{path}/{name}" for controller, path in layout.v1.items()}
        self._v2 = f"{layout.v2}/{name}" if layout.v2 else None
        self._v2_controllers = layout.v2_controllers
        self.controllers: set[str] = set()

    @property
    def directories(self) -> list[str]:
        return sorted({*self._v1.values(), *([self._v2] if self._v2 else [])})

    @property
    def can_account(self) -> bool:
        return {"memory", "cpuacct"} <= self.controllers

    def create(self, memory_bytes: int, processes: int, cores: float) -> None:
        """Makes the group and sets its limits; `controllers` tells afterwards what really holds."""
        made = {path for path in self.directories if _make(path)}
        settings = self._v1_settings(memory_bytes, processes, cores) if self._v1 else {}
        if self._v2:
            settings |= self._v2_settings(memory_bytes, processes, cores)
        for controller, files in settings.items():
            if all(os.path.dirname(path) in made and _write(path, value) for path, value in files):
                self.controllers.add(controller)
        for path, value in self._best_effort(memory_bytes):
            _write(path, value)

    def _v1_settings(self, memory: int, processes: int, cores: float) -> dict[str, list[tuple[str, str]]]:
        values = {
            "memory": [("memory.limit_in_bytes", str(memory))],
            "pids": [("pids.max", str(processes + OWN_PROCESSES))],
            "cpu": [
                ("cpu.cfs_period_us", str(PERIOD_MICROSECONDS)),
                ("cpu.cfs_quota_us", str(int(cores * PERIOD_MICROSECONDS))),
            ],
            "cpuacct": [("cpuacct.usage", "0")],
        }
        return {name: [(f"{path}/{file}", value) for file, value in values[name]] for name, path in self._v1.items()}

    def _v2_settings(self, memory: int, processes: int, cores: float) -> dict[str, list[tuple[str, str]]]:
        values = {
            "memory": [("memory.max", str(memory))],
            "pids": [("pids.max", str(processes + OWN_PROCESSES))],
            "cpu": [("cpu.max", f"{int(cores * PERIOD_MICROSECONDS)} {PERIOD_MICROSECONDS}")],
        }
        settings = {
            name: [(f"{self._v2}/{file}", value) for file, value in values[name]] for name in self._v2_controllers
        }
        if "cpu" in settings:
            settings["cpuacct"] = []
        return settings

    def _best_effort(self, memory: int) -> list[tuple[str, str]]:
        """Swap would soften the memory limit; not every kernel can account for it."""
        if "memory" in self._v1:
            return [(f"{self._v1['memory']}/memory.memsw.limit_in_bytes", str(memory))]
        if "memory" in self._v2_controllers:
            return [(f"{self._v2}/memory.swap.max", "0"), (f"{self._v2}/memory.oom.group", "1")]
        return []

    def enter(self) -> None:
        """Moves the calling process into the group; raises OSError if a group that exists does not take it."""
        for path in self.directories:
            if os.path.isdir(path):
                with open(f"{path}/cgroup.procs", "w") as file:
                    file.write("0")

    def pids(self) -> list[int]:
        found = {int(pid) for path in self.directories for pid in _read(f"{path}/cgroup.procs").split()}
        return sorted(found - {0})

    def kill(self) -> bool:
        """Kills every process in one stroke (`cgroup.kill`, Linux 5.14); False if this machine cannot."""
        if "pids" in self._v1:
            _write(f"{self._v1['pids']}/pids.max", "0")  # nobody forks any more, whatever kills them
        return self._v2 is not None and _write(f"{self._v2}/cgroup.kill", "1")

    def out_of_memory_kills(self) -> int:
        if "memory" in self._v1:
            return _keyed(_read(f"{self._v1['memory']}/memory.oom_control")).get("oom_kill", 0)
        return _keyed(_read(f"{self._v2}/memory.events")).get("oom_kill", 0)

    def cpu_seconds(self) -> float:
        if "cpuacct" in self._v1:
            return int(_read(f"{self._v1['cpuacct']}/cpuacct.usage") or 0) / 1e9
        return _keyed(_read(f"{self._v2}/cpu.stat")).get("usage_usec", 0) / 1e6

    def memory_peak_bytes(self) -> int:
        if "memory" in self._v1:
            return int(_read(f"{self._v1['memory']}/memory.max_usage_in_bytes") or 0)
        return int(_read(f"{self._v2}/memory.peak") or 0)

    def remove(self, patience_seconds: float = 1.0) -> bool:
        """Removes the empty group; the kernel may take a moment after the last process. False if something stays."""
        give_up_at = time.monotonic() + patience_seconds
        left = self.directories
        while left := [path for path in left if not _remove(path)]:
            if time.monotonic() > give_up_at:
                return False
            time.sleep(0.005)
        return True


def _remove(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _keyed(text: str) -> dict[str, int]:
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def group_names(layout: Layout, prefix: str) -> set[str]:
    """Returns the names of existing groups that begin with `prefix`."""
    parents = {*layout.v1.values(), *([layout.v2] if layout.v2 else [])}
    return {entry.name for path in parents for entry in os.scandir(path) if entry.name.startswith(prefix)}
