"""A checkout whose own configuration names commands: none of them runs when it is made a snapshot of."""

import subprocess
from pathlib import Path

import pytest

from broker.sources.resolving import Snapshot, snapshot_directory


def git(directory: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "protocol.file.allow=always")
    subprocess.run(["git", *identity, "-C", str(directory), *arguments], check=True, capture_output=True)


def forget_blobs(directory: Path) -> None:
    for path in (directory / ".git" / "objects").glob("??/*"):
        asked = ["git", "-C", str(directory), "cat-file", "-t", path.parent.name + path.name]
        if subprocess.run(asked, check=True, capture_output=True).stdout.strip() == b"blob":
            path.unlink()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    directory = tmp_path / "checkout"
    directory.mkdir()
    git(directory, "init", "--quiet")
    (directory / "a.txt").write_text("one")
    (directory / ".gitattributes").write_text("*.txt filter=evil\nb.txt filter=e=v.il\n")
    git(directory, "add", ".")
    git(directory, "commit", "--quiet", "-m", "one")
    (directory / "a.txt").write_text("two")
    return directory


@pytest.mark.parametrize("name", ["evil", "e=v.il"])
@pytest.mark.parametrize("kind", ["clean", "process"])
@pytest.mark.parametrize("required", ["true", "false"])
async def test_a_filter_of_the_checkout_does_not_run(
    checkout: Path, tmp_path: Path, kind: str, name: str, required: str
) -> None:
    ran = tmp_path / "ran"
    (checkout / ".gitattributes").write_text(f"*.txt filter={name}\n")
    git(checkout, "config", f"filter.{name}.{kind}", f"touch {ran}; cat")
    git(checkout, "config", f"filter.{name}.required", required)
    snapshot = await snapshot_directory(checkout, None, tmp_path / "out.tar", home=tmp_path)
    assert not ran.exists()
    assert isinstance(snapshot, Snapshot), snapshot
    assert snapshot.revision.endswith("+changes")


async def test_a_filter_of_a_submodule_does_not_run(checkout: Path, tmp_path: Path) -> None:
    ran, inner = tmp_path / "ran", checkout / "inner"
    git(checkout, "submodule", "add", "--quiet", str(checkout), "inner")
    git(checkout, "commit", "--quiet", "-m", "two")
    git(inner, "config", "filter.evil.clean", f"touch {ran}; cat")
    (inner / "a.txt").write_text("two")
    await snapshot_directory(checkout, None, tmp_path / "out.tar", home=tmp_path)
    assert not ran.exists()


async def test_a_promised_object_is_not_fetched_by_the_checkouts_command(checkout: Path, tmp_path: Path) -> None:
    ran, command = tmp_path / "ran", tmp_path / "upload-pack"
    command.write_text(f"#!/bin/sh\ntouch {ran}\n")
    command.chmod(0o755)
    for key, value in {
        "core.repositoryformatversion": "1",
        "extensions.partialclone": "origin",
        "remote.origin.url": str(checkout),
        "remote.origin.promisor": "true",
        "remote.origin.uploadpack": str(command),
    }.items():
        git(checkout, "config", key, value)
    forget_blobs(checkout)
    ran.unlink(missing_ok=True)
    snapshot = await snapshot_directory(checkout, "HEAD", tmp_path / "out.tar", home=tmp_path)
    assert not isinstance(snapshot, Snapshot)
    assert not ran.exists()
