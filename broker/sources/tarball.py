"""A snapshot as one reproducible tar: the same files give the same bytes, and so the same digest, everywhere.

Written: uncompressed, POSIX pax format, sorted by path, owner 0, time 0, modes 0644 and 0755, no directories of their
own. Regular files, and symbolic links that stay inside the snapshot; others are left out and named. Read: only what
would be written, so that a tar from elsewhere cannot hold a path that leaves the workspace.

POSIX pax: IEEE Std 1003.1-2008, pax interchange format. Blocking; callers put it into a thread.
"""

import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from schemas import limits
from schemas.refusals import Reason, Refusal

_NAME_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a snapshot: its path, whether it may be run, and its content or where its link points to."""

    path: str
    is_executable: bool
    size_bytes: int
    link: str | None = None


class OpenEntry(Protocol):
    """Opens the content of a regular file."""

    def __call__(self, entry: Entry) -> IO[bytes]: ...


@dataclass
class Written:
    """What was written: how many bytes, and which files were left out, with the reason."""

    size_bytes: int = 0
    left_out: list[str] = field(default_factory=list)


def write_tar(target: IO[bytes], entries: Iterable[Entry], open_entry: OpenEntry) -> Written | Refusal:
    """Write the entries to `target`, sorted; or refuse a snapshot that is too large or has an impossible name."""
    written = Written()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in sorted(entries, key=lambda each: each.path.encode("utf-8", "surrogateescape")):
            wrong = _wrong_name(entry.path)
            if wrong is not None:
                return Refusal(Reason.INVALID_REQUEST, f"{entry.path!r}: {wrong}")
            if entry.link is not None and not stays_inside(entry.path, entry.link):
                written.left_out.append(f"{entry.path}: a link that points outside")
                continue
            if target.tell() + entry.size_bytes > limits.SNAPSHOT_BYTES:
                return _too_large()
            _add(tar, entry, open_entry)
    written.size_bytes = target.tell()
    return written if written.size_bytes <= limits.SNAPSHOT_BYTES else _too_large()


def _add(tar: tarfile.TarFile, entry: Entry, open_entry: OpenEntry) -> None:
    info = tarfile.TarInfo(entry.path)
    info.mode = 0o755 if entry.is_executable else 0o644
    if entry.link is not None:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
        tar.addfile(info)
        return
    info.size = entry.size_bytes
    with open_entry(entry) as content:
        tar.addfile(info, content)


def stays_inside(path: str, link: str) -> bool:
    """Whether a symbolic link at `path` to `link` points into the snapshot."""
    if not link or link.startswith("/") or "\0" in link:
        return False
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return resolved != ".." and not resolved.startswith("../")


def check_tar(path: Path) -> Refusal | None:
    """Whether the file is a snapshot as `write_tar` makes them, or why not."""
    try:
        with tarfile.open(path, mode="r:") as tar:
            return next((wrong for wrong in map(_check_member, tar) if wrong is not None), None)
    except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError) as error:
        return Refusal(Reason.INVALID_REQUEST, f"the snapshot is no uncompressed tar ({error})")


def _check_member(member: tarfile.TarInfo) -> Refusal | None:
    wrong = _wrong_name(member.name)
    if wrong is not None:
        return Refusal(Reason.INVALID_REQUEST, f"{member.name[:200]!r} in the snapshot: {wrong}")
    if member.issym() and stays_inside(member.name, member.linkname):
        return None
    if member.isreg():
        return None
    return Refusal(
        Reason.INVALID_REQUEST,
        f"{member.name[:200]!r} in the snapshot is neither a plain file nor a link that stays inside",
    )


def read_member(path: Path, name: str, max_bytes: int) -> bytes | None:
    """The content of one small regular file of a snapshot; None when it is not there."""
    with tarfile.open(path, mode="r:") as tar:
        for member in tar:
            if member.name == name and member.isreg():
                content = tar.extractfile(member)
                return None if content is None else content.read(max_bytes + 1)
    return None


def _wrong_name(path: str) -> str | None:
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        return "the name is not UTF-8"
    if len(encoded) > _NAME_CHARACTERS:
        return f"the path is longer than {_NAME_CHARACTERS} bytes"
    if "\\" in path or any(ord(character) < 32 or ord(character) == 127 for character in path):
        return "the name has a backslash or a control character"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "the path is not a plain relative one"
    return None


def _too_large() -> Refusal:
    return Refusal(Reason.TOO_LARGE, f"the snapshot is over {limits.SNAPSHOT_BYTES // limits.MIB} MiB")


def walk(directory: Path) -> Iterator[Entry]:
    """All files below a directory, links as links; the names are relative with `/`."""
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or path.is_file():
            yield entry_of(directory, path.relative_to(directory).as_posix())


def entry_of(directory: Path, name: str) -> Entry:
    """The entry of a file in a directory."""
    path = directory / name
    status = path.lstat()
    if path.is_symlink():
        return Entry(name, False, 0, link=str(path.readlink()))
    return Entry(name, bool(status.st_mode & 0o111), status.st_size)
