"""From a job to its sandbox: limits, environment, toolchains, and the first lines of its log.

A toolchain is a directory of the owner's, seen by the job read-only at its `target`, with other directories that it
needs beside it. What the job asked for was admitted before; nothing is refused here.
"""

from dataclasses import dataclass

from agents.sandbox.executor import JobSpec, Limits, Mount, Step
from schemas.orders import GrantSecrets, Job


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What a job gets that names it: read-only directories, and entries of its PATH as the job sees them."""

    name: str
    description: str
    mounts: tuple[Mount, ...]
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Jails:
    """How this worker's jobs are locked up. `not_enforced` are the limits that this machine cannot hold, in words."""

    provider: str
    worker: str
    executor: str
    toolchains: tuple[Toolchain, ...]
    not_enforced: tuple[str, ...]
    grace_seconds: float

    def spec_of(self, job: Job, secrets: GrantSecrets, slot: int) -> JobSpec:
        """The sandbox's specification; raises SpecError where a secret's value cannot be an environment variable."""
        chosen = [each for each in self.toolchains if each.name in job.toolchains]
        return JobSpec(
            job_id=job.attempt,
            slot=slot,
            steps=tuple(Step(step.name, step.run) for step in job.steps),
            limits=Limits(
                wall_seconds=job.timeout_seconds,
                memory_bytes=job.resources.memory_bytes,
                processes=job.resources.processes,
                workspace_bytes=job.resources.disk_bytes,
                log_bytes=job.log_bytes,
                cores=job.resources.cores,
            ),
            env=dict(job.env),
            secrets={name: secrets.secrets[name] for name in job.secrets},
            mounts=tuple(mount for toolchain in chosen for mount in toolchain.mounts),
            path=tuple(entry for toolchain in chosen for entry in toolchain.path),
            network=job.network,
            grace_seconds=self.grace_seconds,
        )

    def header_of(self, job: Job) -> str:
        """What a job's log begins with: where it runs, and what holds there."""
        lines = [
            f"worker {self.worker} of {self.provider}, sandbox {self.executor}, network {_on(job.network)}",
            f"toolchains: {', '.join(job.toolchains) or 'none'}",
        ]
        if self.not_enforced:
            lines.append(f"not enforced here: {'; '.join(self.not_enforced)}")
        return "".join(f"[fedci] {line}\n" for line in lines)


def _on(is_on: bool) -> str:
    return "on" if is_on else "off"
