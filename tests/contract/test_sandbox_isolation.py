"""What a hostile job in the bubblewrap jail cannot see, become or do. Real jails; each script is the attacker."""

import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from agents.sandbox.executor import End, JobSpec, Mount
from agents.sandbox.local import LocalExecutor, Place, open_executor
from tests.sandboxes import log_of, run_job, spec


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "running")


@pytest.fixture
def executor(place: Place) -> LocalExecutor:
    return open_executor("bubblewrap", place)


async def output(executor: LocalExecutor, script: str, **fields: object) -> str:
    log, outcome = await run_job(executor, spec(script, **fields))  # type: ignore[arg-type]
    assert outcome.end is End.SUCCEEDED, log
    return log.decode().strip()


async def refused(executor: LocalExecutor, script: str) -> str:
    log, outcome = await run_job(executor, spec(script))
    assert outcome.end is End.FAILED, log
    return log.decode().strip()


async def test_the_job_is_not_root(executor: LocalExecutor) -> None:
    real, effective, saved, fs = (await output(executor, "grep ^Uid: /proc/self/status")).split()[1:]
    assert "0" not in (real, effective, saved, fs)


async def test_the_job_is_not_root_outside_either(executor: LocalExecutor, place: Place) -> None:
    async with executor.prepare(spec("touch mine")) as sandbox:
        _ = [chunk async for chunk in log_of(sandbox)]
        owner = (sandbox.workspace / "mine").stat().st_uid
    assert owner == (place.first_uid if os.getuid() == 0 else os.getuid()) != 0


@pytest.mark.skipif(os.getuid() != 0, reason="slots have uids of their own only under root")
async def test_each_slot_has_its_own_uid(executor: LocalExecutor) -> None:
    assert await output(executor, "id -u", slot=3) == "61003"


async def test_the_job_has_no_capability_and_cannot_gain_privileges(executor: LocalExecutor) -> None:
    status = await output(executor, "grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"].strip() == "1"
    assert len(fields["Groups"].split()) <= 1


async def test_every_namespace_is_the_jobs_own(executor: LocalExecutor) -> None:
    names = ["cgroup", "ipc", "mnt", "net", "pid", "uts"] + ([] if os.getuid() == 0 else ["user"])
    inside = (await output(executor, f"cd /proc/self/ns; readlink {' '.join(names)}")).splitlines()
    outside = [str(Path("/proc/self/ns", name).readlink()) for name in names]
    assert not set(inside) & set(outside)


@pytest.mark.parametrize(
    "script",
    [
        "unshare --user true",
        "unshare --user --map-root-user mount -t tmpfs none /tmp",
        "chroot / true",
        "mount -t tmpfs none /tmp",
        "mknod /tmp/disk b 254 0",
        "mkdir /new",
        "touch /usr/new",
        "touch /etc/new",
        "touch /run/fedci/steps/000.sh",
        "echo > /run/fedci/steps/000.sh",
        "echo 1 > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger",
        "kill -9 1",
        "ls /root/",
        "ls /sys/fs",
        "cat /etc/shadow",
        "cat /proc/1/environ",
        "hostname other",
    ],
)
async def test_an_attempt_is_refused(executor: LocalExecutor, script: str) -> None:
    await refused(executor, script)


async def test_the_hosts_processes_are_invisible(executor: LocalExecutor) -> None:
    lines = (await output(executor, "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done")).splitlines()
    assert len(lines) <= 6
    assert not any("pytest" in line for line in lines)


async def test_the_hosts_files_are_invisible(executor: LocalExecutor, place: Place, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    (place.state / "other-job").mkdir(parents=True)
    for hidden in (tmp_path, place.state, Path(__file__), Path.home() / ".ssh", Path("/var/log"), Path("/srv")):
        await output(executor, f"test ! -e {shlex.quote(str(hidden))}")
    assert (await output(executor, "ls /")).split() == sorted(
        ["bin", "dev", "etc", "home", "proc", "run", "tmp", "usr", "var", "workspace"]
        + [name for name in ("lib", "lib32", "lib64", "libx32", "sbin") if Path("/", name).exists()]
    )


async def test_the_workers_environment_is_invisible(executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_TOKEN", "the worker's own")
    names = {line.split("=", 1)[0] for line in (await output(executor, "env")).splitlines()}
    assert names == {
        "CI", "FEDCI_JOB", "FEDCI_WORKSPACE", "HOME", "LANG", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL", "TMPDIR",
        "USER",
    }  # fmt: skip


async def test_a_jobs_environment_reaches_nothing_that_has_privileges(executor: LocalExecutor) -> None:
    hostile = {"LD_PRELOAD": "/workspace/evil.so", "LD_LIBRARY_PATH": "/workspace", "BASH_ENV": "/workspace/evil"}
    log, outcome = await run_job(executor, spec("echo up", env=hostile))
    assert outcome.steps[0].is_success
    assert log.count(b"evil.so") == 1  # ld.so complains for the step's own shell, and for nothing before it


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def connect(port: int) -> str:
    return f"python3 -c \"import socket; socket.create_connection(('127.0.0.1', {port}), 5)\""


async def test_without_network_there_is_only_a_loopback_of_its_own(executor: LocalExecutor, listener: int) -> None:
    devices = await output(executor, "tail -n +3 /proc/net/dev | cut -d: -f1")
    assert devices.strip() == "lo"
    assert "refused" in await refused(executor, connect(listener))


async def test_with_network_the_host_is_reached(executor: LocalExecutor, listener: int) -> None:
    await output(executor, connect(listener), network=True)


async def test_abstract_sockets_of_the_host_are_out_of_reach(executor: LocalExecutor) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0fedci-test")
        server.listen()
        script = "python3 -c \"import socket; socket.socket(socket.AF_UNIX).connect('\\0fedci-test')\""
        assert "refused" in await refused(executor, script)


async def test_the_terminal_is_not_the_workers(executor: LocalExecutor) -> None:
    await refused(executor, "echo x > /dev/tty")


async def test_a_toolchain_that_only_root_can_reach_is_mounted_read_only(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    toolchain = tmp_path / "closed" / "toolchain"
    toolchain.mkdir(parents=True)
    (toolchain / "tool").write_text("#!/bin/sh\necho works\n")
    for path, mode in ((toolchain / "tool", 0o755), (toolchain, 0o755), (toolchain.parent, 0o700)):
        path.chmod(mode)
    mount = Mount(toolchain, PurePosixPath("/srv/tools/one"))
    assert await output(executor, "tool", mounts=(mount,), path=("/srv/tools/one",)) == "works"
    log, outcome = await run_job(executor, spec("echo > /srv/tools/one/tool", mounts=(mount,)))
    assert (outcome.end, b"Read-only" in log) == (End.FAILED, True)


async def test_toolchains_lie_side_by_side_and_within_each_other(executor: LocalExecutor, tmp_path: Path) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("seen")
    mounts = (
        Mount(tmp_path / "inner", PurePosixPath("/home/someone/outer/inner")),
        Mount(tmp_path / "outer", PurePosixPath("/home/someone/outer")),
        Mount(tmp_path / "inner", PurePosixPath("/home/someone/other")),
    )
    tmp_path.chmod(0o755)
    script = "cat /home/someone/outer/inner/file /home/someone/other/file"
    assert await output(executor, script, mounts=mounts) == "seenseen"


@pytest.mark.parametrize("own", ["/tmp/check out", "/home/fedci/checkout"])
async def test_a_toolchain_may_lie_below_the_jobs_own_temporary_directory_and_home(
    executor: LocalExecutor, tmp_path: Path, own: str
) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "file").write_text("seen")
    tmp_path.chmod(0o755)
    mounts = (Mount(tmp_path / "tools", PurePosixPath(own, "tools")),)
    script = f"touch {own.rpartition('/')[0]}/mine; cat '{own}/tools/file'; rm -rf '{own}' 2>/dev/null || echo; exit 0"
    assert await output(executor, script, mounts=mounts) == "seen"
    assert (tmp_path / "tools" / "file").read_text() == "seen"


async def test_a_jail_that_cannot_start_says_why(executor: LocalExecutor, tmp_path: Path) -> None:
    missing = Mount(tmp_path / "missing", PurePosixPath("/opt/missing"))
    log, outcome = await run_job(executor, spec("echo never", mounts=(missing,)))
    assert outcome.cause is not None
    assert outcome.cause.value == "start-failed"
    assert b"missing" in log
    assert b"never" not in log


async def test_a_nested_sandbox_needs_the_owners_word(tmp_path: Path) -> None:
    nested: JobSpec = spec("unshare --user true")
    allowed = open_executor("bubblewrap", Place(tmp_path / "running", may_nest=True))
    assert (await run_job(allowed, nested))[1].end is End.SUCCEEDED


async def test_the_jail_is_private_between_two_jobs(executor: LocalExecutor) -> None:
    await output(executor, 'touch /tmp/left /dev/shm/left "$HOME/left" /workspace/left')
    await output(executor, 'test ! -e /tmp/left; test ! -e /dev/shm/left; test ! -e "$HOME/left"; test ! -e left')
