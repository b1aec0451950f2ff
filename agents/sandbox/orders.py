"""The one order that a worker gives to a warden, made from a job's specification and an executor's plan.

Not in the order: how the job's rooms are made (`rooms`), and what the warden reports back (`jail` reads it).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from agents.sandbox import driver
from agents.sandbox.cgroups import Layout
from agents.sandbox.executor import JobSpec
from agents.sandbox.rooms import Rooms

# A job finds the usual tools here; what its toolchains bring comes before.
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
# In every step's environment; also how a later life finds what the `process` executor left behind.
JOB_VARIABLE = "FEDCI_JOB"


@dataclass(frozen=True, slots=True)
class Plan:
    """How an executor runs a job: the command that reads the driver from its standard input, and the jail's paths.

    `jail_arguments` are bwrap's, given to it in memory; without any there is no jail.
    """

    command: tuple[str, ...]
    jail_arguments: tuple[str, ...]
    seccomp: bytes
    workspace: str
    home: str
    temporary: str
    steps: str
    path: tuple[str, ...]


class Order(TypedDict):
    do: str
    command: list[str]
    jail_arguments: list[str]
    seccomp: str
    environment: dict[str, str]
    directory: str
    driver: str
    step_count: int
    uid: int
    gid: int
    space_roots: list[str]
    lease_until: float
    wall_seconds: float
    grace_seconds: float
    memory_bytes: int
    processes: int
    cores: float
    workspace_bytes: int
    cgroup_name: str
    cgroup_v1: dict[str, str]
    cgroup_v2: str | None
    cgroup_v2_controllers: list[str]


def environment(spec: JobSpec, plan: Plan) -> dict[str, str]:
    """Returns what every step finds in its environment: the sandbox's own, then the job's, then its secrets."""
    own = {
        "CI": "true",
        JOB_VARIABLE: spec.job_id,
        "HOME": plan.home,
        "LANG": "C.UTF-8",
        "LOGNAME": "fedci",
        "PATH": ":".join((*plan.path, *SYSTEM_PATH)),
        "SHELL": "/bin/sh",
        "TMPDIR": plan.temporary,
        "USER": "fedci",
        "FEDCI_WORKSPACE": plan.workspace,
    }
    return own | dict(spec.env) | dict(spec.secrets) | {JOB_VARIABLE: spec.job_id}


def make_order(spec: JobSpec, rooms: Rooms, plan: Plan, groups: Layout, group: str, lease_until: float) -> Order:
    steps = [f"{plan.steps}/{path.name}" for path in rooms.step_files(spec)]
    limits = spec.limits
    return Order(
        do="run",
        command=list(plan.command),
        jail_arguments=list(plan.jail_arguments),
        seccomp=plan.seccomp.hex(),
        # bwrap and setpriv still have privileges: nothing of the job's choosing may be in their environment.
        environment={"PATH": ":".join(SYSTEM_PATH), JOB_VARIABLE: spec.job_id},
        directory=_directory(rooms, plan),
        driver=driver.script(steps, environment(spec, plan), plan.workspace),
        step_count=len(steps),
        uid=rooms.uid,
        gid=rooms.gid,
        space_roots=[str(path) for path in rooms.writable],
        lease_until=lease_until,
        wall_seconds=limits.wall_seconds,
        grace_seconds=spec.grace_seconds,
        memory_bytes=limits.memory_bytes,
        processes=limits.processes,
        cores=limits.cores,
        workspace_bytes=limits.workspace_bytes,
        cgroup_name=group,
        cgroup_v1=groups.v1,
        cgroup_v2=groups.v2,
        cgroup_v2_controllers=list(groups.v2_controllers),
    )


def _directory(rooms: Rooms, plan: Plan) -> str:
    return "/" if plan.jail_arguments else str(rooms.workspace)


def mapped_path(spec: JobSpec, entry: str) -> str:
    """Returns where a toolchain's `path` entry really lies if nothing is mounted."""
    for mount in spec.mounts:
        if Path(entry).is_relative_to(mount.target):
            return str(mount.source / Path(entry).relative_to(mount.target))
    return entry
