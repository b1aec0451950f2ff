"""The tables of states: what an attempt and a job may become, and from where (DESIGN §7).

Data, not code: a transition that is not in the table does not happen, whoever asks for it. The tables are closed: every
state named anywhere in them has its own row, and every final state is reachable.
"""

from enum import StrEnum


class AttemptState(StrEnum):
    """One try of a job. `published` means signed and in the outbox, on its way to the provider."""

    PUBLISHED = "published"
    CLAIMED = "claimed"
    GRANTED = "granted"
    FINISHED = "finished"
    RELEASED = "released"
    REFUSED = "refused"
    LOST = "lost"


class JobState(StrEnum):
    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ERRORED = "errored"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


ATTEMPT_TRANSITIONS: dict[AttemptState, frozenset[AttemptState]] = {
    # A claim may come again from another worker when the first one was lost on its way: that is `claimed` again.
    AttemptState.PUBLISHED: frozenset({AttemptState.CLAIMED, AttemptState.REFUSED, AttemptState.LOST}),
    AttemptState.CLAIMED: frozenset(
        {AttemptState.CLAIMED, AttemptState.GRANTED, AttemptState.RELEASED, AttemptState.LOST}
    ),
    AttemptState.GRANTED: frozenset({AttemptState.FINISHED, AttemptState.RELEASED, AttemptState.LOST}),
    AttemptState.FINISHED: frozenset(),
    AttemptState.RELEASED: frozenset(),
    AttemptState.REFUSED: frozenset(),
    # A result that comes after all is recorded and fenced; the attempt stays lost.
    AttemptState.LOST: frozenset(),
}

JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset({JobState.QUEUED, JobState.CANCELLED, JobState.SKIPPED, JobState.ERRORED}),
    # Back to `waiting`: refused or lost, and nobody else to ask at the moment.
    JobState.QUEUED: frozenset({JobState.WAITING, JobState.RUNNING, JobState.CANCELLED, JobState.ERRORED}),
    JobState.RUNNING: frozenset(
        {
            JobState.WAITING,
            JobState.QUEUED,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.ERRORED,
            JobState.CANCELLED,
        }
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.ERRORED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.SKIPPED: frozenset(),
}

FINAL_JOB_STATES = frozenset(state for state, following in JOB_TRANSITIONS.items() if not following)
FINAL_ATTEMPT_STATES = frozenset(state for state, following in ATTEMPT_TRANSITIONS.items() if not following)


def can_attempt_become(current: AttemptState, following: AttemptState) -> bool:
    return following in ATTEMPT_TRANSITIONS[current]


def can_job_become(current: JobState, following: JobState) -> bool:
    return following in JOB_TRANSITIONS[current]
