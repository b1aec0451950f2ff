"""The worker's end of its socket to a warden: orders out, reports in.

Plain protocol callbacks, no task: what the warden said is there as soon as it was said. Bounded by the warden, which
reports each step twice and the end once.
"""

import asyncio
import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

from agents.sandbox.causes import Cause
from agents.sandbox.executor import StepResult, Use
from agents.sandbox.orders import Order


class Wire(asyncio.Protocol):
    """`over` resolves to the warden's last report, or to None, with a call of `on_lost`, if it was lost without one."""

    def __init__(self, step_names: tuple[str, ...], on_lost: Callable[[], None]) -> None:
        self.over: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self.steps: list[StepResult] = []
        self._names = step_names
        self._on_lost = on_lost
        self._begun: tuple[datetime, float] | None = None
        self._pending = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)
            self._on_lost()

    def run(self, order: Order) -> None:
        self._send(dict(order))

    def extend(self, lease_until: float) -> None:
        self._send({"do": "extend", "until": lease_until})

    def end(self, cause: Cause) -> None:
        self._send({"do": "end", "cause": cause.value})

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _send(self, message: dict[str, Any]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(json.dumps(message).encode() + b"\n")

    def _take(self, report: dict[str, Any]) -> None:
        if report["is"] == "begin":
            self._begun = (datetime.fromtimestamp(report["at"] / 1000, UTC), report["clock"])
        elif report["is"] == "end":
            self._end_step(report["clock"], report["code"])
        else:
            # The jail died within a step: its shell had no chance to report the code.
            self._end_step(report["clock"], 128 + signal.SIGKILL)
            if not self.over.done():
                self.over.set_result(report)

    def _end_step(self, clock: float, code: int) -> None:
        if self._begun is None:
            return
        (at, begun), self._begun = self._begun, None
        exit_code, number = (code, None) if code <= 128 else (None, code - 128)
        seconds = max(0.0, clock - begun)
        self.steps.append(StepResult(self._names[len(self.steps)], exit_code, number, at, seconds))


def use_of(report: dict[str, Any]) -> Use:
    return Use(
        wall_seconds=report["wall_seconds"],
        cpu_seconds=report["cpu_seconds"],
        memory_peak_bytes=report["memory_peak_bytes"],
        is_estimated=report["is_estimated"],
    )
