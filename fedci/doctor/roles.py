"""A role's data directory: which role it is, what its settings say, its secrets, and the addresses it listens on.

Roles spell the same things the same way in their settings (`desk_url`, `root_key`, `key_file`, `[[issuers]]`,
`[[accounts]]`), so one reading serves all of them: `facts_of` walks the settings and takes what it knows by its name.
"""

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fedci.doctor.findings import Finding, faulty, ok, wrong
from runtime.errors import FedciError, OurFault
from runtime.listening import CannotListen, bind
from runtime.secrets import read_secret
from runtime.settings import Listen, Settings, load

SETTINGS = {
    "identity": "identity.server.settings:IdentitySettings",
    "desk": "agents.desk.settings:DeskSettings",
    "worker": "agents.worker.settings:WorkerSettings",
    "store": "agents.store.settings:StoreSettings",
    "ledger": "agents.ledger.settings:LedgerSettings",
    "controller": "broker.settings:ControllerSettings",
}
LOCK = "fedci.lock"
KEY_FILES = {"controller": "controller.key"}
"""Where a role keeps its key, unless its settings say; `agent.key` for all others."""
_SECRET_SUFFIXES = (".key", ".token", ".secret", ".password")
_SECRET_SETTINGS = ("key_file", "token_file", "password_file", "secret_file")


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """An account that the role holds at an issuer."""

    url: str
    sub: str
    token_file: Path


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """What a directory's settings say, in the words that all roles share; paths are whole."""

    role: str
    directory: Path
    settings: Settings
    listens: tuple[tuple[str, Listen], ...]
    """With the dotted key of each."""
    secrets: tuple[Path, ...]
    issuers: tuple[str, ...]
    accounts: tuple[AccountFacts, ...]

    @property
    def title(self) -> str:
        return f"{self.role} {self.directory}"

    def says(self, name: str) -> Any:
        """A top-level setting, or None where this role has none of that name."""
        return getattr(self.settings, name, None)

    @property
    def key_file(self) -> Path:
        return self.directory / (self.says("key_file") or KEY_FILES.get(self.role, "agent.key"))

    @property
    def desk_ca(self) -> Path | None:
        ca = self.says("desk_ca_file")
        return self.directory / ca if ca else None

    @property
    def issuer_ca(self) -> Path | None:
        """A controller trusts the same CAs for desks and for its issuer; agents trust the public ones for issuers."""
        return self.desk_ca if self.role == "controller" else None


def open_role(directory: Path) -> RoleFacts:
    """The role of a data directory; raises OurFault (also as SettingsError) where it cannot be one."""
    roles = [role for role in SETTINGS if (directory / f"{role}.toml").exists()]
    if len(roles) != 1:
        found = f"the settings of {' and '.join(roles)}" if roles else "no settings file"
        raise OurFault(
            f"{found} in this directory",
            where=str(directory),
            remedy="Name the data directory of one role, as its `init` command made it.",
        )
    return facts_of(roles[0], directory, load(directory / f"{roles[0]}.toml", _model(roles[0])))


def facts_of(role: str, directory: Path, settings: Settings) -> RoleFacts:
    values = list(_walk(settings, ""))
    named = [directory / value for key, value in values if isinstance(value, Path) and key.endswith(_SECRET_SETTINGS)]
    beside = [path for path in sorted(directory.iterdir()) if path.suffix in _SECRET_SUFFIXES and path.is_file()]
    beside += sorted(directory.glob("keys/*"))
    tables = [(key, value) for key, value in values if isinstance(value, BaseModel)]
    return RoleFacts(
        role=role,
        directory=directory,
        settings=settings,
        listens=tuple((key, value) for key, value in values if isinstance(value, Listen)),
        secrets=tuple(dict.fromkeys([*named, *beside])),
        issuers=tuple(dict.fromkeys(_issuers(tables))),
        accounts=tuple(_accounts(directory, tables)),
    )


def look_at_secrets(facts: RoleFacts) -> list[Finding]:
    """Every secret that the settings name or that lies in the directory: there, ours, and nobody else's."""
    name = f"{facts.title}: secrets"
    errors = [error for path in facts.secrets if (error := _try_secret(path)) is not None]
    return [faulty(name, error) for error in errors] or [ok(name, f"{len(facts.secrets)} file(s), ours alone")]


def look_at_ports(facts: RoleFacts) -> list[Finding]:
    """Each address: free, or in use by this very role."""
    holder = find_holder(facts.directory)
    return [_look_at_port(facts, key, listen, holder) for key, listen in facts.listens if listen.port]


def find_holder(directory: Path) -> int | None:
    """The process that works on a directory now: the one that its lock file names, if it still has that file open.

    The lock itself is not touched: a role that starts in this moment must find it free.
    """
    lock = directory.absolute() / LOCK
    try:
        pid = int(lock.read_text(encoding="ascii").split()[0])
        is_open = any(_is_same(entry, lock) for entry in Path(f"/proc/{pid}/fd").iterdir())
    except (OSError, ValueError, IndexError):
        return None
    return pid if is_open else None


def _look_at_port(facts: RoleFacts, key: str, listen: Listen, holder: int | None) -> Finding:
    name = f"{facts.title}: {key}"
    try:
        bind(listen, facts.says("tls"), setting=key).socket.close()
    except CannotListen as error:
        if holder is not None:
            return ok(name, f"{listen}, served by pid {holder}")
        return faulty(name, error)
    if holder is not None:
        return wrong(name, f"pid {holder} runs, but nothing listens on {listen}", "See its log; stop and start it.")
    return ok(name, f"{listen} is free")


def _is_same(entry: Path, lock: Path) -> bool:
    try:
        return os.path.samefile(entry, lock)  # noqa: PTH121 - Path.samefile would do the same twice
    except OSError:
        return False


def _try_secret(path: Path) -> FedciError | None:
    try:
        read_secret(path)
    except FedciError as error:
        return error
    return None


def _model(role: str) -> type[Settings]:
    module, _, name = SETTINGS[role].partition(":")
    try:
        model: type[Settings] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        remedy = f"pip install 'fedci[{role}]'"
        raise OurFault(f"a {role} needs {error.name}, which is not installed", remedy=remedy) from error
    return model


def _walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every value in the settings, with its dotted key."""
    yield key, value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _walk(getattr(value, name), f"{key}.{name}".removeprefix("."))
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from _walk(item, f"{key}[{number}]")


def _issuers(tables: list[tuple[str, Any]]) -> Iterator[str]:
    for key, table in tables:
        if key.startswith(("issuer", "account")) and isinstance(getattr(table, "url", None), str):
            yield table.url


def _accounts(directory: Path, tables: list[tuple[str, Any]]) -> Iterator[AccountFacts]:
    for _, table in tables:
        if {"url", "sub", "api_token_file"} <= set(type(table).model_fields):
            yield AccountFacts(table.url, table.sub, directory / table.api_token_file)
