"""What the worker is doing, for people: a small JSON file that the running worker renews, and the journal's claims.

The file says what only the process knows (the bus, the slots), the journal what is durable. Reading both needs no
network and disturbs nothing.
"""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from agents.worker.orders.slots import SlotState
from schemas.wire import from_milliseconds

FILE = "worker.status.json"


@dataclass(frozen=True, slots=True)
class Doing:
    """What a running worker does at one moment."""

    at: datetime
    is_bus_up: bool
    bus_reason: str
    tenants: int
    slots: tuple[SlotState, ...]
    stop_level: str

    def to_json(self) -> dict[str, Any]:
        return {
            "at": self.at.isoformat(timespec="seconds"),
            "bus": "up" if self.is_bus_up else self.bus_reason or "not up",
            "tenants": self.tenants,
            "slots": [
                {"slot": slot.number, "attempt": slot.attempt, "since": slot.since.isoformat(timespec="seconds")}
                for slot in self.slots
            ],
            "stop": self.stop_level,
        }


class StatusFile:
    """Writes the file when something but the time has changed."""

    def __init__(self, directory: Path, look: Callable[[], Doing]) -> None:
        self._path = directory / FILE
        self._look = look
        self._written: dict[str, Any] = {}

    def renew(self) -> None:
        now = self._look().to_json()
        if {**now, "at": None} == {**self._written, "at": None}:
            return
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(now, indent=1), encoding="utf-8")
        fresh.replace(self._path)
        self._written = now

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class ClaimLine:
    claim: str
    attempt: str
    state: str
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the journal holds."""

    claims: tuple[ClaimLine, ...]
    unsent: int
    given_up: int


def read_doing(directory: Path) -> dict[str, Any] | None:
    """What the running worker wrote last; None where none runs."""
    try:
        doing: dict[str, Any] = json.loads((directory / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return doing


def read_journal(path: Path) -> Remembered:
    """Read a journal beside the worker that writes it."""
    if not path.exists():
        return Remembered((), 0, 0)
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        claims = db.execute("SELECT claim, attempt, state, claimed_at FROM claims ORDER BY claimed_at").fetchall()
        unsent, given_up = db.execute("SELECT count(*) - total(given_up), total(given_up) FROM outbox").fetchone()
    finally:
        db.close()
    lines = (ClaimLine(claim, attempt, state, from_milliseconds(at)) for claim, attempt, state, at in claims)
    return Remembered(tuple(lines), int(unsent), int(given_up))
