"""Where job groups belong, decided from the kernel's own texts; and a version 2 tree played by plain files."""

from pathlib import Path

import pytest

from agents.sandbox.cgroups import Group, Layout, group_names, read_layout, settle

HYBRID = """\
30 1 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_version_1_groups_lie_at_the_top_of_each_hierarchy() -> None:
    layout = read_layout(HYBRID, "4:memory:/user/shell\n0::/\n", "fedci")
    assert layout.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct/fedci",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/fedci",
        "memory": "/sys/fs/cgroup/memory/fedci",
    }
    assert layout.v2 == "/sys/fs/cgroup/unified/fedci"


def test_version_2_groups_lie_in_the_workers_own() -> None:
    layout = read_layout(UNIFIED, "0::/system.slice/fedci-worker.service\n", "jobs")
    assert (layout.v1, layout.v2) == ({}, "/sys/fs/cgroup/system.slice/fedci-worker.service/jobs")


def test_a_container_sees_its_own_part_of_the_tree() -> None:
    part = UNIFIED.replace("0:26 / ", "0:26 /machine/c1 ")
    assert read_layout(part, "0::/machine/c1/worker\n", "jobs").v2 == "/sys/fs/cgroup/worker/jobs"


@pytest.mark.parametrize("text", ["", "1 2 3 / / rw - ext4 /dev/sda rw\n"])
def test_a_machine_without_cgroups_has_no_groups(text: str) -> None:
    assert read_layout(text, "", "fedci").controllers == set()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A delegated group of version 2 with two processes, as systemd gives it to a service."""
    own = tmp_path / "service"
    (own / "jobs" / "one").mkdir(parents=True)
    (own / "fedci-worker").mkdir()
    files = {"cgroup.controllers": "cpu memory pids\n", "cgroup.subtree_control": "", "cgroup.type": "domain\n"}
    for name, text in {**files, "cgroup.procs": "10\n11\n"}.items():
        (own / name).write_text(text)
    (own / "jobs" / "cgroup.subtree_control").write_text("")
    return own


def test_the_worker_moves_aside_and_hands_its_controllers_down(own: Path) -> None:
    layout = settle(Layout({}, str(own / "jobs"), ()))
    assert (own / "fedci-worker" / "cgroup.procs").read_text() == "11"  # the last of the two writes
    assert (own / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert layout.v2 == str(own / "jobs")


def test_controllers_that_did_not_arrive_are_not_counted_on(own: Path) -> None:
    (own / "cgroup.subtree_control").write_text("memory pids cpu")
    layout = settle(Layout({}, str(own / "jobs"), ()))
    assert layout.v2_controllers == ()  # a plain file says "+memory", not "memory"


def test_version_2_limits_and_accounts(own: Path) -> None:
    group = Group(Layout({}, str(own / "jobs"), ("memory", "pids", "cpu")), "one")
    group.create(memory_bytes=1000, processes=20, cores=1.5)
    one = own / "jobs" / "one"
    assert (one / "memory.max").read_text() == "1000"
    assert (one / "pids.max").read_text() == "24"
    assert (one / "cpu.max").read_text() == "150000 100000"
    assert (one / "memory.swap.max").read_text() == "0"
    assert group.can_account
    (one / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    (one / "memory.peak").write_text("999\n")
    (one / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    assert (group.out_of_memory_kills(), group.memory_peak_bytes(), group.cpu_seconds()) == (2, 999, 1.5)


def test_version_1_limits(tmp_path: Path) -> None:
    parents = {name: str(tmp_path / name) for name in ("memory", "pids", "cpu", "cpuacct")}
    group = Group(Layout(parents, None, ()), "one")
    group.create(memory_bytes=1000, processes=20, cores=0.5)
    assert (tmp_path / "memory/one/memory.limit_in_bytes").read_text() == "1000"
    assert (tmp_path / "pids/one/pids.max").read_text() == "24"
    assert (tmp_path / "cpu/one/cpu.cfs_quota_us").read_text() == "50000"


def test_what_cannot_be_made_does_not_hold(tmp_path: Path) -> None:
    (tmp_path / "memory").write_text("a file where a directory should be")
    group = Group(Layout({"memory": str(tmp_path / "memory"), "cpu": str(tmp_path / "cpu")}, None, ()), "one")
    group.create(1000, 20, 1.0)
    assert group.controllers == {"cpu"}
    assert not group.can_account


def test_a_group_that_never_was_is_empty_and_removed() -> None:
    group = Group(Layout({"memory": "/nonexistent"}, "/nonexistent", ()), "one")
    assert (group.pids(), group.kill(), group.remove()) == ([], False, True)
    assert (group.cpu_seconds(), group.memory_peak_bytes(), group.out_of_memory_kills()) == (0, 0, 0)


def test_a_group_that_cannot_be_removed_is_reported(tmp_path: Path) -> None:
    (tmp_path / "one" / "inner").mkdir(parents=True)
    assert not Group(Layout({}, str(tmp_path), ()), "one").remove(patience_seconds=0.0)


def test_only_a_workers_own_groups_are_named(tmp_path: Path) -> None:
    for name in ("mine-a", "mine-b", "theirs-a"):
        (tmp_path / name).mkdir()
    assert group_names(Layout({"memory": str(tmp_path)}, None, ()), "mine-") == {"mine-a", "mine-b"}
