"""Runs git on behalf of a project owner, with nothing that a repository could use against them.

Rules: no prompts, no hooks, no configuration but the repository's own with its dangerous keys overridden, an allow-list
of transports (`https`, `ssh`, and `file` for local paths), every call with a deadline, its whole process group killed
when it passes. Workers never run any of this (DESIGN §8).

Git: gitprotocol and `GIT_*` variables as in git(1); blocking calls happen in threads of `broker.sources`.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import FedciError

GIT_SECONDS = 300
_NULL = "/dev/null"
_OVERRIDES = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.sshCommand=ssh -oBatchMode=yes",
    "core.symlinks=true",
    "protocol.ext.allow=never",
    "credential.helper=",
    # Hooks and monitors being off, a checkout of another user is only read.
    "safe.directory=*",
)
_ERROR_CHARACTERS = 500


class GitFailed(FedciError):
    """Git could not do what was asked; the message is git's own, shortened."""


def _environment(home: Path) -> dict[str, str]:
    return {
        "PATH": os.defpath + ":/usr/local/bin",
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": _NULL,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": "https:ssh:file",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
    }


def _command(directory: Path, arguments: Sequence[str]) -> list[str]:
    overrides = [part for key in _OVERRIDES for part in ("-c", key)]
    return ["git", "--no-pager", *overrides, "-C", str(directory), *arguments]


def run(directory: Path, *arguments: str, home: Path, seconds: float = GIT_SECONDS) -> bytes:
    """Run git in a directory and return what it wrote; raises GitFailed with git's words."""
    with _started(directory, arguments, home, stdin=subprocess.DEVNULL) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise GitFailed(f"git {arguments[0]} took longer than {seconds:g} s and was stopped") from None
    if process.returncode != 0:
        said = errors.decode("utf-8", "replace").strip()[-_ERROR_CHARACTERS:]
        raise GitFailed(f"git {arguments[0]} failed: {said or f'status {process.returncode}'}", where=str(directory))
    return output


@contextmanager
def cat_file(directory: Path, home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A running `git cat-file --batch`: object names in, contents out."""
    with _started(directory, ("cat-file", "--batch"), home, stdin=subprocess.PIPE) as process:
        yield process


@contextmanager
def _started(
    directory: Path, arguments: Sequence[str], home: Path, *, stdin: int
) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        _command(directory, arguments),
        env=_environment(home),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if stdin == subprocess.PIPE else subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.wait()
