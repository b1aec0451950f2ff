"""The seam between a worker and whatever runs a job's commands: its values, its life cycle, its promises.

Life cycle of one job::

    async with executor.prepare(spec) as sandbox:        # rooms made, warden started, nothing of the job runs yet
        await asyncio.to_thread(unpack, source, sandbox.workspace, ...)
        async for chunk in sandbox.run(lease_until):     # bytes of stdout and stderr, in order
            sandbox.extend(lease_until)                  # absolute, CLOCK_BOOTTIME
        outcome = await sandbox.outcome()
        ...collect from sandbox.workspace...             # nothing of the job runs any more
                                                         # destroyed: tree dead, directories and cgroups gone

Promises every executor keeps (`tests/contract/test_sandbox_executors.py` runs for each):

- All steps of a job run one after the other in one jail; the first that fails ends the job.
- When `run` is exhausted, every process of the job is dead and reaped, daemons and double forks too.
- Leaving the context, by return, exception or cancel, kills and reaps the tree first: a `CancelledError` reaches the
  caller only after that. Leaving is never held up by the job itself.
- If the worker dies, or does not extend the lease in time, the tree is killed without the worker's help.
- A slow reader of `run` stops the job's writes; at most a pipe and one stream buffer are held in memory.
- The log holds at most `log_bytes`, and one more line that says so if the job was killed.
- Secrets appear in the environment of the steps only: never in a command line, never on disk.

What this module does not do: no I/O, no processes. Refused artifacts and sources are values of `collect`, `unpack`.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Protocol

from agents.sandbox.causes import Cause

# Shells make these read-only or act on them before the first command: exporting them would end the driver.
UNEXPORTABLE = frozenset({"PPID", "UID", "EUID", "GROUPS", "BASHOPTS", "SHELLOPTS", "BASH_VERSINFO", "IFS", "OPTIND"})
JOB_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
RESERVED_TARGETS = (
    "/proc", "/dev", "/sys", "/etc", "/run", "/workspace", "/var/tmp",  # noqa: S108 - the jail's own
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64",
)  # fmt: skip
ROOMY_TARGETS = ("/home/fedci", "/tmp")  # noqa: S108 - the jail's own
"""The job's own writable directories: a mount may lie below one (people keep checkouts in both), not be one."""
MAX_STEPS = 500


class SandboxError(Exception):
    """Something about a sandbox went wrong."""


class SpecError(SandboxError, ValueError):
    """The job asks for something that no sandbox can give: the job's fault."""


class SandboxUnavailable(SandboxError):
    """This machine cannot make the sandbox now: the provider's fault."""


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    script: str


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of the provider's (a toolchain), read-only inside the jail."""

    source: Path
    target: PurePosixPath


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use; each holds for its whole tree of processes as far as `probe` says."""

    wall_seconds: float
    memory_bytes: int
    processes: int
    workspace_bytes: int
    log_bytes: int
    cores: float


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One attempt of a job, verified and granted. `slot` numbers the worker's slots from 0.

    Raises:
        SpecError: a name, a mount or an environment variable that no sandbox can take.
    """

    job_id: str
    slot: int
    steps: tuple[Step, ...]
    limits: Limits
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: tuple[Mount, ...] = ()
    path: tuple[str, ...] = ()
    network: bool = False
    grace_seconds: float = 5.0

    def __post_init__(self) -> None:
        if not JOB_ID.fullmatch(self.job_id):
            raise SpecError(f"job id {self.job_id!r} is not a plain name")
        if not 0 < len(self.steps) <= MAX_STEPS:
            raise SpecError(f"a job has 1 to {MAX_STEPS} steps, this one {len(self.steps)}")
        for name, value in (*self.env.items(), *self.secrets.items()):
            _check_variable(name, value)
        for mount in self.mounts:
            _check_target(mount.target)
        if any("\0" in step.script for step in self.steps):
            raise SpecError("a step's script holds a NUL byte")


def _check_variable(name: str, value: str) -> None:
    if not ENV_NAME.fullmatch(name) or name in UNEXPORTABLE:
        raise SpecError(f"{name!r} cannot be an environment variable of a step")
    if "\0" in value:
        raise SpecError(f"the value of {name} holds a NUL byte")


def _check_target(target: PurePosixPath) -> None:
    text = str(target)
    if not target.is_absolute() or ".." in target.parts or text == "/":
        raise SpecError(f"mount target {text!r} is not an absolute path")
    if any(target.is_relative_to(reserved) for reserved in RESERVED_TARGETS):
        raise SpecError(f"mount target {text!r} lies in a directory of the sandbox itself")
    if any(PurePosixPath(own).is_relative_to(target) for own in (*RESERVED_TARGETS, *ROOMY_TARGETS)):
        raise SpecError(f"mount target {text!r} would hide a directory of the sandbox itself")


@dataclass(frozen=True, slots=True)
class StepResult:
    """How one step went. `exit_code` is None if it was killed; a code over 128 is read as a signal, as shells do."""

    name: str
    exit_code: int | None
    signal: int | None
    started_at: datetime
    seconds: float

    @property
    def is_success(self) -> bool:
        return self.exit_code == 0


@dataclass(frozen=True, slots=True)
class Use:
    """What the tree used. `cpu` and `memory` are from a cgroup (billable) unless `is_estimated`."""

    wall_seconds: float
    cpu_seconds: float
    memory_peak_bytes: int
    is_estimated: bool


class End(Enum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # a step did, and it is the job's own doing
    KILLED = "killed"  # by us; `cause` says why


@dataclass(frozen=True, slots=True)
class Outcome:
    end: End
    cause: Cause | None
    steps: tuple[StepResult, ...]
    use: Use

    @property
    def failed_step(self) -> StepResult | None:
        return next((step for step in self.steps if not step.is_success), None)


class Sandbox(Protocol):
    """One prepared job. `workspace` is the host's path of the job's working directory."""

    @property
    def workspace(self) -> Path: ...

    @property
    def owner(self) -> tuple[int, int]:
        """The uid and gid that the job's files must have."""
        ...

    @property
    def steps(self) -> tuple[StepResult, ...]:
        """The steps that have ended so far."""
        ...

    def run(self, lease_until: float) -> AsyncIterator[bytes]:
        """Starts the steps and yields the log, once; ends when every process of the job is dead.

        `lease_until` is an instant of CLOCK_BOOTTIME in seconds. Cancel: see the module's promises.
        """
        ...

    def extend(self, lease_until: float) -> None:
        """Moves the lease's end to a later instant of CLOCK_BOOTTIME; an earlier one changes nothing."""
        ...

    async def signal(self, cause: Cause) -> None:
        """Asks for the job's end; returns at once. The first cause given stands."""
        ...

    async def outcome(self) -> Outcome:
        """How it ended; waits for the end. Cancel: the job goes on."""
        ...


class Executor(Protocol):
    @property
    def name(self) -> str: ...

    def prepare(self, spec: JobSpec) -> AbstractAsyncContextManager[Sandbox]:
        """Makes rooms and warden for one job.

        Raises:
            SandboxUnavailable: the machine cannot make it.
        """
        ...

    async def reap(self) -> tuple[str, ...]:
        """Ends and removes what an earlier life of this worker left; call before the first `prepare`.

        Returns the job ids found.
        """
        ...
