"""Runs git on behalf of a project owner, with nothing that a repository could use against them.

Rules: no prompts, no hooks, no filters, no configuration but the repository's own with its dangerous keys overridden,
an allow-list of transports (`https`, `ssh`, and `file` for local paths) that only `fetch` may use, every call with a
deadline, its whole process group killed when it passes. Workers never run any of this (DESIGN §8).

Git: gitprotocol and `GIT_*` variables as in git(1); blocking calls happen in threads of `broker.sources.resolving`.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
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


Settings = Mapping[str, str]


def _environment(home: Path, protocols: str, settings: Settings) -> dict[str, str]:
    given = enumerate(settings.items())
    return {
        "PATH": os.defpath + ":/usr/local/bin",
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": _NULL,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_CONFIG_COUNT": str(len(settings)),
        **{name: part for number, setting in given for name, part in _numbered(number, *setting)},
    }


def _numbered(number: int, key: str, value: str) -> tuple[tuple[str, str], ...]:
    """One setting in the environment: other than with `-c`, its key may hold any character."""
    return (f"GIT_CONFIG_KEY_{number}", key), (f"GIT_CONFIG_VALUE_{number}", value)


def _command(directory: Path, arguments: Sequence[str]) -> list[str]:
    overrides = [part for key in _OVERRIDES for part in ("-c", key)]
    return ["git", "--no-pager", *overrides, "-C", str(directory), *arguments]


def run(
    directory: Path, *arguments: str, home: Path, seconds: float = GIT_SECONDS, settings: Settings | None = None
) -> bytes:
    """Run git in a directory and return what it wrote; raises GitFailed with git's words."""
    with _started(directory, arguments, home, stdin=subprocess.DEVNULL, settings=settings) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise GitFailed(f"git {arguments[0]} took longer than {seconds:g} s and was stopped") from None
    if process.returncode != 0:
        said = errors.decode("utf-8", "replace").strip()[-_ERROR_CHARACTERS:]
        raise GitFailed(f"git {arguments[0]} failed: {said or f'status {process.returncode}'}", where=str(directory))
    return output


def without_filters(directory: Path, home: Path) -> Settings:
    """Settings with which no filter of the repository's configuration, a command of its author's, is run."""
    listed = run(directory, "config", "--list", "--name-only", "-z", home=home).decode("utf-8", "surrogateescape")
    names = {key.rpartition(".")[0] for key in listed.split("\0") if key.startswith("filter.")}
    nothing = {"clean": "", "smudge": "", "process": "", "required": "false"}
    return {f"{name}.{word}": value for name in sorted(names) for word, value in nothing.items()}


@contextmanager
def cat_file(directory: Path, home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A running `git cat-file --batch`: object names in, contents out."""
    with _started(directory, ("cat-file", "--batch"), home, stdin=subprocess.PIPE) as process:
        yield process


@contextmanager
def _started(
    directory: Path, arguments: Sequence[str], home: Path, *, stdin: int, settings: Settings | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    # A repository may promise objects that its author's command would fetch when they are missed.
    protocols = "https:ssh:file" if arguments[0] == "fetch" else ""
    process = subprocess.Popen(
        _command(directory, arguments),
        env=_environment(home, protocols, settings or {}),
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
