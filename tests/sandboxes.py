"""Jobs for the sandbox, and how tests watch processes die without sleeping."""

import os
import select
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from agents.sandbox import cgroups, orphans
from agents.sandbox.executor import JobSpec, Limits, Mount, Outcome, Sandbox, Step
from agents.sandbox.local import LocalExecutor, Place
from agents.sandbox.tree import boottime

MIB = 1 << 20
LIMITS = Limits(
    wall_seconds=20.0, memory_bytes=256 * MIB, processes=64, workspace_bytes=64 * MIB, log_bytes=MIB, cores=1.0
)
LEASE_SECONDS = 20.0
DEADLINE_SECONDS = 15.0


def spec(
    *scripts: str,
    job_id: str = "job",
    limits: Limits = LIMITS,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    mounts: tuple[Mount, ...] = (),
    path: tuple[str, ...] = (),
    network: bool = False,
    slot: int = 0,
    grace_seconds: float = 5.0,
) -> JobSpec:
    steps = tuple(Step(f"step {number}", script) for number, script in enumerate(scripts))
    return JobSpec(
        job_id, slot, steps, limits, env or {}, secrets or {}, mounts, path, network, grace_seconds=grace_seconds
    )


def log_of(sandbox: Sandbox) -> AsyncIterator[bytes]:
    return sandbox.run(boottime() + LEASE_SECONDS)


async def run_job(executor: LocalExecutor, job: JobSpec) -> tuple[bytes, Outcome]:
    """Runs a job from prepare to destroy; returns its log and outcome."""
    async with executor.prepare(job) as sandbox:
        log = b"".join([chunk async for chunk in log_of(sandbox)])
        return log, await sandbox.outcome()


def processes_of(job_id: str) -> set[int]:
    """Every process of the job, on the host, found by what all of them inherit."""
    return orphans.marked(job_id)


@contextmanager
def watched(pids: Iterable[int]) -> Iterator[list[int]]:
    """Opens pidfds: they go on naming the same processes, dead or not."""
    descriptors = [os.pidfd_open(pid) for pid in pids]
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def wait_until_dead(pidfds: list[int], seconds: float = DEADLINE_SECONDS) -> float:
    """Blocks until all have ended; returns the CLOCK_BOOTTIME of the last end. Fails after `seconds`."""
    left = set(pidfds)
    give_up_at = time.monotonic() + seconds
    while left:
        ended, _, _ = select.select(left, [], [], max(0.0, give_up_at - time.monotonic()))
        assert ended, f"{len(left)} processes of the job still live"
        left -= set(ended)
    return boottime()


def groups_of(place: Place) -> set[str]:
    """The cgroups of this worker that are still there."""
    return cgroups.group_names(cgroups.find_layout(place.cgroup_parent), orphans.group_prefix(place.state))


def rooms_of(place: Place) -> list[Path]:
    return list(place.state.iterdir()) if place.state.is_dir() else []
