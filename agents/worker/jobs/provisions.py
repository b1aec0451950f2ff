"""What a job brings along and leaves behind: its source, its inputs, its artifacts; in and out of the workspace.

Every blob is named by its SHA-256 and checked before the job sees a byte of it. The worker opens no address that a
tenant gave: a store is a name, its address stands in the owner's settings. Each call returns what it made, or the
`Ending` that the job gets instead; whose fault that is, `schemas.ends` knows. `OSError` means this machine's disk.

The workspace may hold links of the tenant's making: files are put there through the descriptors of their directories,
and none is followed.
"""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError

from agents.sandbox.collect import Artifact, CollectLimits, CollectRefused, Fault, collect
from agents.sandbox.executor import Sandbox
from agents.sandbox.unpack import UnpackLimits, UnpackRefused, unpack
from agents.worker.jobs.ending import Ending
from agents.worker.ports import StoreTab
from runtime.errors import PeerFault, WorldFault
from schemas import limits
from schemas.ends import EndReason
from schemas.ids import sha256_hex
from schemas.orders import InputFile, Job, Source
from schemas.refusals import Reason, Refusal
from schemas.reports import ArtifactFile
from schemas.wire import WorkspacePath

_PATH: TypeAdapter[str] = TypeAdapter(WorkspacePath)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_OF_THE_STORE = frozenset({EndReason.STORE_UNAVAILABLE, EndReason.TICKET_REFUSED})


@dataclass(frozen=True, slots=True)
class Provisions:
    """What was fetched for a job: its source (an open file, or bytes of the job itself) and its inputs."""

    source: Path | bytes
    inputs: tuple[tuple[InputFile, Path], ...]


async def fetch(job: Job, tab: StoreTab | None, scratch: Path) -> Provisions | Ending:
    """Fetch and check all that the job needs; `scratch` is an empty directory of this claim's."""
    source = await _fetch_source(job.source, tab, scratch)
    if isinstance(source, Ending):
        return source
    inputs: list[tuple[InputFile, Path]] = []
    for number, wanted in enumerate(job.inputs):
        into = scratch / f"input-{number}"
        ending = await _fetch_blob(tab, wanted.digest, wanted.size_bytes, into)
        if ending is not None:
            reason = ending.reason if ending.reason in _OF_THE_STORE else EndReason.INPUT_UNAVAILABLE
            return Ending(reason, f"input {wanted.path}: {ending.detail}")
        inputs.append((wanted, into))
    return Provisions(source, tuple(inputs))


async def furnish(sandbox: Sandbox, provisions: Provisions, disk_bytes: int) -> Ending | None:
    """Put source and inputs into the workspace; raises OSError where the disk refuses."""
    return await asyncio.to_thread(_furnish, sandbox, provisions, disk_bytes)


async def deliver(job: Job, workspace: Path, tab: StoreTab | None) -> tuple[ArtifactFile, ...] | Ending:
    """Find the artifacts in the workspace of a job that is over, and store them."""
    collected = await asyncio.to_thread(_collect, job, workspace)
    if isinstance(collected, Ending):
        return collected
    files: list[ArtifactFile] = []
    for name, artifact in collected:
        ending = await _store(workspace, artifact, tab)
        if ending is not None:
            return ending
        files.append(
            ArtifactFile(artifact=name, path=artifact.path, digest=artifact.sha256, size_bytes=artifact.size_bytes)
        )
    return tuple(files)


async def _fetch_source(source: Source, tab: StoreTab | None, scratch: Path) -> Path | bytes | Ending:
    if source.inline is None:
        into = scratch / "source.tar"
        return await _fetch_blob(tab, source.digest, source.size_bytes, into) or into
    if len(source.inline) != source.size_bytes or sha256_hex(source.inline) != source.digest:
        return Ending(EndReason.SOURCE_REFUSED, "the source inside the job is not the one that its digest names")
    return source.inline


async def _fetch_blob(tab: StoreTab | None, digest: str, size_bytes: int, into: Path) -> Ending | None:
    if tab is None:
        return Ending(EndReason.TICKET_REFUSED, "the grant brought no ticket for the store")
    try:
        size_or_refusal = await tab.get_to_file(digest, into, size_bytes)
    except (WorldFault, PeerFault) as error:
        return Ending(EndReason.STORE_UNAVAILABLE, error.what)
    if isinstance(size_or_refusal, Refusal):
        return Ending(EndReason.SOURCE_UNAVAILABLE, f"the store answered {size_or_refusal}")
    if size_or_refusal != size_bytes:
        return Ending(EndReason.SOURCE_REFUSED, f"the blob has {size_or_refusal} bytes, the job says {size_bytes}")
    return None


def _furnish(sandbox: Sandbox, provisions: Provisions, disk_bytes: int) -> Ending | None:
    with _opened(provisions.source) as source:
        unpacked = unpack(source, sandbox.workspace, sandbox.owner, UnpackLimits(total_bytes=disk_bytes))
    if isinstance(unpacked, UnpackRefused):
        where = f" (at {unpacked.member})" if unpacked.member else ""
        return Ending(EndReason.SOURCE_REFUSED, f"the source cannot be unpacked: {unpacked.offence.value}{where}")
    for wanted, blob in provisions.inputs:
        if not _place(sandbox, wanted.path, blob):
            return Ending(EndReason.INPUT_UNAVAILABLE, f"input {wanted.path}: the source has something in its way")
    return None


@contextmanager
def _opened(source: Path | bytes) -> Iterator[BinaryIO]:
    with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        yield file


def _place(sandbox: Sandbox, path: str, blob: Path) -> bool:
    """Copy a blob into the workspace; False where a link, a file or a directory of the source is in the way."""
    *parents, name = path.split("/")
    current = os.open(sandbox.workspace, _DIRECTORY)
    try:
        for parent in parents:
            inner = _enter(current, parent, sandbox.owner)
            os.close(current)
            current = inner
        descriptor = os.open(name, _NEW_FILE, 0o644, dir_fd=current)
    except (FileExistsError, NotADirectoryError, _InTheWay):
        return False
    finally:
        os.close(current)
    with os.fdopen(descriptor, "wb") as file, blob.open("rb") as content:
        os.fchown(file.fileno(), *sandbox.owner)
        shutil.copyfileobj(content, file, 1 << 20)
    return True


class _InTheWay(Exception):
    """Something that is no directory stands where one is needed."""


def _enter(directory: int, name: str, owner: tuple[int, int]) -> int:
    try:
        os.mkdir(name, 0o755, dir_fd=directory)
        os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        pass
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except OSError as error:
        raise _InTheWay from error


def _collect(job: Job, workspace: Path) -> list[tuple[str, Artifact]] | Ending:
    found: list[tuple[str, Artifact]] = []
    bytes_left, files_left = job.artifact_bytes, limits.FILES
    for wanted in job.artifacts:
        collected = collect(workspace, wanted.paths, CollectLimits(bytes_left, files_left))
        if isinstance(collected, CollectRefused):
            missing = collected.fault is Fault.MISSING
            reason = EndReason.ARTIFACT_MISSING if missing else EndReason.ARTIFACT_REFUSED
            return Ending(reason, f"artifact {wanted.name}, {collected.path}: {collected.fault.value}")
        for artifact in collected.artifacts:
            if not _is_reportable(artifact.path):
                return Ending(EndReason.ARTIFACT_REFUSED, f"artifact {wanted.name}: {artifact.path!a} is no plain path")
            found.append((wanted.name, artifact))
        bytes_left -= sum(artifact.size_bytes for artifact in collected.artifacts)
        files_left -= len(collected.artifacts)
    return found


def _is_reportable(path: str) -> bool:
    try:
        _PATH.validate_python(path, strict=True)
    except ValidationError:
        return False
    return True


async def _store(workspace: Path, artifact: Artifact, tab: StoreTab | None) -> Ending | None:
    if tab is None:
        return Ending(EndReason.TICKET_REFUSED, "the grant brought no ticket for the store")
    file = workspace / artifact.path
    try:
        # Collected without following a link, and nothing of the job lives that could have put one there since.
        refusal = await tab.put_file(file, artifact.sha256, artifact.size_bytes)
        if refusal is None:
            refusal = await tab.name(artifact.path, artifact.sha256, artifact.size_bytes)
    except (WorldFault, PeerFault) as error:
        return Ending(EndReason.STORE_UNAVAILABLE, error.what)
    return None if refusal is None else _upload_refused(artifact, refusal)


def _upload_refused(artifact: Artifact, refusal: Refusal) -> Ending:
    is_ours = refusal.reason in (Reason.QUOTA_EXCEEDED, Reason.OUTSIDE_TICKET, Reason.DIGEST_MISMATCH)
    reason = EndReason.ARTIFACT_REFUSED if is_ours else EndReason.STORE_UNAVAILABLE
    return Ending(reason, f"artifact {artifact.path}: the store answered {refusal}")
