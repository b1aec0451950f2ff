"""Project secrets at rest: ChaCha20-Poly1305 (RFC 8439) under the controller's key file.

The project and the secret's name are bound in as associated data, so that a row moved to another name does not open.
The key file has mode 0600 and is never in the database; a stolen database alone tells no secret.
"""

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from runtime.errors import OurFault
from runtime.secrets import read_secret, write_secret

KEY_BYTES = 32
_NONCE_BYTES = 12


class Vault:
    """Seals and opens secrets of projects."""

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)

    @classmethod
    def load(cls, path: Path) -> "Vault":
        """Read the key file; raises OurFault when it is not one."""
        key = read_secret(path)
        if len(key) != KEY_BYTES:
            raise OurFault(
                f"a vault key has {KEY_BYTES} bytes", where=str(path), remedy="Restore the file from your backup."
            )
        return cls(key)

    def seal(self, project: str, name: str, value: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value.encode("utf-8"), _bound(project, name))

    def open(self, project: str, name: str, box: bytes) -> str:
        """The value; raises OurFault when the key file is not the one that sealed it."""
        try:
            value = self._cipher.decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], _bound(project, name))
        except InvalidTag as error:
            raise OurFault(
                f"the secret {name} of {project} does not open with this key file",
                remedy="Restore the key file that belongs to this database, or set the secret again.",
            ) from error
        return value.decode("utf-8")


def make_key(path: Path) -> None:
    """Write a fresh key file."""
    write_secret(path, os.urandom(KEY_BYTES))


def _bound(project: str, name: str) -> bytes:
    return f"{project}\n{name}".encode()
