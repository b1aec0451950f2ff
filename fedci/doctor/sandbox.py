"""The sandbox: what `agents.sandbox.probe` found, in the doctor's words."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from agents.sandbox import probe as sandbox_probe
from agents.sandbox.local import Place
from fedci.doctor.findings import Finding, Level, ok

DEADLINE_SECONDS = 40.0
"""The trial job alone may take 20."""


async def look_at_sandbox(executor: str, place: Place | None = None, *, is_wanted: bool) -> Sequence[Finding]:
    """Try `executor` in a scratch directory, with a worker's other settings where `place` has them."""
    with tempfile.TemporaryDirectory(prefix="fedci-doctor-") as scratch:
        Path(scratch).chmod(0o755)  # with root, jobs run as users of their own
        here = Place(state=Path(scratch))
        if place is not None:
            here = Place(Path(scratch), place.first_uid, place.cgroup_parent, place.may_nest)
        found = await sandbox_probe.probe(executor, here)
    return list(translate(executor, found, is_wanted=is_wanted))


def translate(executor: str, found: Iterable[sandbox_probe.Finding], *, is_wanted: bool) -> Iterable[Finding]:
    """A fatal one is wrong where a worker is to run here; whatever else is missing costs something, and works."""
    for each in found:
        name = f"sandbox {executor}: {each.name}"
        if each.is_ok:
            yield ok(name, "works")
        else:
            level = Level.WRONG if each.is_fatal and is_wanted else Level.WARN
            yield Finding(name, level, each.missing, each.remedy)
