"""A live claim, as the rest of the worker sees it: where its answer goes, and how it is told to stop.

A claim is answered once. What comes later is for the caller to name: the same grant again is a redelivery, another one
is an alarm. A claim is stopped once too: the first cause stands, because what is billable follows from it.
"""

import asyncio
from dataclasses import dataclass

from agents.sandbox.causes import Cause
from agents.worker.speech.voice import ClaimRef
from schemas.orders import Grant, StandDown


@dataclass(frozen=True, slots=True)
class Answer:
    """The controller's answer to a claim, verified, with the SHA-256 of its envelope and when it was here."""

    order: Grant | StandDown
    digest: str
    arrived_at: float


class Handle:
    """Of one claim, from before it is published until its job is reported."""

    def __init__(self, ref: ClaimRef) -> None:
        self.ref = ref
        self._answer: Answer | None = None
        self._stop_cause: Cause | None = None
        self._answered = asyncio.Event()
        self._stopped = asyncio.Event()

    @property
    def answer(self) -> Answer | None:
        return self._answer

    @property
    def stop_cause(self) -> Cause | None:
        return self._stop_cause

    def give_answer(self, answer: Answer) -> bool:
        """Answer the claim; False where it has its answer already."""
        if self._answer is not None:
            return False
        self._answer = answer
        self._answered.set()
        return True

    def stop(self, cause: Cause) -> None:
        """Ask the claim's life to end; the first cause stands."""
        self._stop_cause = self._stop_cause or cause
        self._answered.set()
        self._stopped.set()

    async def answered_or_stopped(self) -> None:
        await self._answered.wait()

    async def stopped(self) -> None:
        await self._stopped.wait()


class Handles:
    """All live claims of this worker."""

    def __init__(self) -> None:
        self._by_claim: dict[str, Handle] = {}

    def add(self, handle: Handle) -> None:
        self._by_claim[handle.ref.claim] = handle

    def remove(self, handle: Handle) -> None:
        self._by_claim.pop(handle.ref.claim, None)

    def find(self, claim: str) -> Handle | None:
        return self._by_claim.get(claim)

    def all(self) -> tuple[Handle, ...]:
        return tuple(self._by_claim.values())

    def stop_all(self, cause: Cause) -> None:
        for handle in self.all():
            handle.stop(cause)
