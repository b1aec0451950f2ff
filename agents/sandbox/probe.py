"""Says what this machine's sandbox can and cannot do, for `fedci doctor` and the worker's start.

Each finding names what a missing thing means for jobs and what the owner can do. The last one is not a guess: it
runs a job in the very sandbox that jobs will get.
"""

import os
from dataclasses import dataclass

from agents.sandbox import cgroups, seccomp, tree
from agents.sandbox.cgroups import Group
from agents.sandbox.executor import End, JobSpec, Limits, SandboxError, Step
from agents.sandbox.local import Place, find_program, open_executor
from agents.sandbox.orphans import group_prefix

TRIAL_SECONDS = 20.0
TRIAL = JobSpec(
    job_id="probe",
    slot=0,
    steps=(Step("identity", "id -u"),),
    limits=Limits(TRIAL_SECONDS, 256 << 20, 64, 1 << 20, 1 << 16, 1.0),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """`is_ok` False means: jobs run without it (`missing` says what that costs), unless `is_fatal`."""

    name: str
    is_ok: bool
    missing: str = ""
    remedy: str = ""
    is_fatal: bool = False


async def probe(executor: str, place: Place) -> tuple[Finding, ...]:
    """Returns what holds on this machine for `executor`, in the order of importance."""
    findings = [*_programs(executor), *_limits(place), *_hardening(executor, place)]
    if not any(finding.is_fatal for finding in findings):
        findings.insert(0, await _trial(executor, place))
    return tuple(findings)


def _programs(executor: str) -> list[Finding]:
    if executor != "bubblewrap":
        return []
    wanted = {"bwrap": "bubblewrap", **({"setpriv": "util-linux"} if os.getuid() == 0 else {})}
    missing = "the bubblewrap executor cannot start a job"
    return [
        Finding(program, is_ok=True)
        if find_program(program)
        else Finding(program, is_ok=False, missing=missing, remedy=f"install {package}", is_fatal=True)
        for program, package in wanted.items()
    ]


def _limits(place: Place) -> list[Finding]:
    group = Group(cgroups.find_layout(place.cgroup_parent), group_prefix(place.state) + "probe")
    limits = TRIAL.limits
    group.create(limits.memory_bytes, limits.processes, limits.cores)
    can_kill = group.kill()
    group.remove()
    remedy = "run the worker as a systemd service with Delegate=yes (cgroup v2), or as root"
    costs = {
        "memory": "the memory limit holds for each process alone, and metered memory is an estimate",
        "pids": "the process limit is counted by user, not by job",
        "cpu": "a job may use every core of the machine",
        "cpuacct": "metered CPU time is an estimate",
    }
    found = [
        Finding(f"cgroup {name}", name in group.controllers, *(() if name in group.controllers else (cost, remedy)))
        for name, cost in costs.items()
    ]
    kill_cost = "a job's processes are killed one by one instead of in one stroke"
    return [*found, Finding("cgroup.kill", can_kill, *(() if can_kill else (kill_cost, "Linux 5.14 and cgroup v2")))]


def _hardening(executor: str, place: Place) -> list[Finding]:
    if executor == "process":
        cost = "jobs run as the worker's user and can read all it can read"
        return [Finding("isolation", is_ok=False, missing=cost, remedy="use the bubblewrap executor for others' jobs")]
    network = "a job with network reaches services on this machine's loopback"
    shared = Finding("own network", is_ok=False, missing=network, remedy="allow the network to trusted tenants only")
    if place.may_nest:
        cost = "jobs may make user namespaces, which opens more of the kernel to them"
        return [shared, Finding("seccomp", is_ok=False, missing=cost, remedy="turn nesting off in the configuration")]
    if seccomp.own_program() is None:
        cost = f"there is no system call filter for {os.uname().machine}"
        return [
            shared,
            Finding("seccomp", is_ok=False, missing=cost, remedy="give this worker to trusted tenants only"),
        ]
    return [shared, Finding("seccomp", is_ok=True)]


async def _trial(executor: str, place: Place) -> Finding:
    """Runs one job; on failure, the log it left is the explanation."""
    log = b""
    try:
        async with open_executor(executor, place).prepare(TRIAL) as sandbox:
            async for chunk in sandbox.run(tree.boottime() + TRIAL_SECONDS):
                log += chunk
            outcome = await sandbox.outcome()
    except SandboxError as error:
        return Finding("trial job", is_ok=False, missing=str(error), remedy=_trial_remedy(), is_fatal=True)
    if outcome.end is End.SUCCEEDED:
        return Finding("trial job", is_ok=True)
    text = log.decode("utf-8", "replace").strip()
    return Finding("trial job", is_ok=False, missing=text, remedy=_trial_remedy(), is_fatal=True)


def _trial_remedy() -> str:
    if os.getuid() == 0:
        return "see the message; inside a container, the container must be privileged"
    return "allow unprivileged user namespaces (kernel.unprivileged_userns_clone, AppArmor), or run the worker as root"
