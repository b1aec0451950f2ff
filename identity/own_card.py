"""A provider's own card, as its agents read it: from their desk, believed under the pinned root key alone.

Read once at the start and again when there is a reason (an agent that the card in hand does not list, a price that may
have changed), at most once in a few seconds: an agent enrolled a minute ago must not have its work refused, and a flood
of invented names must not become a flood of requests. The card in hand never goes back to an older serial.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

from identity.trust import verify_statement
from runtime.clock import Clock
from runtime.errors import FedciError, OurFault, PeerFault, WorldFault
from runtime.logging import get_logger
from schemas.refusals import Reason, Refusal
from schemas.statements import Agent, Card, RateCard

PAUSE = timedelta(seconds=5)
_log = get_logger(__name__)


class CardSource(Protocol):
    """Where signed cards and rate cards are read: `bus.desk_client.DeskClient`."""

    async def card(self) -> bytes: ...

    async def statement(self, digest: str) -> bytes | Refusal: ...


class OwnCard:
    """The card in hand and its renewal."""

    def __init__(self, provider: str, root_key: bytes, desk: CardSource, clock: Clock) -> None:
        self._provider = provider
        self._root_key = root_key
        self._desk = desk
        self._clock = clock
        self._card: Card | None = None
        self._asked_at: float | None = None
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    @property
    def agents(self) -> Mapping[str, Agent]:
        """The provider's agents by name; none before the first card was read."""
        return {agent.name: agent for agent in self._card.agents} if self._card else {}

    @property
    def rate_card_digest(self) -> str | None:
        """What is charged at present, by the SHA-256 of its envelope; None before the first card was read."""
        return self._card.rate_card if self._card else None

    def is_as_of(self, at: float) -> bool:
        """Whether the card in hand was the desk's at `at` (boot time) or later: else whom it omits may be new."""
        return self._read_at is not None and self._read_at >= at

    async def renew(self) -> None:
        """Read the card again, unless that was just done. A desk that is away leaves the card in hand.

        Who calls while it is being read waits for the same answer. Raises OurFault where the desk's card is not signed
        by the pinned root: a person must look at that.
        """
        async with self._reading:
            now = self._clock.boottime()
            if self._asked_at is None or now - self._asked_at >= PAUSE.total_seconds():
                self._asked_at = now
                await self._renew()

    async def _renew(self) -> None:
        asked_at = self._clock.boottime()
        try:
            card = await self._read()
        except (WorldFault, PeerFault) as error:
            _warn(error)
            return
        self._read_at = asked_at
        if self._card is None or card.serial >= self._card.serial:
            self._card = card

    async def rate_card(self, digest: str) -> bytes | Refusal:
        """The rate card of this digest, signed by the root key.

        Raises WorldFault while the desk cannot be reached.
        """
        raw = await self._desk.statement(digest)
        if isinstance(raw, Refusal):
            return raw
        stated = verify_statement(raw, RateCard, key=self._root_key)
        if isinstance(stated, Refusal):
            return stated
        return raw if stated.digest == digest else Refusal(Reason.DIGEST_MISMATCH, "the desk gave another rate card")

    async def _read(self) -> Card:
        stated = verify_statement(await self._desk.card(), Card, key=self._root_key)
        if isinstance(stated, Refusal):
            raise OurFault(
                f"the desk's card is not signed by our own root key ({stated})",
                where=self._provider,
                remedy="Compare `root_key` in the settings with the key that `fedci desk init` made.",
            )
        return stated.message


def _warn(error: FedciError) -> None:
    _log.warning("own_card_unread", why=str(error))
