"""What facts about a machine mean: Python, libraries, disk, RabbitMQ, sandbox, clock."""

import tomllib
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from agents.sandbox.probe import Finding as SandboxFinding
from bus.access import AdminAccess
from fedci.doctor import bus, clocks, machine, sandbox
from fedci.doctor.findings import Level
from tests.clocks import START

ROOT = Path(__file__).resolve().parents[3]
ACCESS = AdminAccess("http://127.0.0.1:15672", "owner", "secret", "127.0.0.1", 5672)


@pytest.mark.parametrize(("version", "level"), [((3, 10, 9), "wrong"), ((3, 11, 0), "ok"), ((3, 14, 0), "ok")])
def test_python_is_3_11_or_newer(version: tuple[int, ...], level: str) -> None:
    assert machine.judge_python(version).level == level


def extra(name: str) -> set[str]:
    """The import names of what an extra brings, other extras followed."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found: set[str] = set()
    for requirement in map(Requirement, extras[name]):
        if requirement.name == "fedci":
            found |= {library for inner in requirement.extras for library in extra(inner)}
        else:
            found.add(requirement.name.replace("-", "_"))
    return found


@pytest.mark.parametrize("role", machine.LIBRARIES)
def test_a_roles_libraries_are_those_of_its_extra(role: str) -> None:
    assert set(machine.LIBRARIES[role]) == extra(role)


def test_a_missing_library_is_wrong_only_for_a_role_that_is_wanted() -> None:
    missing = {"httpx": "not installed"}
    assert machine.judge_libraries("worker", missing, is_wanted=True).level is Level.WRONG
    other = machine.judge_libraries("worker", missing, is_wanted=False)
    assert other.level is Level.WARN
    assert other.remedy == "pip install 'fedci[worker]'"


@pytest.mark.parametrize(
    ("free_bytes", "free_files", "is_writable", "level"),
    [
        (10 * machine.GIB, 10**6, True, "ok"),
        (10 * machine.GIB, 0, True, "ok"),
        (10 * machine.GIB, 10, True, "warn"),
        (machine.GIB, 10**6, True, "warn"),
        (2**20, 10**6, True, "wrong"),
        (10 * machine.GIB, 10**6, False, "wrong"),
    ],
)
def test_a_disk_needs_room_for_bytes_and_files(free_bytes: int, free_files: int, is_writable: bool, level: str) -> None:
    assert machine.judge_disk(Path("/srv"), free_bytes, free_files, is_writable).level == level


def test_the_disk_of_a_directory_that_is_not_there_yet_is_its_parents(tmp_path: Path) -> None:
    assert "GiB free" in machine.look_at_disk(tmp_path / "not" / "yet").seen


# -- RabbitMQ


@pytest.mark.parametrize(
    ("name", "answer", "level"),
    [
        ("rabbitmq", "3.10.8", "ok"),
        ("rabbitmq", "4.1.0", "ok"),
        ("rabbitmq", "3.9.29", "wrong"),
        ("rabbitmq", None, "wrong"),
        ("rabbitmq", "", "warn"),
        ("erlang", "25", "ok"),
        ("erlang", "22", "wrong"),
    ],
)
def test_rabbitmq_and_erlang_are_there_and_new_enough(name: str, answer: str | None, level: str) -> None:
    assert bus.judge_program(name, answer, is_wanted=True).level == level


def install(root: Path) -> str:
    """What a search path finds where RabbitMQ and Erlang were unpacked below `root`."""
    for program in ("rabbitmq_server-4.1.3/sbin/rabbitmq-server", "erlang/bin/erl"):
        (root / program).parent.mkdir(parents=True)
        (root / program).write_text("#!/bin/sh\nexit 1\n")
        (root / program).chmod(0o755)
    (root / "erlang" / "releases").mkdir()
    (root / "erlang" / "releases" / "start_erl.data").write_text("15.2 27")
    return f"{root}/rabbitmq_server-4.1.3/sbin:{root}/erlang/bin"


def test_versions_are_read_from_what_is_installed_and_nothing_is_run(tmp_path: Path) -> None:
    found = bus.look_at_programs(install(tmp_path), is_wanted=True)
    assert [(finding.seen, finding.level) for finding in found] == [("4.1.3", Level.OK), ("27", Level.OK)]


def test_an_image_names_its_rabbitmq_by_its_plugin(tmp_path: Path) -> None:
    path = install(tmp_path / "unpacked").replace("rabbitmq_server-4.1.3", "rabbitmq")
    (tmp_path / "unpacked" / "rabbitmq_server-4.1.3").rename(tmp_path / "unpacked" / "rabbitmq")
    (tmp_path / "unpacked" / "rabbitmq" / "plugins" / "rabbit-4.0.9").mkdir(parents=True)
    assert next(bus.look_at_programs(path, is_wanted=True)).seen == "4.0.9"


def test_without_a_demo_no_rabbitmq_is_needed_here() -> None:
    assert bus.judge_program("rabbitmq", None, is_wanted=False).level is Level.WARN


@pytest.mark.parametrize(
    ("status", "version", "level"),
    [(200, "4.0.2", "ok"), (200, "3.8.1", "wrong"), (401, "", "wrong"), (404, "", "wrong")],
)
def test_a_rabbitmq_in_operation_lets_its_administrator_in(status: int, version: str, level: str) -> None:
    finding = bus.judge_overview("rabbitmq", ACCESS, status, {"rabbitmq_version": version})
    assert finding.level == level
    assert "secret" not in finding.seen + finding.remedy


# -- Sandbox


def test_a_fatal_lack_of_the_sandbox_is_wrong_where_a_worker_is_to_run() -> None:
    found = [
        SandboxFinding("trial job", is_ok=False, missing="no namespaces", remedy="allow them", is_fatal=True),
        SandboxFinding("cgroup cpu", is_ok=False, missing="a job may use every core", remedy="delegate"),
        SandboxFinding("seccomp", is_ok=True),
    ]
    levels = [each.level for each in sandbox.translate("bubblewrap", found, is_wanted=True)]
    assert levels == [Level.WRONG, Level.WARN, Level.OK]
    assert next(each.level for each in sandbox.translate("bubblewrap", found, is_wanted=False)) is Level.WARN


# -- Clock


@pytest.mark.parametrize(
    ("behind_seconds", "level"), [(0, "ok"), (4, "ok"), (-4, "ok"), (10, "warn"), (-10, "warn"), (40, "wrong")]
)
def test_a_clock_that_differs_is_told_before_it_refuses_tokens(behind_seconds: int, level: str) -> None:
    theirs = format_datetime(START + timedelta(seconds=behind_seconds), usegmt=True)
    finding = clocks.judge_skew("https://id.example", theirs, START, START + timedelta(seconds=1))
    assert finding.level == level
    assert f"{abs(behind_seconds)}.0 s {'behind' if behind_seconds >= 0 else 'ahead'}" in finding.seen


@pytest.mark.parametrize("date", [None, "", "yesterday", "Fri, 99 Foo 2026 00:00:00 GMT"])
def test_an_answer_without_a_readable_date_tells_nothing_of_the_clock(date: str | None) -> None:
    assert clocks.judge_skew("https://id.example", date, START, START).level is Level.WARN


@pytest.mark.parametrize(("state", "level"), [(0, "ok"), (5, "warn"), (-1, "warn")])
def test_the_kernels_own_doubt_is_a_warning(state: int, level: str) -> None:
    assert clocks.judge_ntp(state, 1 if state < 0 else 0).level == level


def test_the_kernel_can_be_asked() -> None:
    assert clocks.look_at_ntp().name == "clock: ntp"
