"""Counting and removing what a hostile job has left on the disk."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.sandbox.space import ENTRY_BYTES, SpaceWatch, TooDeep, count, remove_tree, unlinked_bytes

KIB = 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


def dig(root: Path, depth: int, name: str = "d" * 100) -> None:
    """Nests directories deeper than any path can name."""
    current = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=current)
        inner = os.open(name, os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = inner
    os.close(current)


def total(root: Path) -> int:
    return sum(count([str(root)]))


def test_files_in_every_directory_count(root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_bytes(os.urandom(100 * KIB))
    assert 100 * KIB <= total(root) < 130 * KIB


def test_a_sparse_file_counts_what_it_takes(root: Path) -> None:
    (root / "sparse").touch()
    os.truncate(root / "sparse", 10**12)
    assert total(root) < 100 * KIB


def test_empty_files_count_too(root: Path) -> None:
    for number in range(100):
        (root / f"{number}").touch()
    assert total(root) >= 100 * ENTRY_BYTES


def test_a_file_of_many_names_counts_once(root: Path) -> None:
    (root / "file").write_bytes(os.urandom(100 * KIB))
    for number in range(10):
        os.link(root / "file", root / f"link{number}")
    assert total(root) < 150 * KIB


def test_links_are_not_followed(root: Path) -> None:
    (root.parent / "outside").write_bytes(os.urandom(100 * KIB))
    (root / "link").symlink_to("../outside")
    (root / "loop").symlink_to(".")
    assert total(root) < 50 * KIB


def test_a_tree_that_cannot_be_walked_is_an_offence(root: Path) -> None:
    dig(root, 60)
    with pytest.raises(TooDeep):
        total(root)
    remove_tree(str(root))


def test_a_file_without_a_name_counts_while_it_is_open(root: Path) -> None:
    with (root / "file").open("wb") as file:
        file.write(os.urandom(100 * KIB))
        file.flush()
        (root / "file").unlink()
        assert 100 * KIB <= unlinked_bytes([os.getpid()], root.stat().st_dev) < 10_000 * KIB


def test_a_process_that_is_gone_has_no_files(root: Path) -> None:
    assert unlinked_bytes([2**22 + 1], root.stat().st_dev) == 0


def test_the_watch_looks_again_after_a_pause(root: Path) -> None:
    watch = SpaceWatch([str(root)], limit=100 * KIB, now=0.0)
    assert not watch.is_exceeded(0.0, [])
    (root / "file").write_bytes(os.urandom(50 * KIB))
    assert not watch.is_exceeded(0.3, [])
    (root / "more").write_bytes(os.urandom(60 * KIB))
    assert watch.is_exceeded(0.6, [])


def test_a_last_count_meets_the_same_limit(root: Path) -> None:
    watch = SpaceWatch([str(root)], limit=100 * KIB, now=0.0)
    assert not watch.is_exceeded_at_last(10.0)
    (root / "file").write_bytes(os.urandom(110 * KIB))
    assert watch.is_exceeded_at_last(10.0)


def nothing(root: Path) -> None:
    pass


def links(root: Path) -> None:
    (root / "up").symlink_to("..")
    (root / "sibling").symlink_to("../kept")
    (root / "dangling").symlink_to("nowhere")


def modes(root: Path) -> None:
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/b/c/file").touch()
    for path in (root / "a/b/c", root / "a/b", root / "a", root):
        path.chmod(0)


def special(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))


def deep(root: Path) -> None:
    dig(root, 300)


def tempting_names(root: Path) -> None:
    for name in (".removed-1", ".removed-2", "-rf", "\n", "a\\b"):
        (root / name / "inner").mkdir(parents=True)
        (root / name / "inner" / "file").touch()


def wide(root: Path) -> None:
    for number in range(300):
        (root / f"d{number}" / "e").mkdir(parents=True)


@pytest.mark.parametrize("fill", [nothing, links, modes, special, deep, tempting_names, wide])
def test_a_tree_is_removed_and_nothing_else(fill: Callable[[Path], None], root: Path) -> None:
    (root.parent / "kept").mkdir()
    (root.parent / "kept" / "file").touch()
    fill(root)
    remove_tree(str(root))
    assert not root.exists()
    assert (root.parent / "kept" / "file").exists()


def test_a_tree_that_is_not_there_needs_no_removing(root: Path) -> None:
    remove_tree(str(root / "missing"))


def test_a_link_in_the_trees_place_is_not_followed(root: Path) -> None:
    (root / "target").mkdir()
    (root / "link").symlink_to("target")
    with pytest.raises(OSError, match="Not a directory"):
        remove_tree(str(root / "link"))
    assert (root / "target").exists()
