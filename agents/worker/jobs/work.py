"""The work of a granted job, from the sealed box to the stored artifacts: a flat story of stages.

Each stage gives what the next one needs, or the `Ending` that the job gets instead. A stop ends whatever stage is
under way; in the sandbox it is a polite signal first, and the story goes on to the sandbox's own outcome.
"""

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agents.sandbox.executor import Executor, JobSpec, Sandbox, SandboxUnavailable, SpecError, StepResult, Use
from agents.worker.jobs.ending import KILLED, Ending, read_outcome
from agents.worker.jobs.keeper import LeaseKeeper
from agents.worker.jobs.provisions import Provisions, deliver, fetch, furnish
from agents.worker.journal.claims import OrderMark
from agents.worker.orders.handle import Handle
from agents.worker.ports import StoreDoor, StoreTab
from agents.worker.speech.log_stream import LogStream
from runtime.errors import PeerFault, WorldFault
from runtime.logging import get_logger
from schemas import wire
from schemas.ends import EndReason
from schemas.orders import Grant, GrantSecrets, Job
from schemas.refusals import Refusal
from schemas.reports import ArtifactFile
from schemas.sealing import open_for_claim

CLOSE_SECONDS = 5.0
ResultT = TypeVar("ResultT")
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a job."""

    ending: Ending
    use: Use | None = None
    steps: tuple[StepResult, ...] = ()
    artifacts: tuple[ArtifactFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Granted:
    """A job that may start: nothing of it has happened yet."""

    handle: Handle
    job: Job
    grant: Grant
    mark: OrderMark
    grant_key: X25519PrivateKey
    claim_sent_at: float
    slot: int


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where jobs are done: the executor, the stores, and how a job becomes a sandbox's specification."""

    executor: Executor
    stores: StoreDoor
    scratch: Path
    spec_of: Callable[[Job, GrantSecrets, int], JobSpec]
    header_of: Callable[[Job], str]


async def perform(granted: Granted, place: Workplace, keeper: LeaseKeeper, stream: LogStream) -> Done:
    """Do the job. Cancel: everything of it is dead when the cancel goes on. Raises OSError where the disk refuses."""
    await stream.write(place.header_of(granted.job).encode())
    scratch = place.scratch / granted.handle.ref.claim
    await asyncio.to_thread(scratch.mkdir, mode=0o700, parents=True)
    try:
        return await _perform(granted, place, keeper, stream, scratch)
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, True)


async def _perform(granted: Granted, place: Workplace, keeper: LeaseKeeper, stream: LogStream, scratch: Path) -> Done:
    job, handle = granted.job, granted.handle
    secrets = open_secrets(granted)
    if isinstance(secrets, Ending):
        return Done(secrets)
    tab = await unless_stopped(handle, _open_tab(job, secrets, place.stores))
    if isinstance(tab, Ending):
        return Done(tab)
    try:
        provisions = await unless_stopped(handle, fetch(job, tab, scratch))
        if isinstance(provisions, Ending):
            return Done(provisions)
        spec = place.spec_of(job, secrets, granted.slot)
        async with place.executor.prepare(spec) as sandbox:
            return await _in_sandbox(granted, sandbox, provisions, tab, keeper, stream)
    except SpecError as error:
        return Done(Ending(EndReason.SECRET_MISSING, str(error)))  # all else of the job was checked at admission
    except SandboxUnavailable as error:
        return Done(Ending(EndReason.SANDBOX_FAILED, str(error)))
    finally:
        if tab is not None:
            await _close_tab(tab)


async def _in_sandbox(
    granted: Granted,
    sandbox: Sandbox,
    provisions: Provisions,
    tab: StoreTab | None,
    keeper: LeaseKeeper,
    stream: LogStream,
) -> Done:
    job, handle = granted.job, granted.handle
    ending = await furnish(sandbox, provisions, job.resources.disk_bytes)
    if ending is not None:
        return Done(ending)
    if handle.stop_cause is not None:
        return Done(KILLED[handle.stop_cause])
    keeper.guard(sandbox)
    await _run(handle, sandbox, keeper, stream)
    outcome = await sandbox.outcome()
    ending = read_outcome(outcome)
    if ending.reason is not EndReason.SUCCEEDED:
        return Done(ending, outcome.use, outcome.steps)
    artifacts = await unless_stopped(handle, deliver(job, sandbox.workspace, tab))
    if isinstance(artifacts, Ending):
        return Done(artifacts, outcome.use, outcome.steps)
    return Done(ending, outcome.use, outcome.steps, artifacts)


async def _run(handle: Handle, sandbox: Sandbox, keeper: LeaseKeeper, stream: LogStream) -> None:
    """Run the steps and spool the log; returns when all of the job is dead and all of its log is spooled."""
    async with asyncio.TaskGroup() as group:
        watchers = (
            group.create_task(_signal_when_stopped(handle, sandbox)),
            group.create_task(_never_pause_the_dead(sandbox, stream)),
        )
        async for chunk in sandbox.run(keeper.lease.until):
            await stream.write(chunk)
        for watcher in watchers:
            watcher.cancel()


async def _signal_when_stopped(handle: Handle, sandbox: Sandbox) -> None:
    await handle.stopped()
    if handle.stop_cause is not None:
        await sandbox.signal(handle.stop_cause)


async def _never_pause_the_dead(sandbox: Sandbox, stream: LogStream) -> None:
    """Once the tree is dead, by whatever cause, a slow bus must not hold up the slot: the rest fits a pipe."""
    await sandbox.outcome()
    await stream.stop_pausing()


async def unless_stopped(handle: Handle, stage: Coroutine[Any, Any, ResultT | Ending]) -> ResultT | Ending:
    """Await a stage; when the claim is told to stop, cancel it and give the ending of that cause."""
    work, stop = asyncio.ensure_future(stage), asyncio.ensure_future(handle.stopped())
    try:
        await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
        if not work.done() and handle.stop_cause is not None:
            return KILLED[handle.stop_cause]
        return await work
    finally:
        work.cancel()
        stop.cancel()
        await asyncio.gather(work, stop, return_exceptions=True)


def open_secrets(granted: Granted) -> GrantSecrets | Ending:
    """Open the sealed box, and see that it holds what the job names."""
    grant = granted.grant
    box = open_for_claim(grant.sealed, granted.grant_key, attempt=grant.attempt, claim=grant.claim)
    if box is None:
        return Ending(EndReason.SECRET_MISSING, "the grant's box is not sealed to this claim")
    try:
        secrets = GrantSecrets.model_validate(wire.unpack_map(box))
    except ValueError:
        return Ending(EndReason.SECRET_MISSING, "the grant's box does not hold what it should")
    missing = sorted(set(granted.job.secrets) - secrets.secrets.keys())
    if missing:
        return Ending(EndReason.SECRET_MISSING, f"the grant brought no value for {', '.join(missing)}")
    return secrets


async def _open_tab(job: Job, secrets: GrantSecrets, stores: StoreDoor) -> StoreTab | Ending | None:
    if job.store is None or secrets.store_ticket is None:
        return None
    try:
        tab = await stores.open_tab(job.store, secrets.store_ticket)
    except (WorldFault, PeerFault) as error:
        return Ending(EndReason.STORE_UNAVAILABLE, error.what)
    if isinstance(tab, Refusal):
        return Ending(EndReason.TICKET_REFUSED, f"the store answered {tab}")
    return tab


async def _close_tab(tab: StoreTab) -> None:
    """Tell the store that no more will come; where it cannot be told, the tab ends by itself."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await tab.close()
    except (TimeoutError, WorldFault, PeerFault) as error:
        _log.info("tab_not_closed", reason=str(error))
