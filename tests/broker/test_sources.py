"""Snapshots: the same sources give the same bytes, a commit what was committed, and git runs nothing of theirs."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from broker.sources.resolving import Snapshot, check_repository, snapshot_directory, snapshot_repository
from broker.sources.tarball import check_tar, read_member, stays_inside
from schemas.refusals import Reason, Refusal

GIT = {
    "PATH": os.defpath,
    "HOME": "/nonexistent",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def git(directory: Path, *arguments: str) -> str:
    command = ["git", "-c", "init.defaultBranch=main", *arguments]
    return subprocess.run(command, cwd=directory, env=GIT, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a script, a link inside, a link outside, and something that is ignored."""
    directory = tmp_path / "check out"
    (directory / "sub").mkdir(parents=True)
    (directory / "sub/run.sh").write_text("#!/bin/sh\n")
    (directory / "sub/run.sh").chmod(0o775)
    (directory / "größe.txt").write_text("x")
    (directory / "inside").symlink_to("sub/run.sh")
    (directory / "outside").symlink_to("/etc/passwd")
    (directory / ".gitignore").write_text("*.log\n")
    git(directory, "init", "--quiet")
    git(directory, "add", ".")
    git(directory, "commit", "--quiet", "-m", "first")
    (directory / "noise.log").write_text("ignored")
    return directory


async def snapshot(directory: Path, revision: str | None, into: Path) -> Snapshot:
    made = await snapshot_directory(directory, revision, into, home=into.parent)
    assert isinstance(made, Snapshot), made
    assert check_tar(into) is None
    return made


def names(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


async def test_a_commit_gives_its_files_whatever_the_working_tree_holds(checkout: Path, tmp_path: Path) -> None:
    (checkout / "sub/run.sh").write_text("changed")
    (checkout / "new.txt").write_text("new")
    made = await snapshot(checkout, "HEAD", tmp_path / "a.tar")
    assert made.revision == git(checkout, "rev-parse", "HEAD")
    assert names(made.path) == [".gitignore", "größe.txt", "inside", "sub/run.sh"]
    assert read_member(made.path, "sub/run.sh", 100) == b"#!/bin/sh\n"
    assert made.left_out == ("outside: a link that points outside",)


async def test_the_same_commit_gives_the_same_bytes_from_another_clone(checkout: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(checkout), str(clone))
    for file in clone.rglob("*"):
        if file.is_file() and not file.is_symlink():
            os.utime(file, (1, 1))
    one = await snapshot(checkout, "HEAD", tmp_path / "1.tar")
    other = await snapshot(clone, "main", tmp_path / "2.tar")
    assert one.digest == other.digest
    fetched = await snapshot_repository(f"file://{checkout}", "main", tmp_path / "3.tar", home=tmp_path)
    assert isinstance(fetched, Snapshot), fetched
    assert (fetched.digest, fetched.revision) == (one.digest, one.revision)


async def test_owner_time_and_modes_are_the_same_for_everybody(checkout: Path, tmp_path: Path) -> None:
    made = await snapshot(checkout, "HEAD", tmp_path / "a.tar")
    with tarfile.open(made.path) as tar:
        facts = {(member.uid, member.gid, member.uname, member.gname, member.mtime) for member in tar}
        modes = {member.name: member.mode for member in tar.getmembers() if member.isreg()}
    assert facts == {(0, 0, "", "", 0)}
    assert (modes["sub/run.sh"], modes["größe.txt"]) == (0o755, 0o644)


async def test_the_working_tree_is_taken_without_what_git_ignores(checkout: Path, tmp_path: Path) -> None:
    (checkout / "new.txt").write_text("new")
    (checkout / "größe.txt").unlink()
    made = await snapshot(checkout, None, tmp_path / "a.tar")
    assert names(made.path) == [".gitignore", "inside", "new.txt", "sub/run.sh"]
    assert made.revision == git(checkout, "rev-parse", "HEAD") + "+changes"


async def test_a_directory_inside_a_checkout_gives_only_its_own_files(checkout: Path, tmp_path: Path) -> None:
    committed = await snapshot(checkout / "sub", "HEAD", tmp_path / "a.tar")
    assert names(committed.path) == ["run.sh"]
    working = await snapshot(checkout / "sub", None, tmp_path / "b.tar")
    assert (working.digest, working.revision) == (committed.digest, committed.revision)


async def test_a_directory_without_git_gives_all_its_files(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "a").write_text("x")
    made = await snapshot(plain, None, tmp_path / "a.tar")
    assert (names(made.path), made.revision) == (["a"], "unversioned")
    refused = await snapshot_directory(plain, "HEAD", tmp_path / "b.tar", home=tmp_path)
    assert isinstance(refused, Refusal)


async def test_nothing_that_a_repository_configures_is_run(checkout: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch '{tmp_path}/sprung'\n")
    trap.chmod(0o755)
    hooks = checkout / ".git/hooks"
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(trap.read_text())
        (hooks / name).chmod(0o755)
    git(checkout, "config", "core.fsmonitor", str(trap))
    git(checkout, "config", "core.pager", str(trap))
    (checkout / "größe.txt").write_text("changed")
    await snapshot(checkout, None, tmp_path / "a.tar")
    await snapshot(checkout, "HEAD", tmp_path / "b.tar")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("revision", ["nonsense", "HEAD~5"])
async def test_an_unknown_revision_is_refused_in_gits_words(checkout: Path, tmp_path: Path, revision: str) -> None:
    refused = await snapshot_directory(checkout, revision, tmp_path / "a.tar", home=tmp_path)
    assert isinstance(refused, Refusal)
    assert "git rev-parse failed" in refused.detail
    assert not (tmp_path / "a.tar").exists()


@pytest.mark.parametrize(
    ("url", "revision"),
    [
        ("http://git.example/x", "main"),
        ("ext::sh -c id", "main"),
        ("-oProxyCommand=id", "main"),
        ("git://x.example/y", "main"),
        ("https://user:hunter2@x.example/y", "main"),
        ("https://x.example/y", "--upload-pack=id"),
        ("https://x.example/y", ""),
        ("https://x.example/y", "a b"),
    ],
)
def test_what_git_must_not_see_is_refused_before(url: str, revision: str) -> None:
    refused = check_repository(url, revision)
    assert refused is not None
    assert refused.reason is Reason.INVALID_REQUEST
    assert "hunter2" not in refused.detail


async def test_a_repository_that_is_not_there_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    refused = await snapshot_repository("file:///nowhere/x", "main", tmp_path / "a.tar", home=tmp_path)
    assert isinstance(refused, Refusal)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "link", "expected"),
    [
        ("a", "b", True),
        ("d/a", "../b", True),
        ("d/a", "../../b", False),
        ("a", "..", False),
        ("a", "/etc", False),
        ("a", "x/../../y", False),
        ("a", "", False),
        ("a/b/c", "../../x", True),
    ],
)
def test_a_link_stays_inside_or_is_left_out(path: str, link: str, expected: bool) -> None:
    assert stays_inside(path, link) is expected


def test_a_file_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no tar at all" * 100)
    assert check_tar(tmp_path / "x") is not None


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_tar_holds_plain_files_and_links_only(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x", "w") as tar:
        info = tarfile.TarInfo("odd")
        info.type, info.linkname = kind, "other"
        tar.addfile(info)
    refused = check_tar(tmp_path / "x")
    assert refused is not None
    assert "neither a plain file nor a link" in refused.detail
