"""Completes the logs of ended claims and settles them with their workers (DESIGN §7.4).

Chunks come over a queue of their own and may be behind the report of the end. So an ended claim is looked at whenever
its log grew; only when nothing came for a while is the missing range asked for again, a bounded number of times
(`decisions.settling`). A settled claim is forgotten by its worker; one that stays incomplete is shown with its gap.
"""

import asyncio
from datetime import timedelta

from broker.bells import Bells, wait_for
from broker.decisions.settling import (
    AskAgain,
    Complete,
    GiveUp,
    LogReceived,
    contiguous,
    decide_settling,
    resend_seconds,
)
from broker.ingest.follow_ups import FollowUp, FollowUps
from broker.logs.files import LogFiles
from broker.store import claims as claim_store
from broker.tables import ClaimRow, ClaimState
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import WorldFault
from runtime.logging import get_logger
from schemas.orders import Resend, Settled

_log = get_logger(__name__)
PATIENCE_SECONDS = 5
"""How long chunks may be behind the end before they are asked for."""
_LOOK_SECONDS = 60.0


class Settlement:
    """Settles claims; one task runs it."""

    def __init__(
        self, *, database: Database, logs: LogFiles, follow_ups: FollowUps, bells: Bells, clock: Clock
    ) -> None:
        self._database = database
        self._logs = logs
        self._follow_ups = follow_ups
        self._bells = bells
        self._clock = clock
        self.wake = asyncio.Event()
        self.wake.set()

    async def run(self) -> None:
        """Settle until cancelled."""
        rest: float = 0
        while True:
            await wait_for(self.wake, rest)
            self.wake.clear()
            try:
                rest = PATIENCE_SECONDS if await self.look() else _LOOK_SECONDS
            except (WorldFault, OSError) as error:
                _log.error("settlement_failed", reason=str(error))
                rest = PATIENCE_SECONDS

    async def look(self) -> int:
        """Look at all ended claims once; return how many stay open."""
        async with self._database.read() as session:
            ended = await claim_store.ended_claims(session)
        left = 0
        for claim in ended:
            left += not await self._settle(claim)
        return left

    async def _settle(self, claim: ClaimRow) -> bool:
        ranges = claim_store.ranges_of(claim)
        if claim.log_bytes is None:
            # Nothing ran, or nothing of it counts: there is no log to wait for.
            return await self._close(claim, ClaimState.SETTLED, None)
        length = claim.log_bytes
        is_whole = contiguous(ranges) >= length
        digest = await asyncio.to_thread(self._logs.digest, claim.id, length) if is_whole else None
        following = decide_settling(
            LogReceived(ranges, digest), log_bytes=length, log_sha256=claim.log_sha256 or "", resends=claim.resends
        )
        match following:
            case Complete():
                return await self._close(claim, ClaimState.SETTLED, None)
            case GiveUp(detail) if self._has_waited(claim):
                return await self._close(claim, ClaimState.INCOMPLETE, detail)
            case AskAgain(log_from, log_to) if self._has_waited(claim):
                await self._ask_again(claim, log_from, log_to)
        return False

    def _has_waited(self, claim: ClaimRow) -> bool:
        """Whether the chunks had time enough since the end was told, or since we last asked."""
        since, seconds = claim.heard_at, float(PATIENCE_SECONDS)
        if claim.resent_at is not None:
            since, seconds = claim.resent_at, resend_seconds(claim.resends)
        return self._clock.now() - since >= timedelta(seconds=seconds)

    async def _close(self, claim: ClaimRow, state: ClaimState, gap: str | None) -> bool:
        """Tell the worker to forget the claim, then close it; False when the order could not be signed yet."""
        order = FollowUp(claim.provider, claim.worker, Settled, claim.attempt_id, claim.id)
        # The order first: were it lost after the state, nobody would ask for it again.
        if not await self._follow_ups.send([order]):
            return False
        async with self._database.write() as session:
            await claim_store.close(session, claim.id, state, gap)
        _log.info("claim_closed", claim=claim.id, state=state, gap=gap)
        self._bells.log_grew(claim.id)
        self._bells.receipts.set()
        return True

    async def _ask_again(self, claim: ClaimRow, log_from: int, log_to: int) -> None:
        fields = (("log_from", log_from), ("log_to", log_to))
        async with self._database.write() as session:
            await claim_store.note_resend(session, claim.id, self._clock.now())
        await self._follow_ups.send(
            [FollowUp(claim.provider, claim.worker, Resend, claim.attempt_id, claim.id, fields)]
        )
        _log.warning("log_resend", claim=claim.id, log_from=log_from, log_to=log_to)
