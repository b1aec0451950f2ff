"""This machine: Python, the roles' libraries, git, the disks."""

import importlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from fedci.doctor.findings import Finding, ok, warn, wrong

MIN_PYTHON = (3, 11)
GIB = 2**30
WRONG_BELOW_BYTES = GIB // 4
WARN_BELOW_BYTES = 2 * GIB
WARN_BELOW_FILES = 10_000

_DATABASE = ("aiosqlite", "alembic", "sqlalchemy", "starlette", "uvicorn")
_AGENT = ("aio_pika", "httpx", *_DATABASE)
LIBRARIES = {
    "worker": ("aio_pika", "httpx"),
    "identity": ("authlib", "python_multipart", *_DATABASE),
    "desk": _AGENT,
    "store": _AGENT,
    "ledger": _AGENT,
    "controller": (*_AGENT, "fastapi", "jinja2", "python_multipart"),
}
"""What each role imports beyond what every role has: its extra, by import names."""


def judge_python(version: tuple[int, ...]) -> Finding:
    seen = ".".join(map(str, version[:3]))
    if version < MIN_PYTHON:
        return wrong("python", seen, "Install Python 3.11 or newer and make the environment anew.")
    return ok("python", seen)


def look_at_libraries(wanted: Collection[str]) -> Iterator[Finding]:
    """Imports what each role needs; blocks for a second or two."""
    failures = {name: _import(name) for name in dict.fromkeys(name for names in LIBRARIES.values() for name in names)}
    for role, names in LIBRARIES.items():
        missing = {name: failures[name] for name in names if failures[name]}
        yield judge_libraries(role, missing, is_wanted=role in wanted)


def judge_libraries(role: str, missing: dict[str, str], *, is_wanted: bool) -> Finding:
    """`missing` maps an import name to why it cannot be imported."""
    name = f"libraries: {role}"
    if not missing:
        return ok(name, f"{len(LIBRARIES[role])} importable")
    seen = "; ".join(f"{library}: {why}" for library, why in missing.items())
    return (wrong if is_wanted else warn)(name, seen, f"pip install 'fedci[{role}]'")


def _import(name: str) -> str:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return "not installed"
    except ImportError as error:  # installed, but for another machine or against another library
        return str(error)
    return ""


def judge_git(path: str | None, *, is_wanted: bool) -> Finding:
    """`path` is where git was found; only controllers and the command line resolve revisions."""
    if path is not None:
        return ok("git", path)
    return (wrong if is_wanted else warn)("git", "not found", "Install it (on Debian: apt-get install git).")


def look_at_disk(directory: Path) -> Finding:
    """The file system on which a data directory lies, or will lie."""
    place = next(place for place in (directory, *directory.absolute().parents) if place.exists())
    return judge_disk(directory, shutil.disk_usage(place).free, os.statvfs(place).f_favail, os.access(place, os.W_OK))


def judge_disk(directory: Path, free_bytes: int, free_files: int, is_writable: bool) -> Finding:
    """`free_files` is 0 on file systems that do not count them."""
    name, seen = f"disk: {directory}", f"{free_bytes / GIB:.1f} GiB free"
    if not is_writable:
        return wrong(name, "not writable by this user", "Run as the user who owns it, or give it to this one.")
    if free_bytes < WRONG_BELOW_BYTES:
        return wrong(name, seen, "Free some space: databases and journals stop when the disk is full.")
    if free_bytes < WARN_BELOW_BYTES:
        return warn(name, seen, "Free some space, or move the directory: one job may write gigabytes.")
    if 0 < free_files < WARN_BELOW_FILES:
        return warn(name, f"{seen}, room for {free_files} more files", "Remove some files; a checkout has thousands.")
    return ok(name, seen)
