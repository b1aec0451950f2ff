"""Starts that cannot be: a person is told what is wrong, where, and what to do, and nothing that runs is disturbed."""

import asyncio
import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fedci.federation.processes import Role
from runtime.lifecycle import EXIT_MUST_ACT
from tests.federation.ground import Ground
from tests.federation.projects import BOARD, Project

ROLES = (
    "fatima's identity server",
    "alice's desk",
    "alice's ledger",
    "alice's worker",
    "bettina's store",
    "dinah's controller",
)
SECONDS = 30


@dataclass(frozen=True)
class Ended:
    """How a start ended, and what it told."""

    status: int
    told: str


async def started(role: Role) -> Ended:
    """Start a role by hand, and wait for its end."""
    command = (sys.executable, "-m", "fedci", role.command, role.verb, str(role.directory))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    try:
        async with asyncio.timeout(SECONDS):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = [line for line in told.decode().splitlines() if not line.startswith("{")]
    return Ended(process.returncode or 0, "\n".join(lines))


def copied(role: Role, into: Path) -> Role:
    """The same role on a copy of its directory, as somebody would try who restores a backup beside the running one."""
    shutil.copytree(role.directory, into)
    return replace(role, directory=into)


@pytest.mark.parametrize("title", ROLES)
async def test_a_second_start_on_the_same_directory_is_refused_with_the_pid_of_the_first(
    ground: Ground, title: str
) -> None:
    role, pid = ground.role(title), ground.processes.pids()[title]
    second = await started(role)
    assert second.status == EXIT_MUST_ACT
    assert second.told.startswith(f"fedci {role.command}: {role.directory}: already in use by fedci {role.command} ")
    assert f"with pid {pid}" in second.told
    assert f"Stop that one first (kill {pid})" in second.told
    assert json.loads(role.ready_file.read_text())["pid"] == pid, "the first one is still known as ready"


@pytest.mark.parametrize("title", ["fatima's identity server", "alice's desk", "dinah's controller"])
async def test_a_port_in_use_is_told_with_its_number_and_its_setting(
    ground: Ground, title: str, tmp_path: Path
) -> None:
    kind = {"identity": "issuers"}.get(ground.role(title).command, f"{ground.role(title).command}s")
    port = ground.places.ports[f"{kind}/{ground.role(title).directory.name}"]
    ended = await started(copied(ground.role(title), tmp_path / "copy"))
    assert ended.status == EXIT_MUST_ACT
    assert f"listen: port {port} is in use (127.0.0.1:{port})" in ended.told
    assert f"Stop the program that has it (`ss -ltnp 'sport = :{port}'`), or change `listen`." in ended.told


async def test_a_workers_metrics_port_in_use_is_told_with_its_number_and_its_setting(
    ground: Ground, tmp_path: Path
) -> None:
    role = copied(ground.role("alice's worker"), tmp_path / "copy")
    settings, taken = role.directory / "worker.toml", ground.places.listen("desks", "alice")
    settings.write_text(f'metrics = "{taken}"\n{settings.read_text()}')
    ended = await started(role)
    assert ended.status == EXIT_MUST_ACT
    assert taken in ended.told
    assert "metrics" in ended.told


@pytest.mark.parametrize("title", ["alice's desk", "alice's worker"])
async def test_broken_settings_are_told_with_file_key_and_remedy(ground: Ground, title: str, tmp_path: Path) -> None:
    role = copied(ground.role(title), tmp_path / "copy")
    settings = role.directory / f"{role.command}.toml"
    settings.write_text(f"lissten = 5\n{settings.read_text()}")
    ended = await started(role)
    assert ended.status == EXIT_MUST_ACT
    assert ended.told.startswith(f"fedci {role.command}: {settings}: ")
    assert "lissten" in ended.told
    assert "Correct the file and start again." in ended.told


@pytest.mark.parametrize("title", ["fatima's identity server", "alice's worker"])
async def test_a_directory_that_was_never_made_is_told_with_how_to_make_it(
    ground: Ground, title: str, tmp_path: Path
) -> None:
    ended = await started(replace(ground.role(title), directory=tmp_path / "nowhere"))
    assert ended.status == EXIT_MUST_ACT
    assert str(tmp_path / "nowhere") in ended.told
    assert "init" in ended.told


async def test_nobody_was_disturbed_by_all_that(dinah: Project) -> None:
    await dinah.can_build(BOARD)
