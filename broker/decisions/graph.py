"""Which jobs of a run may start, which never will, and what the run is as a whole (DESIGN §7).

Rules:
1. A job is ready when all that it needs has succeeded.
2. A job is skipped as soon as one of its needs ended in any other way; the first such need is named.
3. A skip counts at once for the jobs behind it, so one pass settles the whole graph.
4. A run is over when all its jobs are; it is as bad as its worst job.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from schemas.life import FINAL_JOB_STATES, JobState


@dataclass(frozen=True, slots=True)
class Node:
    """A job as its graph sees it."""

    name: str
    needs: tuple[str, ...]
    state: JobState


@dataclass(frozen=True, slots=True)
class Progress:
    """What follows for the jobs that wait: `skipped` maps each to the need that stopped it."""

    ready: tuple[str, ...]
    skipped: Mapping[str, str]
    blocked: Mapping[str, tuple[str, ...]]


class RunState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ERRORED = "errored"
    CANCELLED = "cancelled"


_WORST_FIRST = (
    (JobState.FAILED, RunState.FAILED),
    (JobState.ERRORED, RunState.ERRORED),
    (JobState.CANCELLED, RunState.CANCELLED),
)


def advance(nodes: Iterable[Node]) -> Progress:
    """Sort the waiting jobs of one run into ready, skipped and blocked (by which needs)."""
    all_nodes = tuple(nodes)
    states = {node.name: node.state for node in all_nodes}
    waiting = [node for node in all_nodes if node.state is JobState.WAITING]
    skipped = _skip_behind(waiting, states)
    open_needs = {
        node.name: tuple(need for need in node.needs if states[need] is not JobState.SUCCEEDED)
        for node in waiting
        if node.name not in skipped
    }
    return Progress(
        ready=tuple(name for name, needs in open_needs.items() if not needs),
        skipped=skipped,
        blocked={name: needs for name, needs in open_needs.items() if needs},
    )


def _skip_behind(waiting: list[Node], states: dict[str, JobState]) -> dict[str, str]:
    """Find the jobs that can never start, marking them in `states` until nothing changes any more."""
    skipped: dict[str, str] = {}
    is_settled = False
    while not is_settled:
        is_settled = True
        for node in waiting:
            stopped_by = next((need for need in node.needs if _has_ended_badly(states[need])), None)
            if stopped_by is not None and node.name not in skipped:
                skipped[node.name] = stopped_by
                states[node.name] = JobState.SKIPPED
                is_settled = False
    return skipped


def _has_ended_badly(state: JobState) -> bool:
    return state in FINAL_JOB_STATES and state is not JobState.SUCCEEDED


def run_state(states: Iterable[JobState]) -> RunState:
    """What a run with jobs in these states is."""
    seen = set(states)
    if not seen <= FINAL_JOB_STATES:
        return RunState.RUNNING
    return next((run for job, run in _WORST_FIRST if job in seen), RunState.SUCCEEDED)
