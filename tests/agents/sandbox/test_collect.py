"""Artifacts come from a workspace that a hostile job has left."""

import hashlib
import os
import socket
from pathlib import Path

import pytest

from agents.sandbox.collect import (
    Artifact,
    Collected,
    CollectError,
    CollectLimits,
    CollectRefused,
    Fault,
    collect,
    open_artifact,
)

LIMITS = CollectLimits(total_bytes=1000, files=20)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("the worker's own")
    path = tmp_path / "workspace"
    (path / "dist" / "deep" / "er").mkdir(parents=True)
    for name in ("dist/a.whl", "dist/b.txt", "dist/deep/c.whl", "dist/deep/er/d.whl", "top.whl"):
        (path / name).write_text(name)
    return path


def paths(workspace: Path, *patterns: str) -> list[str]:
    result = collect(workspace, patterns, LIMITS)
    assert isinstance(result, Collected)
    return [artifact.path for artifact in result.artifacts]


def fault(workspace: Path, *patterns: str, limits: CollectLimits = LIMITS) -> Fault:
    result = collect(workspace, patterns, limits)
    assert isinstance(result, CollectRefused)
    return result.fault


def only(workspace: Path, pattern: str) -> Artifact:
    result = collect(workspace, [pattern], LIMITS)
    assert isinstance(result, Collected)
    (artifact,) = result.artifacts
    return artifact


def test_a_file_is_collected_with_size_and_digest(workspace: Path) -> None:
    artifact = only(workspace, "dist/a.whl")
    assert artifact.size_bytes == 10
    assert artifact.sha256 == hashlib.sha256(b"dist/a.whl").hexdigest()
    with open_artifact(workspace, artifact) as file:
        assert file.read() == b"dist/a.whl"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("./dist//a.whl", ["dist/a.whl"]),
        ("dist/*.whl", ["dist/a.whl"]),
        ("dist/?.txt", ["dist/b.txt"]),
        ("dist/[ab].*", ["dist/a.whl", "dist/b.txt"]),
        ("dist/deep", ["dist/deep/c.whl", "dist/deep/er/d.whl"]),
        ("**/*.whl", ["dist/a.whl", "dist/deep/c.whl", "dist/deep/er/d.whl", "top.whl"]),
        ("dist/**/d.whl", ["dist/deep/er/d.whl"]),
        ("d*/**", ["dist/a.whl", "dist/b.txt", "dist/deep/c.whl", "dist/deep/er/d.whl"]),
        ("*/*/*.whl", ["dist/deep/c.whl"]),
    ],
)
def test_a_pattern_names_files(pattern: str, found: list[str], workspace: Path) -> None:
    assert paths(workspace, pattern) == found


def test_a_file_named_twice_is_one_artifact(workspace: Path) -> None:
    assert paths(workspace, "top.whl", "*.whl", "top.whl") == ["top.whl"]


def test_a_pattern_of_many_stars_is_no_trap(workspace: Path) -> None:
    (workspace / "/".join("a" * 20)).mkdir(parents=True)
    assert fault(workspace, "/".join(["**", "a"] * 15 + ["b"])) is Fault.MISSING


@pytest.mark.parametrize("pattern", ["", "/", ".", "/etc/passwd", "../secret", "dist/../../secret", "a\0b", "a/" * 70])
def test_a_pattern_is_refused(pattern: str, workspace: Path) -> None:
    assert fault(workspace, pattern) is Fault.BAD_PATTERN


@pytest.mark.parametrize("pattern", ["nothing", "dist/*.exe", "nothing/*", "top.whl/x", "top.whl/*"])
def test_what_is_not_there_is_refused(pattern: str, workspace: Path) -> None:
    assert fault(workspace, pattern) is Fault.MISSING


@pytest.mark.parametrize("pattern", ["out", "outdir/secret", "outdir/*", "dist/inner"])
def test_no_link_is_followed(pattern: str, workspace: Path) -> None:
    (workspace / "out").symlink_to("../secret")
    (workspace / "outdir").symlink_to("..")
    (workspace / "dist/inner").symlink_to("a.whl")
    assert fault(workspace, pattern) is Fault.LINK


def test_a_link_or_special_file_that_a_glob_meets_is_skipped(workspace: Path) -> None:
    (workspace / "dist/x").symlink_to("../../secret")
    (workspace / "dist/deep/loop").symlink_to("..")
    os.mkfifo(workspace / "dist/fifo")
    result = collect(workspace, ["dist"], LIMITS)
    assert isinstance(result, Collected)
    assert len(result.artifacts) == 4
    assert result.skipped == ("dist/deep/loop", "dist/fifo", "dist/x")


def test_special_files_are_refused_unopened(workspace: Path) -> None:
    os.mkfifo(workspace / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(workspace / "s"))
        assert fault(workspace, "fifo") is Fault.SPECIAL_FILE
        assert fault(workspace, "s") is Fault.SPECIAL_FILE


def test_limits_refuse_the_whole_collection(workspace: Path) -> None:
    assert fault(workspace, "dist", limits=CollectLimits(total_bytes=1000, files=3)) is Fault.TOO_MANY
    assert fault(workspace, "dist", limits=CollectLimits(total_bytes=30)) is Fault.TOO_LARGE


def test_a_sparse_file_counts_its_full_size(workspace: Path) -> None:
    os.truncate(workspace / "top.whl", 10**12)
    assert fault(workspace, "top.whl") is Fault.TOO_LARGE


def test_a_name_that_is_no_text_is_refused(workspace: Path) -> None:
    (workspace / "new\nline").write_text("")
    assert fault(workspace, "new*") is Fault.UNREADABLE
    Path(os.fsdecode(bytes(workspace) + b"/bytes\xff")).write_text("")
    assert fault(workspace, "bytes*") is Fault.UNREADABLE


def test_a_deep_tree_is_refused(workspace: Path) -> None:
    (workspace / "/".join("d" * 80)).mkdir(parents=True)
    assert fault(workspace, "d/**") is Fault.TOO_DEEP


def test_a_file_that_was_replaced_is_not_opened(workspace: Path) -> None:
    artifact = only(workspace, "top.whl")
    (workspace / "top.whl").unlink()
    (workspace / "top.whl").symlink_to("../secret")
    with pytest.raises(CollectError), open_artifact(workspace, artifact):
        pass


def test_a_file_that_grew_is_not_opened(workspace: Path) -> None:
    artifact = only(workspace, "top.whl")
    (workspace / "top.whl").write_text("another content")
    with pytest.raises(CollectError), open_artifact(workspace, artifact):
        pass
