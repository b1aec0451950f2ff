"""The jail without root, run as nobody by the system's own Python; a plain user's test run takes that path anyway."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = Path("/usr/bin/python3")
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
RUN = """
import asyncio, sys
from pathlib import Path
from agents.sandbox.local import Place, open_executor
from tests.sandboxes import run_job, spec

async def main(state, *scripts):
    executor = open_executor("bubblewrap", Place(Path(state)))
    log, outcome = await run_job(executor, spec(*scripts))
    print(log.decode(), outcome.end.value, outcome.cause)

asyncio.run(main(*sys.argv[1:]))
"""

pytestmark = pytest.mark.skipif(os.getuid() != 0 or not PYTHON.exists(), reason="needs root, to become nobody")


@pytest.fixture
def sources() -> Iterator[Path]:
    """What the worker needs of this checkout, where nobody can read it."""
    place = Path("/tmp") / f"fedci-unprivileged-{os.getpid()}"
    place.mkdir(mode=0o755)
    try:
        shutil.copytree(ROOT / "agents/sandbox", place / "agents/sandbox")
        (place / "tests").mkdir()
        shutil.copy(ROOT / "tests/sandboxes.py", place / "tests")
        (place / "state").mkdir()
        os.chown(place / "state", 65534, 65534)
        yield place
    finally:
        shutil.rmtree(place)


def run(sources: Path, *scripts: str) -> str:
    command = [*AS_NOBODY, str(PYTHON), "-c", RUN, str(sources / "state/running"), *scripts]
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_job_is_an_unprivileged_user_of_its_own_namespace(sources: Path) -> None:
    status = run(sources, "grep -E '^(Uid|CapBnd|CapEff|NoNewPrivs)' /proc/self/status; cat /proc/self/uid_map")
    assert "Uid:\t1000\t1000\t1000\t1000" in status
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert len(re.findall(r"^ *\d+ +\d+ +\d+$", status, re.MULTILINE)) == 1
    assert re.search(r"^ *1000 +\d+ +1$", status, re.MULTILINE)


def test_no_further_user_namespace_can_be_made(sources: Path) -> None:
    assert "failed None" in run(sources, "unshare --user true")


def test_a_full_workspace_ends_the_job(sources: Path) -> None:
    assert "workspace-full" in run(sources, "i=0; while :; do head -c 4000000 /dev/zero > f$i; i=$((i+1)); done")


def test_a_process_without_a_memory_cgroup_is_still_limited(sources: Path) -> None:
    assert "failed None" in run(sources, "head -c 400000000 /dev/zero | tail -c 300000000 > kept; test -s kept")


def test_a_workspace_made_unreadable_is_removed(sources: Path) -> None:
    assert "succeeded" in run(sources, "mkdir -p a/b; touch a/b/c; chmod 000 a/b a .")
    assert list((sources / "state/running").iterdir()) == []
