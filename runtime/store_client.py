"""The holder's side of an artifact store: opens a tab with a ticket, then puts, names and gets blobs (DESIGN §10).

Rules:
- every request is signed by the tab's holder key (`schemas.store_api`), anew for each try;
- refusals are values, in the store's own words; what the world breaks (`WorldFault`) is tried again with growing
  pauses, and raised when nothing has moved for `Patience.seconds`. A transfer that moves is not ended here: who wants a
  bound on the whole puts a timeout around it. A cancel leaves nothing but what the store already has;
- everything may be repeated: a put goes on where it was cut, a blob that is there is not sent, a name given twice to
  the same blob is one name;
- memory is constant: files are read and written in threads, chunk by chunk;
- what comes is checked against its SHA-256: a file appears at its place whole and right, or not at all.

It neither makes tickets nor reads them. Protocol: `schemas.store_api`.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import TypeAdapter, ValidationError

from runtime.clock import Clock
from runtime.errors import PeerFault, WorldFault
from runtime.http_client import explained
from runtime.store_files import CHUNK_BYTES, FileChanged, FileFault, Landing, cut, read_chunks
from schemas import limits, store_api
from schemas.ids import sha256_hex
from schemas.refusals import Reason, Refusal
from schemas.sessions import RefusalBody
from schemas.store_api import NamedBlob, StoreRequest, TabClosed, TabOpened, UploadState
from schemas.wire import Part, WorkspacePath

CALL_SECONDS = 30.0
MAX_ANSWER_BYTES = 64 * limits.KIB
_STORE_FULL_STATUS = 507
_PATH = TypeAdapter[str](WorkspacePath)
_PartT = TypeVar("_PartT", bound=Part)


@dataclass(frozen=True)
class Patience:
    """How long failures are waited out while nothing moves, and how fast pauses grow."""

    seconds: float = 120
    first_pause_seconds: float = 0.2
    last_pause_seconds: float = 10


class StoreClient:
    """One store, at a URL that a person pinned, for the holder of `key`. The HTTP client stays its maker's."""

    def __init__(
        self,
        url: str,
        client: httpx.AsyncClient,
        key: Ed25519PrivateKey,
        clock: Clock,
        *,
        patience: Patience | None = None,
    ) -> None:
        self._caller = _Caller(url.rstrip("/"), client, key, clock)
        self._patience = patience or Patience()

    async def open_tab(self, ticket: bytes) -> "Tab | Refusal":
        """Present a ticket whose `holder_key` is ours; presented again, it gives the same tab.

        Raises WorldFault when the store stays away, PeerFault when it answers nonsense.
        """
        tries = _Tries(self._patience)
        while True:
            try:
                opened = await self._caller.opened(ticket)
            except WorldFault as error:
                await tries.rest_after(error)
            else:
                return opened if isinstance(opened, Refusal) else Tab(self._caller, opened, self._patience)


class Tab:
    """An open tab. All methods raise WorldFault when the store stays away, PeerFault when it answers nonsense."""

    def __init__(self, caller: "_Caller", opened: TabOpened, patience: Patience) -> None:
        self._caller = caller
        self._opened = opened
        self._patience = patience
        # A newer upload of a blob ends the older one at the store: ours must not chase each other.
        self._uploads: dict[str, asyncio.Lock] = {}

    @property
    def id(self) -> str:
        return self._opened.tab

    @property
    def ends_at(self) -> datetime:
        return self._opened.ends_at

    @property
    def write_prefix(self) -> str | None:
        """What the full name of everything begins with that is named through this tab."""
        return self._opened.write_prefix

    async def put_file(self, path: Path, digest: str, size_bytes: int) -> Refusal | None:
        """Store a file of this SHA-256 and size; nothing is sent that the store has.

        A file that changes meanwhile is a refusal (`DIGEST_MISMATCH`), one that cannot be read a WorldFault.
        """
        return await self._put(digest, size_bytes, lambda offset: read_chunks(path, offset, size_bytes))

    async def put_bytes(self, data: bytes) -> str | Refusal:
        """Store bytes, and return their digest."""
        digest = sha256_hex(data)
        refusal = await self._put(digest, len(data), lambda offset: cut(data, offset))
        return digest if refusal is None else refusal

    async def name(self, path: str, digest: str, size_bytes: int) -> Refusal | None:
        """Publish a stored blob under `write_prefix` + `path`, at once and for good."""
        if self.write_prefix is None:
            return Refusal(Reason.OUTSIDE_TICKET, "this tab's ticket has no prefix to write under")
        try:
            _PATH.validate_python(path)
        except ValidationError as error:
            return Refusal(Reason.INVALID_REQUEST, error.errors(include_url=False, include_input=False)[0]["msg"])
        where = store_api.name_path(self.id, self.write_prefix + path)
        body = NamedBlob(digest=digest, size_bytes=size_bytes).model_dump_json().encode("utf-8")
        answer = await self._call("PUT", where, NamedBlob, digest=digest, body=body)
        return answer if isinstance(answer, Refusal) else None

    async def find(self, name: str) -> NamedBlob | Refusal:
        """The blob of a full name."""
        return await self._call("GET", store_api.name_path(self.id, name), NamedBlob)

    async def get_to_file(self, digest: str, path: Path, max_bytes: int) -> int | Refusal:
        """Fetch a blob into the file `path`, which then has these bytes or was not touched; return its size.

        Going on after a cut costs only what is missing. `TOO_LARGE` and `DIGEST_MISMATCH` are found here.
        """
        landing = await asyncio.to_thread(Landing, path)
        try:
            refusal = await self._fetch_into(landing, digest, max_bytes)
        except BaseException:
            landing.discard()
            raise
        if refusal is not None:
            landing.discard()
            return refusal
        if not await landing.settle(digest):
            return Refusal(Reason.DIGEST_MISMATCH, "the store sent other bytes than those of the digest")
        return landing.offset

    @asynccontextmanager
    async def stream(self, digest: str) -> AsyncIterator["BlobStream | Refusal"]:
        """Open a blob for reading on the way, or learn why not. It is not resumed: a cut is a WorldFault."""
        async with self._caller.blob(self.id, digest, 0) as blob:
            yield blob

    async def close(self) -> TabClosed | Refusal:
        """Close the tab: nothing more goes through it, and the store bills what did."""
        return await self._call("DELETE", store_api.tab_path(self.id), TabClosed)

    # -- how

    async def _put(self, digest: str, size: int, body_from: Callable[[int], AsyncIterator[bytes]]) -> Refusal | None:
        async with self._uploads.setdefault(digest, asyncio.Lock()):
            try:
                return await self._put_alone(digest, size, body_from)
            except FileChanged:
                return Refusal(Reason.DIGEST_MISMATCH, "the file changed while it was sent")

    async def _put_alone(
        self, digest: str, size: int, body_from: Callable[[int], AsyncIterator[bytes]]
    ) -> Refusal | None:
        tries = _Tries(self._patience)
        while True:
            try:
                state = await self._caller.upload_state(self.id, digest, size)
                if not isinstance(state, Refusal) and not state.is_complete:
                    tries.note(state.offset)
                    state = await self._caller.upload(self.id, digest, size, state.offset, body_from(state.offset))
            except FileFault:
                raise
            except WorldFault as error:
                await tries.rest_after(error)
            else:
                return state if isinstance(state, Refusal) else None

    async def _fetch_into(self, landing: Landing, digest: str, max_bytes: int) -> Refusal | None:
        tries = _Tries(self._patience)
        while True:
            try:
                async with self._caller.blob(self.id, digest, landing.offset) as blob:
                    return blob if isinstance(blob, Refusal) else await _land(landing, blob, max_bytes)
            except FileFault:
                raise
            except WorldFault as error:
                tries.note(landing.offset)
                await tries.rest_after(error)

    async def _call(
        self,
        method: str,
        path: str,
        model: type[_PartT],
        *,
        digest: str = store_api.NO_DIGEST,
        body: bytes | None = None,
    ) -> _PartT | Refusal:
        tries = _Tries(self._patience)
        while True:
            try:
                return await self._caller.call(self.id, method, path, model, digest=digest, body=body)
            except WorldFault as error:
                await tries.rest_after(error)


class BlobStream:
    """A blob that is being received, from `start` on; iterate once. The whole one is checked at its end."""

    def __init__(self, digest: str, start: int, size_bytes: int, answer: httpx.Response) -> None:
        self.start = start
        self.size_bytes = size_bytes
        self._digest = digest
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield chunks. Raises WorldFault where the rest does not come, PeerFault where the bytes are wrong."""
        found, hasher = self.start, hashlib.sha256()
        async for chunk in self._answer.aiter_raw(CHUNK_BYTES):
            found += len(chunk)
            if found > self.size_bytes:
                raise PeerFault("the store sent more than it said", where=str(self._answer.url))
            if self.start == 0:
                hasher.update(chunk)
            yield chunk
        if self.start == 0 and hasher.hexdigest() != self._digest:
            raise PeerFault("the store sent other bytes than those of the digest", where=str(self._answer.url))


async def _land(landing: Landing, blob: BlobStream, max_bytes: int) -> Refusal | None:
    if blob.size_bytes > max_bytes:
        return Refusal(Reason.TOO_LARGE, f"the blob has {blob.size_bytes} bytes, {max_bytes} are accepted")
    if blob.start != landing.offset:
        landing.restart()
    try:
        async for chunk in blob:
            await landing.write(chunk)
    except PeerFault as error:
        return Refusal(Reason.DIGEST_MISMATCH, error.what)
    return None


class _Tries:
    """The tries of one piece of work: pauses grow until something has moved, and end when nothing does for too long."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failures = 0
        self._furthest = 0
        self._moved_at = asyncio.get_running_loop().time()

    def note(self, offset: int) -> None:
        if offset > self._furthest:
            self._furthest = offset
            self._failures = 0
            self._moved_at = asyncio.get_running_loop().time()

    async def rest_after(self, error: WorldFault) -> None:
        """Wait before the next try; raises `error` when there is none."""
        pause = min(
            self._patience.last_pause_seconds, self._patience.first_pause_seconds * 2.0 ** min(self._failures, 30)
        )
        self._failures += 1
        if asyncio.get_running_loop().time() + pause - self._moved_at > self._patience.seconds:
            raise error
        await asyncio.sleep(pause)


class _Caller:
    """Signs and sends single requests, and reads their answers."""

    def __init__(self, url: str, client: httpx.AsyncClient, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._url = url
        self._client = client
        self._key = key
        self._clock = clock

    async def opened(self, ticket: bytes) -> TabOpened | Refusal:
        return await self.call(
            store_api.NO_TAB, "POST", store_api.TABS_PATH, TabOpened, digest=sha256_hex(ticket), body=ticket
        )

    async def upload_state(self, tab: str, digest: str, size: int) -> UploadState | Refusal:
        return await self.call(
            tab, "GET", f"{store_api.upload_path(tab, digest)}?size={size}", UploadState, digest=digest
        )

    async def upload(
        self, tab: str, digest: str, size: int, offset: int, body: AsyncIterator[bytes]
    ) -> UploadState | Refusal:
        """Send the rest of a blob in one request. The httpx client's own timeouts end one that stalls."""
        path = f"{store_api.upload_path(tab, digest)}?offset={offset}&size={size}"
        headers = {"content-length": str(size - offset)}
        async with self._sent(tab, "PUT", path, digest, None, content=body, headers=headers) as answer:
            state = await _read(answer, UploadState)
        if isinstance(state, Refusal) and state.reason is Reason.CONFLICT:
            raise WorldFault(f"the store has another offset ({state.detail})", where=self._url)
        return state

    @asynccontextmanager
    async def blob(self, tab: str, digest: str, offset: int) -> AsyncIterator[BlobStream | Refusal]:
        headers = {"range": f"bytes={offset}-"} if offset else {}
        path = store_api.blob_path(tab, digest)
        async with self._sent(tab, "GET", path, digest, None, headers=headers) as answer:
            if answer.status_code not in (200, 206):
                yield await _refusal(answer)
            else:
                start = offset if answer.status_code == 206 else 0
                yield BlobStream(digest, start, start + _length(answer), answer)

    async def call(
        self,
        tab: str,
        method: str,
        path: str,
        model: type[_PartT],
        *,
        digest: str = store_api.NO_DIGEST,
        body: bytes | None = None,
    ) -> _PartT | Refusal:
        async with self._sent(tab, method, path, digest, CALL_SECONDS, content=body) as answer:
            return await _read(answer, model)

    @asynccontextmanager
    async def _sent(
        self,
        tab: str,
        method: str,
        path: str,
        digest: str,
        deadline_seconds: float | None,
        *,
        content: AsyncIterator[bytes] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        url = self._url + path
        request = StoreRequest(tab, method, path, digest, self._clock.now())
        signed = {**request.headers(self._key), **(headers or {})}
        async with (
            explained(url, deadline_seconds),
            self._client.stream(method, url, headers=signed, content=content) as answer,
        ):
            yield answer


async def _read(answer: httpx.Response, model: type[_PartT]) -> _PartT | Refusal:
    if answer.status_code not in (200, 201):
        return await _refusal(answer)
    try:
        return model.model_validate_json(await _body(answer))
    except ValidationError as error:
        raise PeerFault(
            f"the store's answer is no {model.__name__}", where=str(answer.url), remedy="Ask whoever runs it."
        ) from error


async def _refusal(answer: httpx.Response) -> Refusal:
    status = answer.status_code
    if status == 429 or (status >= 500 and status != _STORE_FULL_STATUS):
        raise WorldFault(f"the store answered {status}", where=str(answer.url), remedy="It is tried again later.")
    try:
        body = RefusalBody.model_validate_json(await _body(answer))
    except ValidationError as error:
        raise PeerFault(
            f"answered {status} without a reason that is known here",
            where=str(answer.url),
            remedy="See that the address is a store's, and that it speaks this version.",
        ) from error
    return Refusal(body.reason, body.detail[:1000])


async def _body(answer: httpx.Response) -> bytes:
    content = bytearray()
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise PeerFault(f"the store answered more than {MAX_ANSWER_BYTES} bytes", where=str(answer.url))
    return bytes(content)


def _length(answer: httpx.Response) -> int:
    length = answer.headers.get("content-length", "")
    if not length.isdecimal() or "content-encoding" in answer.headers:
        raise PeerFault("the store does not say how much it sends", where=str(answer.url))
    return int(length)
