"""Secrets in files of their own: who may read them, and how they come to be.

Rules: a secret file is regular, mode 0600, owned by the user that reads it, never
reached through a symbolic link. Writing never overwrites (`write_secret`) or swaps
whole files (`replace_secret`), so a crash leaves the old secret or the new one. Both
return only when the bytes and the directory entry are on the disk.

It neither makes secrets nor knows what they mean. Its calls are short and blocking:
they belong to start-up and to the command line.
"""

import os
import secrets
import stat
from pathlib import Path

from runtime.errors import OurFault

SECRET_MODE = 0o600
MAX_SECRET_BYTES = 65_536
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO in the secret's place must not hang the start.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SecretError(OurFault):
    """A secret file is missing, unsafe or in the way."""


def write_secret(path: Path, data: bytes) -> None:
    """Create `path` with mode 0600 and `data`.

    Raises SecretError when anything is already there, or the disk refuses.
    """
    try:
        _create(path, data)
    except FileExistsError as error:
        raise SecretError(
            "a file is already there; secrets are never overwritten",
            where=str(path),
            remedy="Move it away, or replace the secret with the command that owns it.",
        ) from error
    except OSError as error:
        raise _unusable(path, error) from error


def replace_secret(path: Path, data: bytes) -> None:
    """Put `data` in the place of whatever is at `path`, atomically.

    Raises SecretError when the disk refuses; the old secret is then still there.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _create(fresh, data)
        fresh.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise _unusable(path, error) from error


def read_secret(path: Path) -> bytes:
    """Return the secret's bytes.

    Raises SecretError when the file is missing, empty, too large, a link, readable by
    others, or owned by another user.
    """
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        raise _unusable(path, error) from error
    with os.fdopen(descriptor, "rb") as file:
        # Checked on the open file, so it cannot be swapped after the check.
        _check_owner_and_mode(path, os.fstat(file.fileno()))
        data = file.read(MAX_SECRET_BYTES + 1)
    if not 0 < len(data) <= MAX_SECRET_BYTES:
        raise SecretError(
            f"a secret has 1 to {MAX_SECRET_BYTES} bytes, this file does not",
            where=str(path),
            remedy="Restore it from your backup, or make a new one.",
        )
    return data


def _check_owner_and_mode(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SecretError("not a regular file", where=str(path), remedy="Replace it.")
    if status.st_uid != os.geteuid():
        raise SecretError(
            f"owned by user {status.st_uid}, but this process is user {os.geteuid()}",
            where=str(path),
            remedy=f"chown {os.geteuid()} {path}",
        )
    if status.st_mode & 0o077:
        raise SecretError(
            f"others may read or write it (mode {stat.S_IMODE(status.st_mode):04o})",
            where=str(path),
            remedy=f"chmod 600 {path}  -- and replace the secret if others had access.",
        )


def _create(path: Path, data: bytes) -> None:
    descriptor = os.open(path, _CREATE, SECRET_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), SECRET_MODE)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, error: OSError) -> SecretError:
    return SecretError(
        f"cannot use this secret file ({error.strerror})",
        where=str(path),
        remedy="See that the path is right, a plain file, and yours.",
    )
