"""The secret files' rules: private, owned, never overwritten, never a link."""

import os
import stat
from pathlib import Path

import pytest

from runtime.secrets import (
    MAX_SECRET_BYTES,
    SecretError,
    read_secret,
    replace_secret,
    write_secret,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "root.key"


def test_a_secret_comes_back_and_only_its_owner_may_read_it(path: Path) -> None:
    before = os.umask(0)
    try:
        write_secret(path, b"key")
    finally:
        os.umask(before)
    assert read_secret(path) == b"key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_writing_never_overwrites(path: Path) -> None:
    write_secret(path, b"old")
    with pytest.raises(SecretError, match="already there"):
        write_secret(path, b"new")
    assert read_secret(path) == b"old"


def test_writing_never_follows_a_link(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SecretError):
        write_secret(path, b"key")
    assert not (tmp_path / "elsewhere").exists()


def test_replacing_swaps_the_file_and_leaves_nothing_beside_it(path: Path) -> None:
    write_secret(path, b"old")
    replace_secret(path, b"new")
    assert read_secret(path) == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_replacement_keeps_the_old_secret(tmp_path: Path) -> None:
    taken = tmp_path / "directory"
    taken.mkdir()
    (taken / "inside").touch()
    with pytest.raises(SecretError):
        replace_secret(taken, b"new")
    assert list(tmp_path.iterdir()) == [taken]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_secret_open_to_others_is_refused_with_the_remedy(path: Path, mode: int) -> None:
    write_secret(path, b"key")
    path.chmod(mode)
    with pytest.raises(SecretError, match="chmod 600"):
        read_secret(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_secret_of_another_user_is_refused(path: Path) -> None:
    write_secret(path, b"key")
    os.chown(path, 12345, -1)
    with pytest.raises(SecretError, match="owned by user 12345"):
        read_secret(path)


def test_a_linked_secret_is_refused(path: Path, tmp_path: Path) -> None:
    write_secret(tmp_path / "real", b"key")
    path.symlink_to(tmp_path / "real")
    with pytest.raises(SecretError):
        read_secret(path)


def test_a_fifo_is_refused_without_hanging(path: Path) -> None:
    os.mkfifo(path, 0o600)
    with pytest.raises(SecretError, match="not a regular file"):
        read_secret(path)


@pytest.mark.parametrize("data", [b"", b"x" * (MAX_SECRET_BYTES + 1)])
def test_an_empty_or_huge_secret_is_refused(path: Path, data: bytes) -> None:
    write_secret(path, data)
    with pytest.raises(SecretError, match="1 to 65536 bytes"):
        read_secret(path)


def test_a_missing_secret_names_its_path(path: Path) -> None:
    with pytest.raises(SecretError, match=r"root\.key"):
        read_secret(path)
