"""The directories of one job on the host: made before it, removed after it, found again after a crash.

Below the executor's state directory (mode 0700, so no other local user gets near), each job has `workspace`, `home`
and `tmp`, which the job owns and which count as its workspace bytes (on disk, not in memory: caches and temporary
files of a build are large); `steps` and `etc`, which it may read; and `warden`, the record of who runs it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from agents.sandbox import space, tree
from agents.sandbox.executor import JobSpec, SandboxUnavailable

WRITABLE = ("workspace", "home", "tmp")
JAIL_USER = "fedci"
JAIL_HOME = "/home/fedci"


@dataclass(frozen=True, slots=True)
class Rooms:
    directory: Path
    uid: int
    gid: int

    @property
    def workspace(self) -> Path:
        return self.directory / "workspace"

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def temporary(self) -> Path:
        return self.directory / "tmp"

    @property
    def steps(self) -> Path:
        return self.directory / "steps"

    @property
    def etc(self) -> Path:
        return self.directory / "etc"

    @property
    def writable(self) -> tuple[Path, ...]:
        return tuple(self.directory / name for name in WRITABLE)

    def step_files(self, spec: JobSpec) -> list[Path]:
        return [self.steps / f"{number:03}.sh" for number in range(len(spec.steps))]


def make_rooms(state: Path, spec: JobSpec, uid: int, jail_uid: int) -> Rooms:
    """Makes the rooms of `spec`; the files in them belong to `uid`, which is `jail_uid` inside the jail.

    Raises:
        SandboxUnavailable: the job's directory exists (another life of it was not reaped), or the disk refuses.
    """
    rooms = Rooms(state / spec.job_id, uid, uid if os.getuid() == 0 else os.getgid())
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        rooms.directory.mkdir(mode=0o700)
        _furnish(rooms, spec, jail_uid)
    except OSError as error:
        raise SandboxUnavailable(f"cannot make the directories of job {spec.job_id}: {error}") from error
    return rooms


def _furnish(rooms: Rooms, spec: JobSpec, jail_uid: int) -> None:
    for path in rooms.writable:
        path.mkdir(mode=0o700)
        if os.getuid() == 0:
            os.chown(path, rooms.uid, rooms.gid)
    for path in (rooms.steps, rooms.etc):
        path.mkdir()
        path.chmod(0o755)
    for path, step in zip(rooms.step_files(spec), spec.steps, strict=True):
        _write(path, step.script)
    for name, text in _etc_files(jail_uid).items():
        _write(rooms.etc / name, text)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    path.chmod(0o444)


def _etc_files(uid: int) -> dict[str, str]:
    """The jail's own user data base and names: the host's would tell the job who lives here."""
    return {
        "passwd": f"root:x:0:0:root:/root:/bin/sh\n{JAIL_USER}:x:{uid}:{uid}:fedci job:{JAIL_HOME}:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/bin/false\n",
        "group": f"root:x:0:\n{JAIL_USER}:x:{uid}:\nnogroup:x:65534:\n",
        "hosts": "127.0.0.1 localhost fedci\n::1 localhost\n",
        "hostname": "fedci\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    }


def remove_rooms(rooms: Path) -> None:
    """Removes the directories of a job of which nothing runs any more."""
    space.remove_tree(str(rooms))


def record_warden(directory: Path, pid: int) -> None:
    """Notes which process watches over the job, so that a later life of the worker never takes a stranger for it."""
    start = tree.parent_and_start(pid)[1]
    (directory / "warden").write_text(f"{pid} {start} {boot_id()}\n")


def recorded_warden(directory: Path) -> int | None:
    """Returns the pid of the job's warden if that very process still lives."""
    try:
        pid, start, boot = (directory / "warden").read_text().split()
        lives = boot == boot_id() and tree.parent_and_start(int(pid))[1] == int(start)
    except (OSError, ValueError):
        return None
    return int(pid) if lives else None


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
