"""Resolves what to build, a directory or a repository and revision, to a snapshot (DESIGN §8).

The controller or the command line does this, never a worker. A snapshot is a commit id, a reproducible tar
(`broker.sources.tarball`) and its SHA-256:

- a git checkout, or a directory inside one, and a revision: exactly its files in that commit;
- a git checkout and no revision: the working tree, without what `.gitignore` names; the revision says `+changes` where
  it differs from the commit;
- another directory: all its files;
- a repository's URL and a revision: fetched as shallowly as the server lets us, then as the first.
"""

import asyncio
import hashlib
import io
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from broker.sources import git, tarball
from broker.sources.tarball import Entry, Written
from runtime.addresses import check_http_url
from schemas.refusals import Reason, Refusal

_COMMIT_CHARACTERS = (40, 64)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Sources at rest: `path` holds the tar. `left_out` names files that a snapshot cannot carry."""

    path: Path
    digest: str
    size_bytes: int
    revision: str
    left_out: tuple[str, ...] = ()


async def snapshot_directory(directory: Path, revision: str | None, into: Path, *, home: Path) -> Snapshot | Refusal:
    """Make a snapshot of a local directory in the new file `into`.

    Cancelling waits for the thread's current git call; the file may then be left behind.
    """
    return await asyncio.to_thread(_snapshot_directory, directory, revision, into, home)


async def snapshot_repository(url: str, revision: str, into: Path, *, home: Path) -> Snapshot | Refusal:
    """Fetch one revision of a repository and make a snapshot of it in the new file `into`."""
    refusal = check_repository(url, revision)
    if refusal is not None:
        return refusal
    return await asyncio.to_thread(_snapshot_repository, url, revision, into, home)


def check_repository(url: str, revision: str) -> Refusal | None:
    """Whether this URL and revision may be handed to git at all."""
    if revision.startswith("-") or not revision or any(character.isspace() for character in revision):
        return Refusal(Reason.INVALID_REQUEST, "a revision is a branch, a tag or a commit")
    if url.startswith(("ssh://", "file:///")):
        return None
    try:
        if check_http_url(url).startswith("https://"):
            return None
    except ValueError as error:
        return Refusal(Reason.INVALID_REQUEST, f"the repository's URL: {error}")
    return Refusal(Reason.INVALID_REQUEST, "the repository's URL begins with https://, ssh:// or file:///")


def _snapshot_directory(directory: Path, revision: str | None, into: Path, home: Path) -> Snapshot | Refusal:
    if not directory.is_dir():
        return Refusal(Reason.INVALID_REQUEST, f"{directory} is no directory")
    try:
        if not _is_checkout(directory, home):
            if revision is not None:
                return Refusal(Reason.INVALID_REQUEST, f"{directory} is no git checkout, so it has no revision")
            return _pack_files(directory, tarball.walk(directory), "unversioned", into)
        if revision is not None:
            return _pack_commit(directory, revision, into, home)
        return _pack_files(directory, _working_tree(directory, home), _describe(directory, home), into)
    except (git.GitFailed, OSError, EOFError) as error:
        return Refusal(Reason.INVALID_REQUEST, str(error))


def _snapshot_repository(url: str, revision: str, into: Path, home: Path) -> Snapshot | Refusal:
    with tempfile.TemporaryDirectory(prefix="fedci-fetch-", dir=into.parent) as name:
        directory = Path(name)
        try:
            git.run(directory, "init", "--quiet", "--bare", home=home)
            _fetch(directory, url, revision, home)
            commit = revision if _is_commit(revision) else "FETCH_HEAD"
            return _pack_commit(directory, commit, into, home)
        except (git.GitFailed, OSError, EOFError) as error:
            return Refusal(Reason.INVALID_REQUEST, str(error))


def _fetch(directory: Path, url: str, revision: str, home: Path) -> None:
    fetch = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-commit-graph")
    try:
        git.run(directory, *fetch, "--depth=1", "--", url, revision, home=home)
    except git.GitFailed:
        if not _is_commit(revision):
            raise
        # Not every server gives out a commit by its id alone; then all of its history is fetched.
        git.run(directory, *fetch, "--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", home=home)


def _is_commit(revision: str) -> bool:
    return len(revision) in _COMMIT_CHARACTERS and all(character in "0123456789abcdef" for character in revision)


def _is_checkout(directory: Path, home: Path) -> bool:
    try:
        return git.run(directory, "rev-parse", "--is-inside-work-tree", home=home).strip() == b"true"
    except git.GitFailed:
        return False


def _describe(directory: Path, home: Path) -> str:
    try:
        commit = git.run(directory, "rev-parse", "--verify", "HEAD^{commit}", home=home).decode().strip()
    except git.GitFailed:
        return "uncommitted"
    status = ("status", "--porcelain", "-z", "--ignore-submodules=all", "--", ".")
    is_changed = bool(git.run(directory, *status, home=home, settings=git.without_filters(directory, home)))
    return f"{commit}+changes" if is_changed else commit


def _working_tree(directory: Path, home: Path) -> Iterator[Entry]:
    listed = git.run(directory, "ls-files", "-z", "--cached", "--others", "--exclude-standard", home=home)
    for name in sorted({part.decode("utf-8", "surrogateescape") for part in listed.split(b"\0") if part}):
        path = directory / name
        if path.is_symlink() or path.is_file():  # not: deleted, or a submodule
            yield tarball.entry_of(directory, name)


def _pack_files(directory: Path, entries: Iterator[Entry], revision: str, into: Path) -> Snapshot | Refusal:
    return _pack(into, revision, lambda target: tarball.write_tar(target, entries, _from_directory(directory)))


def _from_directory(directory: Path) -> tarball.OpenEntry:
    return lambda entry: (directory / entry.path).open("rb")


def _pack_commit(directory: Path, revision: str, into: Path, home: Path) -> Snapshot | Refusal:
    commit = git.run(directory, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}", home=home)
    commit_id = commit.decode().strip()
    listed = git.run(directory, "ls-tree", "-r", "-z", "-l", commit_id, home=home)
    objects = dict(_tree_entries(listed))
    with git.cat_file(directory, home) as process:
        entries = [_with_link(process, entry, objects[entry]) for entry in objects]
        names = {entry.path: name for entry, name in objects.items()}
        return _pack(
            into,
            commit_id,
            lambda target: tarball.write_tar(target, entries, lambda entry: _content(process, names[entry.path])),
        )


def _tree_entries(listed: bytes) -> Iterator[tuple[Entry, str]]:
    """The files of `git ls-tree -r -z -l`: `mode type object size TAB path NUL`; submodules are not ours to fetch."""
    for line in listed.split(b"\0"):
        facts, _, path = line.partition(b"\t")
        if not facts:
            continue
        mode, kind, name, size = facts.split()
        if kind != b"blob":
            continue
        if not size.isdigit():
            raise EOFError(f"git has no blob {name.decode()}")
        link = "" if mode == b"120000" else None
        yield Entry(path.decode("utf-8", "surrogateescape"), mode == b"100755", int(size), link), name.decode()


def _with_link(process: "subprocess.Popen[bytes]", entry: Entry, name: str) -> Entry:
    if entry.link is None:
        return entry
    target = _content(process, name).read().decode("utf-8", "surrogateescape")
    return Entry(entry.path, False, 0, link=target)


def _content(process: "subprocess.Popen[bytes]", name: str) -> IO[bytes]:
    """Ask `git cat-file --batch` for a blob; its answer is `object type size LF content LF`."""
    stdin, stdout = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
    stdin.write(name.encode() + b"\n")
    stdin.flush()
    header = stdout.readline().split()
    if len(header) != 3 or header[1] != b"blob":
        raise EOFError(f"git has no blob {name}")
    data = stdout.read(int(header[2]))
    stdout.read(1)
    return io.BytesIO(data)


def _pack(into: Path, revision: str, write: Callable[[IO[bytes]], Written | Refusal]) -> Snapshot | Refusal:
    with into.open("xb+") as target:
        written = write(target)
        if isinstance(written, Refusal):
            into.unlink()
            return written
        target.seek(0)
        digest = hashlib.file_digest(target, "sha256").hexdigest()
    return Snapshot(into, digest, written.size_bytes, revision, tuple(written.left_out))
