"""Why a job ended, in the contract's words: from the sandbox's outcome to `EndReason`.

Whose fault each reason is, and so who pays, is not decided here but in the table `schemas.ends.ENDS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agents.sandbox.causes import Cause
from agents.sandbox.executor import End, Outcome
from agents.sandbox.executor import StepResult as StepOutcome
from agents.worker.jobs.metering import seconds_of
from schemas.ends import EndReason
from schemas.reports import StepResult

NAME_CHARACTERS = 200
"""Of a step's name in a report: the longest names of the most steps would not fit into one message."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How it went, and one sentence for whoever wrote the job."""

    reason: EndReason
    detail: str = ""


KILLED: Mapping[Cause, Ending] = {
    Cause.CANCELLED: Ending(EndReason.CANCELLED, "cancelled"),
    Cause.SHUTDOWN: Ending(EndReason.WORKER_SHUTDOWN, "the worker was stopped by its owner"),
    Cause.WALL_TIMEOUT: Ending(EndReason.TIMEOUT, "the job outlived its timeout"),
    Cause.LEASE_LOST: Ending(EndReason.LEASE_LOST, "the worker could not confirm in time that the job runs"),
    Cause.WORKER_GONE: Ending(EndReason.WORKER_RESTARTED, "the worker's process ended"),
    Cause.WARDEN_LOST: Ending(EndReason.SANDBOX_FAILED, "the process that guards the sandbox ended"),
    Cause.LOG_FLOOD: Ending(EndReason.LOG_LIMIT, "the job wrote more than its log may hold"),
    Cause.OUT_OF_MEMORY: Ending(EndReason.OUT_OF_MEMORY, "the job used more memory than it reserved"),
    Cause.WORKSPACE_FULL: Ending(EndReason.WORKSPACE_FULL, "the job used more disk than it reserved"),
    Cause.START_FAILED: Ending(EndReason.SANDBOX_FAILED, "the sandbox could not be started"),
}


def read_outcome(outcome: Outcome) -> Ending:
    """The ending that a sandbox's outcome stands for."""
    if outcome.end is End.SUCCEEDED:
        return Ending(EndReason.SUCCEEDED)
    if outcome.end is End.KILLED:
        return KILLED[outcome.cause or Cause.WARDEN_LOST]
    failed = outcome.failed_step
    if failed is None:
        return Ending(EndReason.SANDBOX_FAILED, "no step failed, and yet the sandbox says that the job did")
    if failed.signal is not None:
        return Ending(EndReason.SIGNAL, f"step {failed.name!r} was ended by signal {failed.signal}")
    return Ending(EndReason.EXIT_CODE, f"step {failed.name!r} exited with {failed.exit_code}")


def report_steps(steps: tuple[StepOutcome, ...]) -> tuple[StepResult, ...]:
    """The steps as `Finished` reports them."""
    return tuple(
        StepResult(
            name=step.name[:NAME_CHARACTERS],
            exit_code=None if step.exit_code is None else min(step.exit_code, 255),
            seconds=seconds_of(step.seconds),
        )
        for step in steps
    )
