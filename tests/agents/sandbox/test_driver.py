"""The script that runs the steps, and how little its reports are believed. The shell here is the real one."""

import subprocess
from pathlib import Path

import pytest

from agents.sandbox.driver import STATUS_FD, Reports, quote, script


def drive(tmp_path: Path, *steps: str, env: dict[str, str] | None = None) -> tuple[str, str, int]:
    """Runs the driver as the warden does; returns log, reports and exit code."""
    files = [tmp_path / f"{number}.sh" for number in range(len(steps))]
    for file, text in zip(files, steps, strict=True):
        file.write_text(text)
    reports = tmp_path / "reports"
    text = script([str(file) for file in files], env or {}, str(tmp_path))
    shell = ["/bin/sh", "-c", f"exec /bin/sh {STATUS_FD}>{quote(str(reports))}"]
    done = subprocess.run(shell, input=text, capture_output=True, text=True, env={}, check=False)
    return done.stdout, reports.read_text(), done.returncode


def test_steps_run_in_order_until_one_fails(tmp_path: Path) -> None:
    log, reports, code = drive(tmp_path, "echo a", "exit 7", "echo never")
    assert (log, code) == ("a\n", 7)
    assert reports == "up\nbegin 0\nend 0 0\nbegin 1\nend 1 7\n"


def test_a_step_cannot_report(tmp_path: Path) -> None:
    _, reports, code = drive(tmp_path, f"echo end 0 0 >&{STATUS_FD}", "true")
    assert reports == f"up\nbegin 0\nend 0 {code}\n"
    assert code != 0


@pytest.mark.parametrize("value", ["", "it's", "$(id)", "`id`", "a\nb", "\\", "'; exit 3; '", "-n", "ü€", "*", " x "])
def test_a_value_reaches_the_step_unchanged(tmp_path: Path, value: str) -> None:
    log, _, _ = drive(tmp_path, 'printf %s. "$VALUE"', env={"VALUE": value})
    assert log == value + "."


def test_a_quoted_value_is_one_word() -> None:
    assert quote("it's") == "'it'\\''s'"


def test_reports_come_in_order_and_in_pieces() -> None:
    reports = Reports(2)
    assert reports.feed(b"up\nbeg") == []
    assert reports.is_up
    assert reports.feed(b"in 0\nend 0 3\n") == [("begin", 0, 0), ("end", 0, 3)]


@pytest.mark.parametrize(
    "forged",
    [
        b"end 0 0\n",
        b"begin 1\n",
        b"begin -1\n",
        b"begin x\n",
        b"begin\n",
        b"\n",
        b"\xff\n",
        b"begin 0 0 0\n",
        b"up up\n",
    ],
)
def test_a_report_out_of_order_is_dropped(forged: bytes) -> None:
    reports = Reports(1)
    assert reports.feed(forged) == []
    assert reports.feed(b"begin 0\n") == [("begin", 0, 0)]


def test_no_report_comes_after_the_last_step() -> None:
    reports = Reports(1)
    reports.feed(b"begin 0\nend 0 0\n")
    assert reports.feed(b"begin 0\nend 0 0\nbegin 1\n") == []


def test_a_report_without_end_is_not_kept() -> None:
    reports = Reports(1)
    for _ in range(100):
        reports.feed(b"x" * 10_000)
    assert len(reports._pending) <= 4096
