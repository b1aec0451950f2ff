"""The private halves of the issuer's keys: one PEM file each, mode 0600, named by its thumbprint.

Which key signs is in the database, so a command in another process changes it without a restart; the file is read when
a key is first used. A retired key's private half is removed: it could only be misused.
"""

from pathlib import Path

from identity.keys import KeyFileError, SigningKey


class KeyFiles:
    """A directory of key files, and the keys that this process has used."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._loaded: dict[str, SigningKey] = {}

    def create(self) -> SigningKey:
        """Make a key and its file; nobody uses it before the database names it."""
        key = SigningKey.generate()
        self._directory.mkdir(mode=0o700, exist_ok=True)
        key.save(self._path(key.thumbprint))
        return key

    def load(self, kid: str) -> SigningKey:
        """The key named by the database; raises `OurFault` where its file is missing, open to others or another's."""
        if kid not in self._loaded:
            key = SigningKey.load(self._path(kid))
            if key.thumbprint != kid:
                raise KeyFileError(
                    "the file holds another key than its name says",
                    where=str(self._path(kid)),
                    remedy="Restore it from your backup, or run `fedci identity key rotate --emergency`.",
                )
            self._loaded[kid] = key
        return self._loaded[kid]

    def remove(self, kid: str) -> None:
        self._loaded.pop(kid, None)
        self._path(kid).unlink(missing_ok=True)

    def _path(self, kid: str) -> Path:
        return self._directory / f"{kid}.pem"
