"""What an attempt used, as facts that no repetition multiplies (DESIGN §9). Pure.

One fact for each meter, with the attempt as its subject and interval 0; `schemas.statements.usage_id` names it, so
making it again after a crash gives the same id. Every granted attempt is metered, also one whose end is not billed: its
events carry the reason, and `schemas.ends` tells everybody alike that nobody pays.

`wall-seconds` counts from the grant to the end, fetching and uploading included, for each core that was reserved: the
slot was kept free for the job all that time. `cpu-seconds` and `memory-peak-bytes` are estimates unless a cgroup
counted them.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal

from agents.sandbox.executor import Use
from schemas.ends import EndReason
from schemas.orders import Job
from schemas.reports import Used
from schemas.statements import Meter, Usage, usage_id

_MILLI = Decimal("0.001")


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one attempt, from its grant to its end."""

    started_at: datetime
    ended_at: datetime
    cpu_seconds: Decimal
    memory_peak_bytes: int
    is_estimate: bool
    log_bytes: int

    @property
    def wall_seconds(self) -> Decimal:
        return max(Decimal(0), seconds_of((self.ended_at - self.started_at).total_seconds()))

    def used(self) -> Used:
        return Used(
            wall_seconds=self.wall_seconds,
            cpu_seconds=self.cpu_seconds,
            memory_peak_bytes=self.memory_peak_bytes,
            is_estimate=self.is_estimate,
        )


@dataclass(frozen=True, slots=True)
class Meterer:
    """Who measured."""

    provider: str
    agent: str


def seconds_of(value: float) -> Decimal:
    """Seconds to whole milliseconds; the wire takes no binary fractions."""
    return Decimal(str(value)).quantize(_MILLI, ROUND_HALF_EVEN)


def measure(started_at: datetime, ended_at: datetime, use: Use | None, log_bytes: int) -> Measured:
    """Join the worker's own measurements with the sandbox's, where there was a sandbox."""
    return Measured(
        started_at=started_at,
        ended_at=max(started_at, ended_at),
        cpu_seconds=seconds_of(use.cpu_seconds) if use else Decimal(0),
        memory_peak_bytes=use.memory_peak_bytes if use else 0,
        is_estimate=use.is_estimated if use else True,
        log_bytes=log_bytes,
    )


def usage_of(meterer: Meterer, job: Job, claim: str, measured: Measured, reason: EndReason) -> tuple[Usage, ...]:
    """The usage events of an attempt that is over."""
    return tuple(
        Usage(
            provider=meterer.provider,
            id=usage_id(meterer.provider, job.attempt, meter, 0),
            source=f"fedci:provider:{meterer.provider}/worker/{meterer.agent}",
            subject=job.attempt,
            agent=meterer.agent,
            iss=job.iss,
            sub=job.sub,
            meter=meter,
            interval=0,
            started_at=measured.started_at,
            ended_at=measured.ended_at,
            quantity=quantity,
            is_estimate=is_estimate,
            rate_card=job.rate_card,
            project=job.project,
            attempt=job.attempt,
            claim=claim,
            reason=reason,
        )
        for meter, quantity, is_estimate in _facts(job, measured)
    )


def _facts(job: Job, measured: Measured) -> tuple[tuple[Meter, Decimal, bool], ...]:
    return (
        ("attempts", Decimal(1), False),
        ("wall-seconds", measured.wall_seconds * job.resources.cores, False),
        ("cpu-seconds", measured.cpu_seconds, measured.is_estimate),
        ("memory-peak-bytes", Decimal(measured.memory_peak_bytes), measured.is_estimate),
        ("log-bytes", Decimal(measured.log_bytes), False),
    )
