"""A source is a stranger's tar: what it may not do to the workspace."""

import gzip
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.sandbox.unpack import Offence, Unpacked, UnpackLimits, UnpackRefused, unpack

LIMITS = UnpackLimits(total_bytes=100_000, entries=50, depth=8)
Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, content: bytes = b"", **fields: object) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    return member(name, type=kind, linkname=target)


def directory(name: str) -> Member:
    return member(name, type=tarfile.DIRTYPE)


def tar(*members: Member) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "outer" / "workspace"
    path.mkdir(parents=True)
    return path


def unpacked(data: bytes, workspace: Path, limits: UnpackLimits = LIMITS) -> Unpacked | UnpackRefused:
    return unpack(io.BytesIO(data), workspace, (os.getuid(), os.getgid()), limits)


def test_a_plain_source_is_unpacked(workspace: Path) -> None:
    source = tar(
        member("src/main.py", b"print()"), member("run", b"#!", mode=0o755), link("src/link", "../run"), directory("d")
    )
    assert unpacked(source, workspace) == Unpacked(entries=5, total_bytes=9)
    assert (workspace / "src/main.py").read_bytes() == b"print()"
    assert (workspace / "src/link").read_bytes() == b"#!"
    assert (workspace / "d").is_dir()


def test_a_compressed_source_is_unpacked(workspace: Path) -> None:
    assert unpacked(gzip.compress(tar(member("a", b"1"))), workspace) == Unpacked(entries=1, total_bytes=1)


def test_a_hard_link_to_a_file_of_the_archive_is_made(workspace: Path) -> None:
    unpacked(tar(member("a", b"1"), link("d/b", "a", tarfile.LNKTYPE)), workspace)
    assert (workspace / "d/b").stat().st_ino == (workspace / "a").stat().st_ino


def test_only_the_executable_bit_comes_from_the_archive(workspace: Path) -> None:
    unpacked(tar(member("a", mode=0o6777, uid=0, mtime=1), member("b", mode=0o000)), workspace)
    assert stat.S_IMODE((workspace / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE((workspace / "b").stat().st_mode) == 0o644


DEEP = "/".join("d" * 9)
REFUSED = [
    pytest.param(tar(member("/etc/passwd")), Offence.ABSOLUTE, id="absolute name"),
    pytest.param(tar(member("../x")), Offence.PARENT, id="name leads upwards"),
    pytest.param(tar(member("a/../../x")), Offence.PARENT, id="name leads upwards later"),
    pytest.param(tar(member(DEEP)), Offence.BAD_NAME, id="too deep"),
    pytest.param(tar(member("n" * 256)), Offence.BAD_NAME, id="component too long"),
    pytest.param(tar(member("p/" * 7 + "n" * 2100)), Offence.BAD_NAME, id="path too long"),
    pytest.param(tar(member(".")), Offence.BAD_NAME, id="a file for the workspace itself"),
    pytest.param(tar(link("a", "/etc/passwd")), Offence.ESCAPING_LINK, id="absolute link"),
    pytest.param(tar(link("a", "../x")), Offence.ESCAPING_LINK, id="link out"),
    pytest.param(tar(link("d/a", "../../x")), Offence.ESCAPING_LINK, id="link out of a directory"),
    pytest.param(tar(link("d/a", "b/../../..")), Offence.ESCAPING_LINK, id="link up after down"),
    pytest.param(tar(link("a", "")), Offence.ESCAPING_LINK, id="empty link"),
    pytest.param(
        tar(link("d/e/x", ".."), link("y", "d/e/x/../..")), Offence.ESCAPING_LINK, id="links that lead out together"
    ),
    pytest.param(tar(link("d", "."), member("d/x")), Offence.DUPLICATE, id="write through a link"),
    pytest.param(tar(member("a", b"1"), member("a", b"2")), Offence.DUPLICATE, id="name twice"),
    pytest.param(tar(directory("a"), directory("a")), Offence.DUPLICATE, id="directory twice"),
    pytest.param(tar(member("a", b"1"), member("./a", b"2")), Offence.DUPLICATE, id="name twice, spelt otherwise"),
    pytest.param(tar(member("a"), member("a/b")), Offence.DUPLICATE, id="file used as a directory"),
    pytest.param(tar(member("a/b"), member("a")), Offence.DUPLICATE, id="directory used as a file"),
    pytest.param(tar(link("a", "b"), member("a")), Offence.DUPLICATE, id="file over a link"),
    pytest.param(tar(link("a", "/etc/passwd", tarfile.LNKTYPE)), Offence.ABSOLUTE, id="hard link, absolute"),
    pytest.param(tar(link("a", "../x", tarfile.LNKTYPE)), Offence.PARENT, id="hard link out"),
    pytest.param(tar(link("a", "b", tarfile.LNKTYPE)), Offence.ESCAPING_LINK, id="hard link to nothing"),
    pytest.param(
        tar(link("s", "x"), link("h", "s", tarfile.LNKTYPE)), Offence.ESCAPING_LINK, id="hard link to a symbolic link"
    ),
    pytest.param(tar(member("a", type=tarfile.FIFOTYPE)), Offence.SPECIAL_FILE, id="fifo"),
    pytest.param(tar(member("a", type=tarfile.BLKTYPE)), Offence.SPECIAL_FILE, id="block device"),
    pytest.param(tar(member("a", type=tarfile.CHRTYPE)), Offence.SPECIAL_FILE, id="character device"),
    pytest.param(tar(member("a", bytes(100_001))), Offence.TOO_LARGE, id="too many bytes"),
    pytest.param(tar(*(member(f"f{n}") for n in range(51))), Offence.TOO_MANY_ENTRIES, id="too many members"),
    pytest.param(gzip.compress(tar(member("a", bytes(5_000_000)))), Offence.TOO_LARGE, id="gzip bomb"),
    pytest.param(gzip.compress(tar(member("a", b"1")))[:60], Offence.NOT_A_TAR, id="gzip cut short"),
    pytest.param(lzma.compress(tar(member("a"))), Offence.NOT_A_TAR, id="another compression"),
    pytest.param(tar(member("a", bytes(2000)))[:1500], Offence.NOT_A_TAR, id="cut short"),
    pytest.param(b"\xff" * 2000, Offence.NOT_A_TAR, id="noise"),
    pytest.param(b"", Offence.NOT_A_TAR, id="nothing"),
]


@pytest.mark.parametrize(("source", "offence"), REFUSED)
def test_a_source_is_refused(source: bytes, offence: Offence, workspace: Path) -> None:
    result = unpacked(source, workspace)
    assert isinstance(result, UnpackRefused)
    assert result.offence is offence


@pytest.mark.parametrize(("source", "offence"), REFUSED)
def test_a_refused_source_wrote_nothing_outside(source: bytes, offence: Offence, workspace: Path) -> None:
    unpacked(source, workspace)
    assert [path.name for path in workspace.parent.iterdir()] == ["workspace"]


def huge_header(size: int) -> bytes:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"comment": "x" * size}
    return tar((info, b""))


def endless_headers(count: int) -> bytes:
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 1
    return (name.tobuf(tarfile.GNU_FORMAT) + bytes(512)) * count


@pytest.mark.parametrize("make", [lambda: huge_header(2 << 20), lambda: endless_headers(5000)])
def test_headers_cannot_fill_memory(make: Callable[[], bytes], workspace: Path) -> None:
    result = unpacked(make(), workspace, UnpackLimits(total_bytes=1 << 30))
    assert isinstance(result, UnpackRefused)


def test_a_sparse_member_counts_its_full_size(workspace: Path) -> None:
    sparse = tarfile.TarInfo("a")
    sparse.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.size": str(10**9), "GNU.sparse.map": "0,0"}
    result = unpacked(tar((sparse, b"")), workspace)
    assert isinstance(result, UnpackRefused)
