"""`fedci controller`, typed as people type it, against the real API on loopback."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from broker.views import ArtifactView
from fedci.commands.controller_runs import place_for
from fedci.commands.controller_text import columns, harmless
from runtime.errors import OurFault
from schemas.ends import EndReason
from schemas.ids import new_attempt_id
from tests.broker.world import FakeProvider
from tests.fedci.controller.conftest import ALICE, TOKEN, Served, granted

PIPELINE = "name: p\njobs:\n  build:\n    steps: [make]\n"
WRONG = "name: p\njobs:\n  build:\n    stepz: [make]\n"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    directory = tmp_path / "sources"
    directory.mkdir()
    (directory / ".fedci.yml").write_text(PIPELINE)
    return directory


async def test_a_directory_is_submitted_and_shown(controller: Served, alice: FakeProvider, sources: Path) -> None:
    where = str(controller.directory)
    done = await controller.command("submit", where, "almanac", "--source", str(sources))
    assert done.exit_code == 0, done.output
    run = done.output.split()[1]
    assert run in (await controller.command("runs", where)).output
    assert run not in (await controller.command("runs", where, "other")).output
    assert "build" in (await controller.command("show", where, run)).output
    assert "cancelled" in (await controller.command("cancel", where, run)).output


async def test_following_a_run_that_fails_tells_why_and_exits_1(
    controller: Served, alice: FakeProvider, sources: Path
) -> None:
    world = controller.world
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        words = ("submit", str(controller.directory), "almanac", "--source", str(sources), "--follow")
        following = group.create_task(controller.command(*words))
        await _until_submitted(controller)
        claim = await granted(world, alice)
        await world.hear_log(ALICE, claim.log(0, b"no rule to make\x1b[2J target\n"))
        finished = claim.finished(
            EndReason.EXIT_CODE, b"no rule to make\x1b[2J target\n", detail="step 1 exited with 2"
        )
        await world.hear(ALICE, finished)
        await world.controller.settlement.look()
    done = following.result()
    assert done.exit_code == 1
    assert "build: failed at alice.example on w1" in done.output
    assert "step 1 exited with 2" in done.output
    assert "no rule to make target" in done.output


async def _until_submitted(controller: Served) -> None:
    """The bell rings when a run is there."""
    bell = controller.world.bells.dispatch
    bell.clear()
    await bell.wait()


async def test_a_wrong_pipeline_file_is_told_by_file_line_and_column(
    controller: Served, sources: Path, tmp_path: Path
) -> None:
    where, pipeline = str(controller.directory), tmp_path / "wrong.yml"
    pipeline.write_text(WRONG)
    done = await controller.command("submit", where, "almanac", "--source", str(sources), "--pipeline", str(pipeline))
    assert done.exit_code == 1
    assert f"{pipeline}:4:5: jobs.build.stepz:" in done.output
    (sources / ".fedci.yml").write_text(WRONG)
    done = await controller.command("submit", where, "almanac", "--source", str(sources))
    assert (done.exit_code, ".fedci.yml:4:5: jobs.build.stepz:" in done.output) == (1, True)


async def test_a_log_goes_byte_by_byte_into_a_file(controller: Served, alice: FakeProvider) -> None:
    run = await controller.world.submit(PIPELINE)
    claim = await granted(controller.world, alice)
    log = b"\x1b[31mred\xff\n"
    await controller.world.hear_log(ALICE, claim.log(0, log))
    await controller.world.hear(ALICE, claim.finished(EndReason.SUCCEEDED, log))
    await controller.world.controller.settlement.look()
    done = await controller.command("logs", str(controller.directory), run, "build")
    assert done.stdout_bytes == log
    done = await controller.command("logs", str(controller.directory), run, "build", "--follow")
    assert done.stdout_bytes == log.decode("utf-8", "replace").encode()


async def test_a_secret_is_read_from_a_pipe_and_never_shown(controller: Served) -> None:
    where = str(controller.directory)
    done = await controller.command("secret", "set", where, "almanac", "API_KEY", stdin="hush\n")
    assert (done.exit_code, "hush" in done.output) == (0, False)
    assert "API_KEY" in (await controller.command("secret", "list", where, "almanac")).output
    await controller.command("secret", "remove", where, "almanac", "API_KEY")
    assert "API_KEY" not in (await controller.command("secret", "list", where, "almanac")).output


async def test_projects_are_added_and_listed(controller: Served) -> None:
    where = str(controller.directory)
    done = await controller.command("project", "add", where, "tools", "--provider", ALICE)
    assert done.exit_code == 0, done.output
    assert f"tools\t{ALICE}" in (await controller.command("project", "list", where)).output


async def test_status_and_providers_show_alarms(controller: Served, alice: FakeProvider) -> None:
    where = str(controller.directory)
    controller.world.controller.book.learn_alarm(ALICE, "another root key\x1b[2J")
    assert "account dinah" in (await controller.command("status", where)).output
    output = (await controller.command("provider", "list", where)).output
    assert "another root key" in output
    assert "\x1b" not in output


async def test_usage_is_listed_and_kept_byte_for_byte(controller: Served, alice: FakeProvider, tmp_path: Path) -> None:
    where, out = str(controller.directory), tmp_path / "usage.fedci"
    assert "no usage" in (await controller.command("usage", where, ALICE)).output
    claim = await alice.workers["w1"].claim(controller.world.tenant, new_attempt_id())
    stated = claim.usage(controller.world, "f" * 64)
    await controller.world.hear(ALICE, stated)
    assert "wall-seconds" in (await controller.command("usage", where, ALICE)).output
    done = await controller.command("usage", where, ALICE, "--out", str(out))
    assert done.exit_code == 0, done.output
    assert out.read_bytes() == stated


async def test_a_url_works_as_a_directory_does_but_needs_the_token(controller: Served, tmp_path: Path) -> None:
    token = controller.directory / "api.token"
    done = await controller.command("status", controller.url, "--token-file", str(token))
    assert "account dinah" in done.output
    done = await controller.command("status", controller.url)
    assert (done.exit_code, "--token-file" in done.output) == (2, True)
    assert TOKEN not in done.output


async def test_git_needs_a_revision(controller: Served) -> None:
    done = await controller.command("submit", str(controller.directory), "almanac", "--git", "https://git.example/x")
    assert (done.exit_code, "--revision" in done.output) == (2, True)


async def test_a_run_without_artifacts_says_so(controller: Served, alice: FakeProvider) -> None:
    run = await controller.world.submit(PIPELINE)
    where = str(controller.directory)
    assert "no artifacts" in (await controller.command("artifacts", "list", where, run)).output
    done = await controller.command("artifacts", "get", where, run, "--out", str(controller.directory / "out"))
    assert isinstance(done.exception, OurFault)


async def test_init_reads_the_api_token_from_a_pipe(tmp_path: Path) -> None:
    words = ["init", str(tmp_path / "c"), "--issuer", "https://id.example", "--account", "dinah"]
    command = [sys.executable, "-m", "fedci", "controller", *words]
    done = await asyncio.to_thread(subprocess.run, command, input=b"hush\n", capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"hush" not in done.stdout
    assert (tmp_path / "c" / "issuer.token").read_text() == "hush"
    again = await asyncio.to_thread(subprocess.run, command, input=b"hush\n", capture_output=True, check=False)
    assert (again.returncode, b"already" in again.stderr) == (1, True)


def artifact(path: str) -> ArtifactView:
    return ArtifactView(
        id=1, job="build", artifact="wheel", path=path, provider="b.example", sha256="0" * 64, size_bytes=4
    )


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "..", "."])
def test_an_artifact_never_lands_outside_its_directory(tmp_path: Path, path: str) -> None:
    with pytest.raises(OurFault):
        place_for(tmp_path, artifact(path))


def test_an_artifact_lands_in_its_jobs_directory(tmp_path: Path) -> None:
    assert place_for(tmp_path, artifact("dist/x.whl")) == tmp_path / "build" / "dist" / "x.whl"


def test_columns_are_aligned_and_strangers_text_is_harmless() -> None:
    assert columns([("a", "bb"), ("ccc", "d")]) == "a    bb\nccc  d"
    assert columns([]) == ""
    assert harmless(b"\x1b]0;x\x07\x1b[2Jok\x08") == "ok\u2408"


def test_the_command_is_light_to_import() -> None:
    code = "import sys, fedci.commands.controller as c; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    assert not {"httpx", "sqlalchemy", "fastapi", "broker", "aio_pika", "pydantic"} & set(names)
