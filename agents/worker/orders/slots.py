"""The slots: each takes a delivery, lives its claim to the end, and takes the next; none waits for another.

Stopping has three steps (DESIGN §7.5): told to drain, a slot finishes its job and takes no other; told to hand back, it
releases a claim that waits and ends a job that runs, and says so; killed, it is cancelled.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from agents.sandbox.causes import Cause
from agents.worker.jobs.life import Lives
from agents.worker.orders.claims import Claims
from agents.worker.orders.handle import Handles
from agents.worker.ports import Delivery
from runtime.clock import Clock
from runtime.errors import OurFault
from runtime.lifecycle import Stop, StopLevel
from runtime.logging import get_logger

PAUSE_SECONDS = 1.0
"""After a surprise: a fault that stays must not become a busy loop."""
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SlotState:
    """What a slot does, for people; `attempt` is None while it waits for work."""

    number: int
    attempt: str | None
    since: datetime


class Slots:
    """All slots of this worker."""

    def __init__(
        self,
        count: int,
        *,
        take: Callable[[], Awaitable[Delivery]],
        claims: Claims,
        lives: Lives,
        handles: Handles,
        stop: Stop,
        clock: Clock,
    ) -> None:
        self._take = take
        self._claims = claims
        self._lives = lives
        self._handles = handles
        self._stop = stop
        self._clock = clock
        self._fault: OurFault | None = None
        self._states = {number: SlotState(number, None, clock.now()) for number in range(count)}

    @property
    def states(self) -> tuple[SlotState, ...]:
        return tuple(self._states.values())

    async def run(self) -> None:
        """Serve until told to drain and all jobs are over. Cancel: every job is dead when the cancel goes on.

        Raises the first OurFault of a slot, once the jobs that run are over.
        """
        async with asyncio.TaskGroup() as group:
            handing_back = group.create_task(self._hand_back())
            slots = [group.create_task(self._serve(number)) for number in self._states]
            await asyncio.wait(slots)
            handing_back.cancel()
        if self._fault is not None:
            raise self._fault

    async def _hand_back(self) -> None:
        await self._stop.handing_back()
        self._handles.stop_all(Cause.SHUTDOWN)

    async def _serve(self, number: int) -> None:
        while (delivery := await self._next()) is not None:
            try:
                await self._serve_one(number, delivery)
            except OurFault as fault:
                # A person must act, and no further job would fare better; those that run may go on to their end.
                _log.error("worker_drains", slot=number, reason=str(fault))
                self._fault = self._fault or fault
                await delivery.requeue()
                self._stop.rise_to(StopLevel.DRAIN)
            except Exception:  # noqa: BLE001  # one job's surprise must not end the others' lives; it is told
                _log.exception("slot_failed", slot=number)
                await delivery.requeue()  # settled already, unless it failed before
                await asyncio.sleep(PAUSE_SECONDS)

    async def _serve_one(self, number: int, delivery: Delivery) -> None:
        claimed = await self._claims.take_in(delivery)
        if claimed is None:
            return
        if self._stop.level >= StopLevel.HAND_BACK:
            claimed.handle.stop(Cause.SHUTDOWN)  # it was not yet there when all were told
        self._states[number] = SlotState(number, claimed.job.attempt, self._clock.now())
        try:
            await self._lives.live(claimed, number)
        finally:
            self._states[number] = SlotState(number, None, self._clock.now())

    async def _next(self) -> Delivery | None:
        """The next delivery, or None when it is time to stop."""
        if self._stop.level >= StopLevel.DRAIN:
            return None
        taking = asyncio.ensure_future(self._take())
        draining = asyncio.ensure_future(self._stop.draining())
        try:
            await asyncio.wait((taking, draining), return_when=asyncio.FIRST_COMPLETED)
            # A delivery that is here is taken in, also now: admission refuses it if need be.
            return taking.result() if taking.done() else None
        finally:
            for wait in (taking, draining):
                wait.cancel()
            await asyncio.gather(taking, draining, return_exceptions=True)
