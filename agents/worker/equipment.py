"""From settings to the things that jobs meet: the sandbox of this machine, toolchains, stores, accounts.

The sandbox is tried with a real job before the worker takes any: a machine that cannot lock a job up says so at its
start, with the remedy, and not by failing the first customer.
"""

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path, PurePosixPath

import httpx

from agents.sandbox.executor import Executor, Mount, SandboxUnavailable, SpecError
from agents.sandbox.local import Place, open_executor
from agents.sandbox.probe import TRIAL, Finding, probe
from agents.worker.jobs.jails import Jails, Toolchain
from agents.worker.settings import ToolchainSettings, WorkerSettings
from agents.worker.stores import ConfiguredStores
from identity.account import Account, read_api_token
from identity.keys import SigningKey
from runtime.clock import Clock
from runtime.errors import OurFault
from runtime.http_client import open_client
from runtime.logging import get_logger
from runtime.store_client import StoreClient

_log = get_logger(__name__)


async def open_sandbox(directory: Path, settings: WorkerSettings) -> tuple[Executor, tuple[Finding, ...]]:
    """The executor, and what of it does not hold on this machine; raises OurFault where no job could run."""
    sandbox = settings.sandbox
    place = Place(directory / "jobs", sandbox.first_uid, sandbox.cgroup_parent, sandbox.may_nest)
    try:
        findings = await probe(sandbox.executor, place)
        executor = open_executor(sandbox.executor, place)
    except SandboxUnavailable as error:
        raise OurFault(str(error), where=f"sandbox.executor = {sandbox.executor}") from error
    for finding in findings:
        if finding.is_fatal and not finding.is_ok:
            raise OurFault(f"{finding.name}: {finding.missing}", where=str(directory), remedy=finding.remedy)
        if not finding.is_ok:
            _log.warning("sandbox_lacks", name=finding.name, missing=finding.missing, remedy=finding.remedy)
    return executor, findings


def make_jails(settings: WorkerSettings, findings: tuple[Finding, ...]) -> Jails:
    """How jobs are locked up; raises OurFault for a toolchain that is not there."""
    return Jails(
        provider=settings.provider,
        worker=settings.name,
        executor=settings.sandbox.executor,
        toolchains=tuple(_toolchain(toolchain) for toolchain in settings.toolchains),
        not_enforced=tuple(finding.missing for finding in findings if not finding.is_ok),
        grace_seconds=settings.sandbox.grace_seconds,
    )


def _toolchain(settings: ToolchainSettings) -> Toolchain:
    for path in (settings.path, *settings.mounts):
        if not path.is_dir():
            raise OurFault(
                f"no directory {path}",
                where=f"toolchain {settings.name}",
                remedy="Correct the path in the settings, or take the toolchain out.",
            )
    target = PurePosixPath(settings.target or f"/toolchains/{settings.name}")
    toolchain = Toolchain(
        name=settings.name,
        description=settings.description,
        mounts=(Mount(settings.path, target), *(Mount(path, PurePosixPath(path)) for path in settings.mounts)),
        path=tuple(str(target / entry) for entry in settings.path_entries),
    )
    try:
        replace(TRIAL, mounts=toolchain.mounts)
    except SpecError as error:
        raise OurFault(
            str(error), where=f"toolchain {settings.name}", remedy="Choose another `target`, or put it elsewhere."
        ) from error
    return toolchain


class HttpClients:
    """HTTP clients for each set of trusted CAs, closed with `stack`. They are shared, because every one of them holds
    some megabytes of certificates, and a worker should be small.
    """

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._by_ca: dict[Path | None, httpx.AsyncClient] = {}

    async def trusting(self, ca_file: Path | None) -> httpx.AsyncClient:
        """The client that trusts the CAs in this file of the data directory, or the public ones."""
        if ca_file not in self._by_ca:
            path = self._directory / ca_file if ca_file else None
            self._by_ca[ca_file] = await self._stack.enter_async_context(open_client(path))
        return self._by_ca[ca_file]


async def open_stores(
    settings: WorkerSettings, key: SigningKey, clock: Clock, clients: HttpClients
) -> ConfiguredStores:
    return ConfiguredStores(
        {
            store.name: StoreClient(store.url, await clients.trusting(store.ca_file), key.private, clock)
            for store in settings.stores
        }
    )


def open_accounts(
    directory: Path, settings: WorkerSettings, key: SigningKey, http: httpx.AsyncClient, clock: Clock
) -> list[Account]:
    """The worker's accounts; raises OurFault where an API token cannot be read."""
    return [
        Account(
            issuer=account.url,
            sub=account.sub,
            api_token=read_api_token(directory / account.api_token_file),
            key=key,
            client=http,
            clock=clock,
        )
        for account in settings.accounts
    ]
