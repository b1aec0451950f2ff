"""Speaks to a controller's HTTP API: what the command line, the demo and scripts do there.

Rules: answers are the API's own views; a refusal is raised as `RequestRefused` with its reason, for it ends what its
caller wanted; a controller that is away is a `WorldFault`. Nothing is repeated here but reading. Uploads and downloads
are streamed; a download's SHA-256 is checked, and the file appears whole or not at all.

Who asks shows the API's token. On the controller's own machine, address and token are found in its directory.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from broker.views import (
    ArtifactView,
    CancelledView,
    IntroductionView,
    ProjectView,
    ProviderView,
    RunSummary,
    RunView,
    SecretView,
    StatusView,
    SubmittedView,
    UsageOfProvider,
)
from runtime.addresses import check_http_url
from runtime.errors import FedciError, OurFault, PeerFault
from runtime.http_client import Fetched, explained, fetch, open_client
from runtime.secrets import read_secret
from runtime.store_files import Landing, read_chunks
from schemas.ids import sha256_hex
from schemas.refusals import Refusal
from schemas.sessions import RefusalBody

PREFIX = "/api/v1"
TOKEN_FILE = "api.token"  # noqa: S105 - a file's name
READY_FILE = "controller.ready"
POLL_SECONDS = 0.25
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_TRANSFER_SECONDS = 3600.0
_QUIET_SECONDS = 60.0
"""A followed log says at least every 15 s that it is still there."""
_PROBLEM = re.compile(r"^(.+?): line (\d+), column (\d+): ", re.MULTILINE)
ViewT = TypeVar("ViewT")


class RequestRefused(FedciError):
    """The controller refused a request; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(located(refusal.detail) or str(refusal.reason))
        self.refusal = refusal


def located(detail: str) -> str:
    """A refusal's text, problems of a pipeline written as `file:line:column: …`, so that editors find the place."""
    return _PROBLEM.sub(r"\1:\2:\3: ", detail)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a controller is, and the token that it asks for."""

    url: str
    token: str
    tls_ca: Path | None = None

    def __repr__(self) -> str:
        return f"Place({self.url!r})"


def place_of(directory: Path, tls_ca: Path | None = None) -> Place:
    """The controller that runs on this directory; raises OurFault when none does."""
    try:
        url = json.loads((directory / READY_FILE).read_text(encoding="utf-8"))["urls"]["http"]
    except (OSError, ValueError, KeyError) as error:
        raise OurFault(
            "no controller runs on this directory",
            where=str(directory),
            remedy=f"Start it: fedci controller serve {directory}",
        ) from error
    return Place(str(url), _token(directory / TOKEN_FILE), tls_ca)


def remote_place(url: str, token_file: Path, tls_ca: Path | None = None) -> Place:
    """A controller elsewhere; raises OurFault for a URL or file that cannot be used."""
    try:
        return Place(check_http_url(url).rstrip("/"), _token(token_file), tls_ca)
    except ValueError as error:
        raise OurFault(str(error), where=url, remedy="Correct the URL.") from error


def _token(path: Path) -> str:
    return read_secret(path).decode("utf-8").strip()


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator["ControllerClient"]:
    """A client for the length of a block."""
    async with open_client(place.tls_ca) as client:
        yield ControllerClient(place.url, place.token, client)


class ControllerClient:
    """One controller. All methods raise RequestRefused, WorldFault where it is away, PeerFault where it talks nonsense.

    The HTTP client stays its maker's.
    """

    def __init__(self, url: str, token: str, client: httpx.AsyncClient) -> None:
        self._base = f"{url.rstrip('/')}{PREFIX}"
        self._headers = {"authorization": f"Bearer {token}"}
        self._client = client

    # -- Projects and providers

    async def status(self) -> StatusView:
        """The controller as a whole: alarms, orphans, and the refusals that its work met."""
        return await self._get(StatusView, "/status")

    async def projects(self) -> list[ProjectView]:
        return await self._get(list[ProjectView], "/projects")

    async def add_project(self, name: str, providers: tuple[str, ...] = ()) -> ProjectView:
        return await self._send(ProjectView, "POST", "/projects", {"name": name, "providers": providers})

    async def secrets(self, project: str) -> list[SecretView]:
        """The names of a project's secrets; values never come back."""
        return await self._get(list[SecretView], f"/projects/{_part(project)}/secrets")

    async def set_secret(self, project: str, name: str, value: str) -> None:
        await self._call("PUT", f"/projects/{_part(project)}/secrets/{_part(name)}", {"value": value})

    async def remove_secret(self, project: str, name: str) -> None:
        await self._call("DELETE", f"/projects/{_part(project)}/secrets/{_part(name)}")

    async def providers(self) -> list[ProviderView]:
        return await self._get(list[ProviderView], "/providers")

    async def introduce(self, url: str) -> IntroductionView:
        """Have the controller ask a desk who it is; nothing is pinned."""
        return await self._send(IntroductionView, "POST", "/providers/introductions", {"url": url})

    async def add_provider(self, url: str, fingerprint: str | None = None) -> ProviderView:
        """Pin a provider's root key, if it has this fingerprint."""
        return await self._send(ProviderView, "POST", "/providers", {"url": url, "fingerprint": fingerprint})

    async def usage(self, provider: str) -> UsageOfProvider:
        return await self._get(UsageOfProvider, f"/usage/{_part(provider)}")

    async def usage_envelopes(self, provider: str) -> bytes:
        """Every usage event of a provider as it was received, one envelope after the other."""
        return (await self._call("GET", f"/usage/{_part(provider)}/envelopes")).body

    # -- Runs

    async def submit(
        self,
        project: str,
        snapshot: Path | bytes,
        revision: str,
        *,
        pipeline: bytes | None = None,
        pipeline_path: str | None = None,
    ) -> SubmittedView:
        """Bring a snapshot (an uncompressed tar) to the controller unless it is there, and start a run of it.

        Without `pipeline` it is read from the snapshot, at `pipeline_path` or its usual place.
        """
        new: dict[str, Any] = {"project": project, "revision": revision, "snapshot": await self._upload(snapshot)}
        if pipeline is not None:
            new["pipeline"] = pipeline.decode("utf-8", "replace")
        if pipeline_path is not None:
            new["pipeline_path"] = pipeline_path
        return await self._send(SubmittedView, "POST", "/runs", new)

    async def runs(self, project: str | None = None, limit: int = 50) -> list[RunSummary]:
        """The newest runs first."""
        of_project = f"&project={quote(project)}" if project else ""
        return await self._get(list[RunSummary], f"/runs?limit={limit}{of_project}")

    async def run(self, run: str) -> RunView:
        return await self._get(RunView, f"/runs/{_part(run)}")

    async def wait(self, run: str, on_look: Callable[[RunView], None] | None = None) -> RunView:
        """Return the run when it is over; `on_look` sees it each time that it is looked at.

        There is no deadline: who wants one sets it. A cancel changes nothing about the run.
        """
        while True:
            view = await self.run(run)
            if on_look:
                on_look(view)
            if view.state != "running":
                return view
            await asyncio.sleep(POLL_SECONDS)

    async def cancel(self, run: str) -> CancelledView:
        return await self._send(CancelledView, "POST", f"/runs/{_part(run)}/cancel")

    # -- Logs and artifacts

    async def log(self, run: str, job: str, *, attempt: int | None = None) -> bytes:
        """The bytes of a job's log that are here by now, of one attempt or the newest that ran."""
        async with self._stream("GET", _log_path(run, job, attempt), _TRANSFER_SECONDS) as answer:
            return await answer.aread()

    async def follow_log(self, run: str, job: str, *, attempt: int | None = None) -> AsyncIterator[str]:
        """The text of a job's log, from its beginning to its end, as it comes. Escape sequences are still in it."""
        async with self._stream("GET", _log_path(run, job, attempt, "log/live"), None) as answer:
            async for event, data in _events(answer.aiter_lines()):
                if event == "log":
                    yield str(data["text"])
                elif event in ("end", "refused"):
                    return

    async def artifacts(self, run: str) -> list[ArtifactView]:
        return await self._get(list[ArtifactView], f"/runs/{_part(run)}/artifacts")

    async def download(self, artifact: ArtifactView, path: Path) -> Path:
        """Fetch an artifact's file to `path`, replacing what is there only with the right bytes."""
        landing = Landing(path)
        try:
            async with self._stream("GET", f"/artifacts/{artifact.id}", _TRANSFER_SECONDS) as answer:
                async for chunk in answer.aiter_bytes():
                    await landing.write(chunk)
        except BaseException:
            landing.discard()
            raise
        if not await landing.settle(artifact.sha256):
            raise PeerFault("the artifact's bytes have another SHA-256", where=artifact.path)
        return path

    # -- Requests

    async def _upload(self, snapshot: Path | bytes) -> str:
        size = len(snapshot) if isinstance(snapshot, bytes) else snapshot.stat().st_size
        digest = sha256_hex(snapshot) if isinstance(snapshot, bytes) else await asyncio.to_thread(_digest, snapshot)
        path = f"/snapshots/{digest}"
        if (await self._fetch("GET", path)).status == httpx.codes.OK:
            return digest
        content = snapshot if isinstance(snapshot, bytes) else read_chunks(snapshot, 0, size)
        async with self._stream("PUT", path, _TRANSFER_SECONDS, content=content, size=size):
            return digest

    async def _get(self, view: type[ViewT], path: str) -> ViewT:
        return _read(view, await self._call("GET", path))

    async def _send(self, view: type[ViewT], method: str, path: str, body: Mapping[str, Any] | None = None) -> ViewT:
        return _read(view, await self._call(method, path, body))

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Fetched:
        answer = await self._fetch(method, path, body)
        if answer.status >= httpx.codes.BAD_REQUEST:
            raise _refused(answer.status, answer.body, answer.url)
        return answer

    async def _fetch(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Fetched:
        return await fetch(
            self._client,
            method,
            self._base + path,
            max_bytes=_MAX_ANSWER_BYTES,
            headers=self._headers | ({"content-type": "application/json"} if body is not None else {}),
            body=None if body is None else json.dumps(body).encode("utf-8"),
        )

    @asynccontextmanager
    async def _stream(
        self,
        method: str,
        path: str,
        seconds: float | None,
        *,
        content: bytes | AsyncIterator[bytes] | None = None,
        size: int = 0,
    ) -> AsyncIterator[httpx.Response]:
        """Open an answer that comes, or a request that goes, piece by piece."""
        url = self._base + path
        headers = self._headers | ({} if content is None else {"content-length": str(size)})
        async with (
            explained(url, seconds),
            self._client.stream(method, url, content=content, headers=headers, timeout=_QUIET_SECONDS) as answer,
        ):
            if answer.status_code >= httpx.codes.BAD_REQUEST:
                raise _refused(answer.status_code, await answer.aread(), url)
            yield answer


def _read(view: type[ViewT], answer: Fetched) -> ViewT:
    try:
        return TypeAdapter(view).validate_json(answer.body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PeerFault(
            f"answered something else than was asked for ({where}: {first['msg']})",
            where=answer.url,
            remedy="See that this fedci and the controller's are of the same version.",
        ) from None


def _refused(status: int, body: bytes, url: str) -> FedciError:
    try:
        said = RefusalBody.model_validate_json(body)
    except ValidationError:
        return PeerFault(f"answered with status {status}", where=url, remedy=_detail(body))
    return RequestRefused(Refusal(said.reason, said.detail))


def _detail(body: bytes) -> str:
    """What a fault says, where it is no refusal of the contract."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return "See the controller's log."


def _part(name: str) -> str:
    """One part of a path, whatever its characters."""
    return quote(name, safe="")


def _log_path(run: str, job: str, attempt: int | None, leaf: str = "log") -> str:
    of_attempt = "" if attempt is None else f"?attempt={attempt}"
    return f"/runs/{_part(run)}/jobs/{_part(job)}/{leaf}{of_attempt}"


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, Any]]:
    """Server-sent events (WHATWG HTML §9.2) whose data is one line of JSON."""
    name = "message"
    async for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
