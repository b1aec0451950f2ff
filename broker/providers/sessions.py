"""One session at each provider's bus, each with its own task and budget: one provider's trouble stays its own.

A session takes in replies and logs in batches, tells the book whether it is up and how well it hears, and carries what
the outbox has for that provider. An error that we did not foresee ends only this provider's work, is logged as a
crash, and the session is built anew after a pause.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from broker.bells import Bells
from broker.decisions.leases import Hearing, Line, hear
from broker.ingest.intake import Intake
from broker.logs.intake import LogIntake
from broker.providers.book import Book, KnownProvider
from broker.voice import Voice
from bus.desk_client import DeskClient
from bus.session import BusSession, Delivery, Fate
from bus.topology import ProviderNames
from runtime.clock import Clock
from runtime.logging import get_logger
from schemas.ids import provider_audience
from schemas.refusals import Refusal
from schemas.sessions import SessionGranted
from schemas.tickets import SessionTicket

_log = get_logger(__name__)
_REPLIES_AT_ONCE = 100
_LOGS_AT_ONCE = 64
_HEARING_SECONDS = 2.0
_INSTANTS = 4
_RESTART_SECONDS = 10.0
Take = Callable[[Sequence[bytes]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ProviderParts:
    """What a session works with: how its desk is asked, and who takes in what comes."""

    desk: DeskClient
    replies: Intake
    logs: LogIntake


class ProviderSession:
    """The session at one provider."""

    def __init__(
        self,
        known: KnownProvider,
        parts: ProviderParts,
        *,
        voice: Voice,
        book: Book,
        bells: Bells,
        on_up: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._name = known.name
        self._parts = parts
        self._voice = voice
        self._book = book
        self._bells = bells
        self._on_up = on_up
        self._clock = clock
        self._heard = Hearing()
        self._instants: dict[datetime, float] = {}
        names = ProviderNames(known.name)
        self._replies = names.replies(voice.tenant)
        self.bus = BusSession(self._credentials, name=f"controller {voice.tenant}", clock=clock)
        self.bus.consume_batches(self._replies, _handler(parts.replies.take), most_at_once=_REPLIES_AT_ONCE)
        self.bus.consume_batches(
            names.logs(voice.tenant), _handler(parts.logs.take), most_at_once=_LOGS_AT_ONCE, prefetch=2 * _LOGS_AT_ONCE
        )
        book.learn_hearing(known.name, self.hearing)

    async def run(self) -> None:
        """Keep the session up until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.bus.run())
            group.create_task(self._follow_status())
            group.create_task(self._follow_hearing())

    def refused(self) -> dict[str, int]:
        """How many messages of this provider were refused, by reason."""
        return dict(Counter(self._parts.replies.counts.refused) + Counter(self._parts.logs.refused))

    def hearing(self) -> Hearing:
        """Since when we hear this provider without a break, and up to when all was read."""
        status, caught_up_at = self.bus.status, self.bus.caught_up_at(self._replies)
        up_since = self._boottime_of(status.since) if status.is_up else None
        read_to = self._boottime_of(caught_up_at) if caught_up_at is not None else None
        self._heard = hear(Line(up_since, read_to), self._heard)
        return self._heard

    def _boottime_of(self, at: datetime) -> float:
        """An instant of the wall clock on the one that does not jump, as the two stood when it was first seen."""
        if at not in self._instants:
            self._instants = dict(list(self._instants.items())[-_INSTANTS:])
            self._instants[at] = self._clock.boottime() - max(0.0, (self._clock.now() - at).total_seconds())
        return self._instants[at]

    async def _credentials(self, known_revision: int | None) -> SessionGranted | Refusal:
        del known_revision  # a controller's facts never change by themselves
        ticket = await self._voice.speaker.ticket(provider_audience(self._name), SessionTicket)
        return await self._parts.desk.session(ticket)

    async def _follow_status(self) -> None:
        status = self.bus.status
        while True:
            self._book.learn_session(self._name, None if status.is_up else status.reason)
            self._bells.offers_changed()
            if status.is_up:
                self._on_up()
            status = await self.bus.status_changed(status)

    async def _follow_hearing(self) -> None:
        """Ring the lease watch when the queue was read further: silence only counts up to there."""
        before: float | None = None
        while True:
            await asyncio.sleep(_HEARING_SECONDS)
            read_to = self.hearing().read_to
            if read_to is not None and read_to != before:
                self._bells.watch.set()
            before = read_to


def _handler(take: Take) -> Callable[[list[Delivery]], Awaitable[Fate]]:
    """Every delivery is settled once it was taken in: what was refused in it is counted and logged there."""

    async def handle(deliveries: list[Delivery]) -> Fate:
        await take([delivery.body for delivery in deliveries])
        return Fate.SETTLED

    return handle


MakeSession = Callable[[KnownProvider], ProviderSession]


class Sessions:
    """The sessions at all providers."""

    def __init__(self, book: Book, make: MakeSession) -> None:
        self._book = book
        self._make = make
        self._sessions: dict[str, ProviderSession] = {}
        self._group: asyncio.TaskGroup | None = None

    def find(self, provider: str) -> BusSession | None:
        """The session at this provider, for the outbox."""
        session = self._sessions.get(provider)
        return None if session is None else session.bus

    def counts(self) -> dict[str, dict[str, int]]:
        """Refused messages by provider and reason, for metrics."""
        return {name: session.refused() for name, session in self._sessions.items()}

    async def run(self) -> None:
        """Run a session for every provider in the book, and for those that `start` names, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for known in self._book.all():
                    self.start(known)
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    def start(self, known: KnownProvider) -> None:
        """Begin a session at a provider that was just added; nothing happens when there is one, or before `run`."""
        if self._group is not None and known.name not in self._sessions:
            self._sessions[known.name] = self._make(known)
            self._group.create_task(self._keep(known))

    async def _keep(self, known: KnownProvider) -> None:
        while True:
            try:
                await self._sessions[known.name].run()
            except* Exception as group:  # noqa: BLE001  # a provider's trouble, even a crash of ours, stays its own
                _log.error("session_crashed", provider=known.name, reason=repr(group.exceptions[0]))
            self._book.learn_session(known.name, "its session failed on our side and is being built anew")
            await asyncio.sleep(_RESTART_SECONDS)
            self._sessions[known.name] = self._make(known)
