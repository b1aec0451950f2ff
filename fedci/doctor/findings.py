"""What a check says: a name, how it stands, what was seen, how to mend it; and how checks are run."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from runtime.errors import FedciError

DEADLINE_SECONDS = 15.0


class Level(StrEnum):
    """`warn`: it works, with less than it could; `wrong`: a person must act."""

    OK = "ok"
    WARN = "warn"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    level: Level
    seen: str
    remedy: str = ""


def ok(name: str, seen: str) -> Finding:
    return Finding(name, Level.OK, seen)


def warn(name: str, seen: str, remedy: str) -> Finding:
    return Finding(name, Level.WARN, seen, remedy)


def wrong(name: str, seen: str, remedy: str) -> Finding:
    return Finding(name, Level.WRONG, seen, remedy)


def faulty(name: str, error: FedciError) -> Finding:
    """What one of our own errors says, as a finding."""
    where = f"{error.where}: " if error.where else ""
    return wrong(name, f"{where}{error.what}", error.remedy)


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at; `look` may raise a FedciError, which is then the finding."""

    name: str
    look: Callable[[], Awaitable[Sequence[Finding]]]
    deadline_seconds: float = DEADLINE_SECONDS


async def run_checks(checks: Iterable[Check]) -> list[Finding]:
    """What all checks found, in their order; they run side by side."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(check)) for check in checks]
    return [finding for task in tasks for finding in task.result()]


async def _run(check: Check) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(check.deadline_seconds):
            return await check.look()
    except TimeoutError:
        return [wrong(check.name, f"no answer within {check.deadline_seconds:g} s", "See what holds it up.")]
    except FedciError as error:
        return [faulty(check.name, error)]
    except Exception as error:  # noqa: BLE001 - a check that breaks must not hide what the others found
        return [wrong(check.name, f"the check itself failed: {error!r}", "Tell fedci's authors.")]
