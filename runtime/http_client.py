"""Calls to other parties' HTTP services: nothing followed, nothing unbounded, nothing in plaintext.

Rules: no redirects (the pinned URL is the party), no proxies or credentials from the environment, plaintext only to
loopback, a deadline over the whole exchange, a limit on the bytes of the answer, no compression (a small body could
unfold to a large one). A party that cannot be reached is a `WorldFault`; one that answers against these rules is a
`PeerFault`. A status is for the caller to judge: any status is returned.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from runtime.addresses import is_loopback, without_userinfo
from runtime.errors import OurFault, PeerFault, WorldFault

DEFAULT_DEADLINE_SECONDS = 30.0
_TIMEOUTS = httpx.Timeout(connect=10, read=60, write=60, pool=30)
_LIMITS = httpx.Limits(max_connections=50, max_keepalive_connections=10)


@dataclass(frozen=True)
class Fetched:
    """A whole answer; header names are lower-case."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def open_client(tls_ca: Path | None = None, *, ca_of_peer: str | None = None) -> httpx.AsyncClient:
    """Return a client (close it with `aclose`) that trusts the public CAs, or only those in the PEM file `tls_ca`.

    `ca_of_peer` is PEM text that the other party itself has signed for, in its card. Raises OurFault when the file,
    PeerFault when that text cannot be used.
    """
    return httpx.AsyncClient(
        verify=_trust(tls_ca) if tls_ca else True if ca_of_peer is None else _trust_peer(ca_of_peer),
        trust_env=False,
        follow_redirects=False,
        timeout=_TIMEOUTS,
        limits=_LIMITS,
        headers={"accept-encoding": "identity", "user-agent": "fedci"},
        event_hooks={"request": [_refuse_plaintext]},
    )


async def fetch(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    max_bytes: int,
    deadline_seconds: float = DEFAULT_DEADLINE_SECONDS,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Fetched:
    """Send one request and return the whole answer, at most `max_bytes` of it, within `deadline_seconds`.

    At most once: it is never repeated here. A cancel closes the connection; the request may have taken effect.
    Raises WorldFault when there is no whole answer in time, PeerFault when it is too large or compressed.
    """
    async with (
        explained(url, deadline_seconds),
        client.stream(method, url, headers=dict(headers or {}), content=body) as answer,
    ):
        content = await _read(answer, max_bytes, url)
        return Fetched(url, answer.status_code, dict(answer.headers), content)


def json_object(answer: Fetched) -> dict[str, Any]:
    """Return the JSON object in an answer; raises PeerFault when its type or its bytes are something else."""
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise _odd_answer(answer.url, f"answered {media_type or 'no content type'} instead of JSON", answer.status)
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise _odd_answer(answer.url, "answered broken JSON", answer.status) from error
    if not isinstance(value, dict):
        raise _odd_answer(answer.url, "answered JSON that is no object", answer.status)
    return value


async def _read(answer: httpx.Response, max_bytes: int, url: str) -> bytes:
    if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise _odd_answer(url, "answered compressed, though asked not to", answer.status_code)
    content = bytearray()
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) > max_bytes:
            raise _odd_answer(url, f"answered more than {max_bytes} bytes", answer.status_code)
    return bytes(content)


@asynccontextmanager
async def explained(url: str, seconds: float | None) -> AsyncIterator[None]:
    """Give what is asked of `url` inside the block a deadline, and turn httpx's errors into our own.

    For those who stream; `fetch` does it by itself. Raises WorldFault where there was no answer, OurFault for a URL
    that cannot be called.
    """
    where = without_userinfo(url)
    try:
        async with asyncio.timeout(seconds):
            yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise OurFault(f"not a URL that can be called ({error})", where=where, remedy="Correct it.") from error
    except (TimeoutError, httpx.TimeoutException) as error:
        waited = f" within {seconds:g} s" if seconds is not None else ""
        raise WorldFault(f"no answer{waited}", where=where, remedy="It is tried again later.") from error
    except httpx.HTTPError as error:
        raise WorldFault(
            f"cannot be reached ({str(error) or type(error).__name__})",
            where=where,
            remedy="See that the service runs, that the address is right and its certificate is trusted.",
        ) from error


async def _refuse_plaintext(request: httpx.Request) -> None:
    if request.url.scheme != "https" and not is_loopback(request.url.host):
        raise OurFault(
            "plaintext HTTP to another machine could be read on the way",
            where=without_userinfo(str(request.url)),
            remedy="Use its https:// address.",
        )


def _trust(tls_ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(tls_ca))
    except OSError as error:  # also ssl.SSLError
        raise OurFault(
            f"the CA file cannot be used ({error})", where=str(tls_ca), remedy="Give a file of PEM certificates."
        ) from error


def _trust_peer(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=ca)
    except (OSError, ValueError, TypeError) as error:  # TypeError: not ASCII
        raise PeerFault(f"the CA that it names cannot be used ({error})", remedy="Ask whoever runs it.") from error


def _odd_answer(url: str, what: str, status: int) -> PeerFault:
    return PeerFault(f"{what} (status {status})", where=without_userinfo(url), remedy="Ask whoever runs it.")
