"""The jail as arguments: what is mounted and kept, decided before anything runs."""

import os
from pathlib import Path, PurePosixPath

import pytest

from agents.sandbox import process
from agents.sandbox.bubblewrap import make_plan
from agents.sandbox.executor import JobSpec, Mount, SpecError
from agents.sandbox.orders import Plan, environment
from agents.sandbox.rooms import Rooms, make_rooms
from tests.sandboxes import spec


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    (tmp_path / "etc").mkdir()
    return Rooms(tmp_path, uid=61005, gid=61005)


def plan_of(job: JobSpec, rooms: Rooms, *, is_root: bool = True, seccomp: bytes | None = b"filter") -> Plan:
    return make_plan(job, rooms, is_root=is_root, bwrap="/bwrap", setpriv="/setpriv", seccomp=seccomp)


def holds(plan: Plan, *words: str) -> bool:
    line = plan.jail_arguments
    return any(line[at : at + len(words)] == words for at in range(len(line)))


def test_under_root_the_slots_uid_is_taken_before_the_shell_starts(rooms: Rooms) -> None:
    command = plan_of(spec("true"), rooms).command
    assert command.index("/setpriv") < command.index("--reuid=61005") < command.index("/bin/sh")
    assert {"--clear-groups", "--bounding-set=-all", "--no-new-privs"} <= set(command)


def test_without_root_a_user_namespace_is_made_and_no_further_one(rooms: Rooms) -> None:
    plan = plan_of(spec("true"), rooms, is_root=False)
    assert holds(plan, "--unshare-user", "--uid", "1000", "--gid", "1000", "--disable-userns")
    assert "/setpriv" not in plan.command
    assert "--cap-add" not in plan.jail_arguments


def test_the_network_is_off_unless_asked_for(rooms: Rooms) -> None:
    without, with_network = plan_of(spec("true"), rooms), plan_of(spec("true", network=True), rooms)
    assert holds(without, "--unshare-net")
    assert not holds(without, "/etc/resolv.conf")
    assert not holds(with_network, "--unshare-net")
    assert holds(with_network, "--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf")


@pytest.mark.parametrize(
    "word",
    ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent", "--new-session",
     "--clearenv", "--seccomp"],
)  # fmt: skip
@pytest.mark.parametrize("is_root", [True, False])
def test_every_jail_is_closed(rooms: Rooms, word: str, is_root: bool) -> None:
    assert word in plan_of(spec("true"), rooms, is_root=is_root).jail_arguments


def test_only_the_jobs_own_directories_can_be_written(rooms: Rooms) -> None:
    line = plan_of(spec("true"), rooms).jail_arguments
    writable = {line[at + 2] for at, word in enumerate(line) if word == "--bind"}
    assert writable == {"/workspace", "/home/fedci", "/tmp"}


def test_no_secret_is_in_the_plan(rooms: Rooms) -> None:
    job = spec("true", env={"PLAIN": "plain-value"}, secrets={"TOKEN": "secret-value"})
    plan = plan_of(job, rooms)
    assert "secret-value" not in str(plan)
    assert "secret-value" not in repr(job)
    assert environment(job, plan)["TOKEN"] == "secret-value"


def test_a_job_cannot_take_another_jobs_mark(rooms: Rooms) -> None:
    job = spec("true", env={"FEDCI_JOB": "other", "HOME": "/mine"})
    assert environment(job, plan_of(job, rooms))["FEDCI_JOB"] == "job"
    assert environment(job, plan_of(job, rooms))["HOME"] == "/mine"


def test_outer_toolchains_are_mounted_before_inner_ones(rooms: Rooms) -> None:
    mounts = (Mount(Path("/a"), PurePosixPath("/opt/x/y")), Mount(Path("/b"), PurePosixPath("/opt/x")))
    line = plan_of(spec("true", mounts=mounts), rooms).jail_arguments
    assert line.index("/b") < line.index("/a")
    assert "/opt/x" not in [line[at + 1] for at, word in enumerate(line) if word == "--dir"]


def test_without_isolation_a_toolchain_is_used_where_it_lies(rooms: Rooms) -> None:
    job = spec("true", mounts=(Mount(Path("/real"), PurePosixPath("/opt/x")),), path=("/opt/x/bin", "/else"))
    assert process.make_plan(job, rooms).path == ("/real/bin", "/else")


@pytest.mark.parametrize(
    "target",
    ["/", "relative", "/opt/../etc", "/etc", "/etc/passwd", "/proc", "/dev/x", "/workspace", "/workspace/x",
     "/tmp", "/home", "/var", "/usr/local", "/home/fedci", "/run/fedci/steps", "/lib64"],
)  # fmt: skip
def test_a_mount_over_the_sandboxs_own_is_refused(target: str) -> None:
    with pytest.raises(SpecError):
        spec("true", mounts=(Mount(Path("/a"), PurePosixPath(target)),))


@pytest.mark.parametrize("name", ["", "1A", "A B", "A-B", "A=B", "A\n", "É", "UID", "PPID", "SHELLOPTS", "IFS"])
def test_a_name_that_no_shell_exports_is_refused(name: str) -> None:
    with pytest.raises(SpecError):
        spec("true", env={name: "x"})
    with pytest.raises(SpecError):
        spec("true", secrets={name: "x"})


def test_bytes_that_no_environment_or_script_holds_are_refused() -> None:
    with pytest.raises(SpecError):
        spec("true", env={"A": "x\0y"})
    with pytest.raises(SpecError):
        spec("echo \0")


@pytest.mark.parametrize("job_id", ["", "../x", "a/b", ".", "A", "-a", "a" * 65])
def test_a_job_id_that_is_no_plain_name_is_refused(job_id: str) -> None:
    with pytest.raises(SpecError):
        spec("true", job_id=job_id)


def test_a_job_without_steps_or_with_too_many_is_refused() -> None:
    with pytest.raises(SpecError):
        spec()
    with pytest.raises(SpecError):
        spec(*["true"] * 501)


def test_rooms_are_closed_to_other_users(tmp_path: Path) -> None:
    rooms = make_rooms(tmp_path / "state", spec("true"), os.getuid(), 1000)
    closed = [tmp_path / "state", rooms.directory, *rooms.writable]
    assert {path.stat().st_mode & 0o777 for path in closed} == {0o700}
