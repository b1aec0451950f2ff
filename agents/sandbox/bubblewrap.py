"""The jail of the `bubblewrap` executor, as arguments of bwrap(1) and setpriv(1). Decides only; starts nothing.

What the job sees: the system's programs (`/usr` and its links) read-only, a handful of `/etc`, its toolchains
read-only at the places they name, its own `/workspace`, home and `/tmp`, a private `/proc` and `/dev`. New namespaces
of every kind; without `network` only a loopback of its own. No capability, no new privileges, a seccomp filter
(`seccomp.py`), a session of its own (no TIOCSTI to a terminal). Never uid 0:

- The worker is root: bwrap mounts as root, for a provider's toolchains may lie where only root can read, keeps just
  what is needed to change its uid, and setpriv becomes the slot's own uid and drops the rest before the first line
  of the job's is read. There is then no user namespace, and the filter lets none be made.
- The worker is not root: bwrap makes a user namespace in which the worker's uid is uid 1000, with no uid 0 in it.

With `network` the job shares the host's network, its loopback included: services that listen there and ask no
credentials are open to it. `probe` says so.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from agents.sandbox import rooms as places
from agents.sandbox.executor import ROOMY_TARGETS, JobSpec, Mount
from agents.sandbox.jail import ARGS_FD, SECCOMP_FD
from agents.sandbox.orders import Plan
from agents.sandbox.rooms import Rooms

UNPRIVILEGED_UID = 1000
SYSTEM_DIRECTORIES = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_ETC = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf", "/etc/pki", "/etc/ca-certificates", "/etc/ca-certificates.conf", "/etc/localtime",
    "/etc/services", "/etc/protocols", "/etc/mime.types", "/etc/fonts", "/etc/magic",
)  # fmt: skip
NETWORK_ETC = ("/etc/resolv.conf",)
STEPS = "/run/fedci/steps"
KEPT_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")


def make_plan(spec: JobSpec, rooms: Rooms, *, is_root: bool, bwrap: str, setpriv: str, seccomp: bytes | None) -> Plan:
    """Returns how to run `spec`. `seccomp` None leaves the job free to make user namespaces of its own."""
    return Plan(
        command=(bwrap, "--args", str(ARGS_FD), "--", *(_become(setpriv, rooms) if is_root else ()), "/bin/sh"),
        jail_arguments=tuple(_arguments(spec, rooms, is_root=is_root, seccomp=seccomp)),
        seccomp=seccomp or b"",
        workspace="/workspace",
        home=places.JAIL_HOME,
        temporary="/tmp",  # noqa: S108 - the jail's own
        steps=STEPS,
        path=spec.path,
    )


def _become(setpriv: str, rooms: Rooms) -> tuple[str, ...]:
    identity = (f"--reuid={rooms.uid}", f"--regid={rooms.gid}", "--clear-groups")
    return (setpriv, *identity, "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs", "--")


def _arguments(spec: JobSpec, rooms: Rooms, *, is_root: bool, seccomp: bytes | None) -> list[str]:
    return [
        *_namespaces(spec, is_root=is_root, may_nest=seccomp is None),
        *(("--seccomp", str(SECCOMP_FD)) if seccomp else ()),
        *_system(),
        *_etc(rooms, network=spec.network),
        *_private(spec, rooms),
        *_toolchains(spec.mounts),
        *("--remount-ro", "/", "--chdir", "/"),  # the driver goes to the workspace, which root may not even enter
    ]


def _namespaces(spec: JobSpec, *, is_root: bool, may_nest: bool) -> list[str]:
    arguments = ["--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "fedci"]
    if not spec.network:
        arguments.append("--unshare-net")
    arguments += ["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    if is_root:
        return arguments + [word for name in KEPT_CAPABILITIES for word in ("--cap-add", name)]
    arguments += ["--unshare-user", "--uid", str(UNPRIVILEGED_UID), "--gid", str(UNPRIVILEGED_UID)]
    return arguments if may_nest else [*arguments, "--disable-userns"]


def _system() -> list[str]:
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in SYSTEM_DIRECTORIES:
        path = Path(name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            arguments += ["--ro-bind", name, name]
    return arguments


def _etc(rooms: Rooms, *, network: bool) -> list[str]:
    arguments = _directories(["/etc", "/etc/ssl"])
    for name in SYSTEM_ETC + (NETWORK_ETC if network else ()):
        arguments += ["--ro-bind-try", name, name]
    for path in sorted(rooms.etc.iterdir()):
        arguments += ["--ro-bind", str(path), f"/etc/{path.name}"]
    return arguments


def _private(spec: JobSpec, rooms: Rooms) -> list[str]:
    shared_memory = str(max(1 << 20, spec.limits.memory_bytes // 2))
    return [
        *("--proc", "/proc", "--dev", "/dev"),
        *("--perms", "1777", "--size", shared_memory, "--tmpfs", "/dev/shm"),  # noqa: S108 - the jail's own
        *_directories(["/run", "/run/fedci", "/var", "/home"]),
        *("--ro-bind", str(rooms.steps), STEPS),
        *("--bind", str(rooms.workspace), "/workspace"),
        *("--bind", str(rooms.home), places.JAIL_HOME),
        *("--bind", str(rooms.temporary), "/tmp", "--symlink", "../tmp", "/var/tmp"),  # noqa: S108 - the jail's own
    ]


def _directories(paths: Iterable[str]) -> list[str]:
    return [word for path in paths for word in ("--perms", "0755", "--dir", path)]


def _toolchains(mounts: tuple[Mount, ...]) -> list[str]:
    """Mounts outer directories before inner ones, below parents that anyone may pass."""
    arguments: list[str] = []
    made = {PurePosixPath(path) for path in ("/", "/home", *ROOMY_TARGETS)}
    for mount in sorted(mounts, key=lambda mount: len(mount.target.parts)):
        parents = [parent for parent in reversed(mount.target.parents) if parent not in made]
        if not any(parent in made for parent in mount.target.parents if parent in {m.target for m in mounts}):
            arguments += _directories(str(parent) for parent in parents)
        made |= {*parents, mount.target}
        arguments += ["--ro-bind", str(mount.source), str(mount.target)]
    return arguments
