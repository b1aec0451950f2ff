"""What `fedci doctor` learns of this machine, from a trial in the very sandbox that jobs get."""

from pathlib import Path

import pytest

from agents.sandbox.local import EXECUTORS, Place
from agents.sandbox.probe import probe


@pytest.mark.parametrize("name", EXECUTORS)
async def test_a_trial_job_runs(name: str, tmp_path: Path) -> None:
    findings = await probe(name, Place(tmp_path / "running"))
    assert (findings[0].name, findings[0].is_ok) == ("trial job", True)
    assert not any(finding.is_fatal for finding in findings)


async def test_whatever_is_missing_names_its_cost_and_a_remedy(tmp_path: Path) -> None:
    for finding in await probe("bubblewrap", Place(tmp_path / "running", cgroup_parent="x" * 300, may_nest=True)):
        assert finding.is_ok or (finding.missing and finding.remedy)


async def test_no_isolation_is_a_finding(tmp_path: Path) -> None:
    findings = {finding.name: finding for finding in await probe("process", Place(tmp_path / "running"))}
    assert not findings["isolation"].is_ok


async def test_an_executor_that_does_not_exist_is_fatal(tmp_path: Path) -> None:
    first = (await probe("magic", Place(tmp_path / "running")))[0]
    assert first.is_fatal
    assert "bubblewrap, process" in first.missing


async def test_a_machine_without_its_programs_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.sandbox.local.PROGRAM_PATH", str(tmp_path))
    findings = await probe("bubblewrap", Place(tmp_path / "running"))
    assert {finding.name: finding.remedy for finding in findings if finding.is_fatal}["bwrap"] == "install bubblewrap"
