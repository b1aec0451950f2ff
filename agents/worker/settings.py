"""The worker's settings, `worker.toml`: checked whole at the start, with every problem named."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from identity.trust import IssuerProfile
from runtime.settings import HttpUrl, Listen, Settings
from schemas import limits
from schemas.ids import Label, ProviderName
from schemas.orders import PoolLabel
from schemas.wire import Subject

FILE = "worker.toml"


class AccountSettings(Settings):
    """The worker's account at an issuer, under which it introduces itself to that issuer's customers."""

    url: HttpUrl
    sub: Subject
    api_token_file: Path


class StoreSettings(Settings):
    """An artifact store that jobs may name; its address is the owner's word, never a tenant's."""

    name: ProviderName
    url: HttpUrl
    ca_file: Path | None = None


class ToolchainSettings(Settings):
    """A directory of tools, read-only for the jobs that name it."""

    name: Label
    description: Annotated[str, Field(max_length=200)] = ""
    path: Path
    target: Annotated[str, Field(pattern="^/")] | None = None
    """Where jobs see it; `/toolchains/<name>` unless given."""
    path_entries: tuple[str, ...] = ("bin",)
    """What comes first in the jobs' PATH: below the toolchain, or absolute."""
    mounts: tuple[Path, ...] = ()
    """What it needs beside it, at the same place for jobs: say the interpreter behind a virtual environment."""

    @model_validator(mode="after")
    def _is_absolute(self) -> "ToolchainSettings":
        relative = [str(path) for path in (self.path, *self.mounts) if not path.is_absolute()]
        if relative:
            raise ValueError(f"expected absolute paths, not {', '.join(relative)}")
        return self


class SlotSettings(Settings):
    """The most that one job may reserve; what is not given is this machine's, shared among the slots."""

    cores: Annotated[int, Field(ge=1, le=1024)] | None = None
    memory_bytes: Annotated[int, Field(ge=16 * limits.MIB)] | None = None
    disk_bytes: Annotated[int, Field(ge=limits.MIB)] = 8 * limits.GIB
    processes: Annotated[int, Field(ge=8, le=100_000)] = 4096


class SandboxSettings(Settings):
    executor: Literal["bubblewrap", "process"] = "bubblewrap"
    """`process` isolates nothing: for the owner's own jobs only."""
    network: bool = False
    """Whether a job that asks for the network gets it."""
    grace_seconds: Annotated[float, Field(ge=0, le=300)] = 5.0
    first_uid: Annotated[int, Field(ge=1000)] = 61000
    """With root, slot N runs as this uid plus N; nothing else may use those."""
    cgroup_parent: str = "fedci"
    may_nest: bool = False
    """Jobs may make user namespaces, which opens more of the kernel to them."""


class WorkerSettings(Settings):
    provider: ProviderName
    name: Label
    pool: Label
    labels: tuple[PoolLabel, ...] = ()
    slots: Annotated[int, Field(ge=1, le=1024)] = 1
    desk_url: HttpUrl
    desk_ca_file: Path | None = None
    root_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
    """The provider's root public key, base64url: what its card, and so its rate card, is believed under."""
    key_file: Path = Path("agent.key")
    metrics: Listen | None = None
    slot: SlotSettings = SlotSettings()
    sandbox: SandboxSettings = SandboxSettings()
    issuers: tuple[IssuerProfile, ...] = ()
    """Whose accounts may send jobs."""
    accounts: tuple[AccountSettings, ...] = ()
    stores: tuple[StoreSettings, ...] = ()
    toolchains: tuple[ToolchainSettings, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> "WorkerSettings":
        for what, names in (
            ("issuer", [issuer.url for issuer in self.issuers]),
            ("account", [account.url for account in self.accounts]),
            ("store", [store.name for store in self.stores]),
            ("toolchain", [toolchain.name for toolchain in self.toolchains]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"listed twice: {what} {', '.join(twice)}")
        lacking = sorted({issuer.url for issuer in self.issuers} - {account.url for account in self.accounts})
        if lacking:
            raise ValueError(f"no [[accounts]] entry for {', '.join(lacking)}: its customers could not be answered")
        return self
