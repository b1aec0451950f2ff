"""What stands before every application: body size, deadline, security headers. Pure ASGI, so streams stay streams.

| guard | when | answer |
|---|---|---|
| body | declared or counted bytes exceed the path's limit | 413 `too-large` |
| deadline | no response has *begun* in the path's time | 503 `deadline` |
| headers | always | added where the application has not set them |

A begun response has no deadline: logs are followed for hours. Limits for a path are those of the longest prefix given,
else the defaults. Refusals are JSON `{"reason", "detail"}`, as everywhere.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import TypeVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DEFAULT_BODY_BYTES = 1024 * 1024
DEFAULT_DEADLINE_SECONDS = 30.0

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_HSTS = "max-age=31536000"
_LimitT = TypeVar("_LimitT")


def guarded(
    app: ASGIApp,
    *,
    body_bytes: int = DEFAULT_BODY_BYTES,
    body_bytes_by_prefix: Mapping[str, int] | None = None,
    deadline_seconds: float = DEFAULT_DEADLINE_SECONDS,
    deadline_seconds_by_prefix: Mapping[str, float] | None = None,
) -> ASGIApp:
    """Return `app` behind all guards, for `serve_http`."""
    limited = BodyLimit(app, body_bytes, body_bytes_by_prefix or {})
    timed = Deadline(limited, deadline_seconds, deadline_seconds_by_prefix or {})
    return SecurityHeaders(timed)


class BodyLimit:
    """Refuses a request body larger than its path may have, before or while it is read."""

    def __init__(self, app: ASGIApp, body_bytes: int, by_prefix: Mapping[str, int]) -> None:
        self._app = app
        self._body_bytes = body_bytes
        self._by_prefix = by_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = _for_path(scope["path"], self._by_prefix, self._body_bytes)
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
            return await _refuse_too_large(send, limit)
        counted = _CountedBody(limit, receive, send)
        try:
            await self._app(scope, counted.receive, counted.send)
        except HTTPException:
            if not counted.exceeded:
                raise
        if counted.exceeded and not counted.started:
            await _refuse_too_large(send, limit)
        return None


class _CountedBody:
    """One request's channels; whatever the application answers to a body cut short becomes 413."""

    def __init__(self, limit: int, receive: Receive, send: Send) -> None:
        self.exceeded = False
        self.started = False
        self._left = limit
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.exceeded = True
            # Starlette and FastAPI let this one through as it is; others become 500 or 400.
            raise HTTPException(413)
        return message

    async def send(self, message: Message) -> None:
        if self.exceeded and not self.started:
            return
        self.started = True
        await self._send(message)


class Deadline:
    """Ends a request whose response has not begun in time."""

    def __init__(self, app: ASGIApp, seconds: float, by_prefix: Mapping[str, float]) -> None:
        self._app = app
        self._seconds = seconds
        self._by_prefix = by_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        seconds = _for_path(scope["path"], self._by_prefix, self._seconds)
        timeout = asyncio.timeout(seconds)

        async def send_in_time(message: Message) -> None:
            if not timeout.expired():
                timeout.reschedule(None)
            await send(message)

        try:
            async with timeout:
                await self._app(scope, receive, send_in_time)
        except TimeoutError:
            if not timeout.expired():
                raise
            await _refuse(send, 503, "deadline", f"no answer within {seconds:g} s; try again later")
        return None


class SecurityHeaders:
    """Adds the headers that keep a browser from guessing, framing, caching and leaking."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = list(message.get("headers", []))
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if scope.get("scheme") == "https":
                    headers.setdefault("strict-transport-security", _HSTS)
            await send(message)

        return await self._app(scope, receive, send_with_headers)


def _for_path(path: str, by_prefix: Mapping[str, _LimitT], default: _LimitT) -> _LimitT:
    matching = [prefix for prefix in by_prefix if path.startswith(prefix)]
    return by_prefix[max(matching, key=len)] if matching else default


async def _refuse_too_large(send: Send, limit: int) -> None:
    await _refuse(send, 413, "too-large", f"the body may have at most {limit} bytes here")


async def _refuse(send: Send, status: int, reason: str, detail: str) -> None:
    body = json.dumps({"reason": reason, "detail": detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # the rest of the request is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
