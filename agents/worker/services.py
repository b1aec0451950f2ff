"""The worker's services put together around its adapters: bus, executor, stores, identity, clock.

`wiring` gives the real adapters, the tests give others; what is between them is the same. Nothing starts in here.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from agents.sandbox.executor import Executor
from agents.worker.counts import Counts
from agents.worker.jobs.farewell import Farewell
from agents.worker.jobs.life import Lives
from agents.worker.jobs.metering import Meterer
from agents.worker.jobs.recovery import recover
from agents.worker.jobs.work import Workplace
from agents.worker.journal.claims import Journal
from agents.worker.journal.outbox import JournalOutbox
from agents.worker.orders.admission import Lent
from agents.worker.orders.claims import Claims
from agents.worker.orders.control import Control
from agents.worker.orders.handle import Handles
from agents.worker.orders.origins import Origins
from agents.worker.orders.refuser import Refuser
from agents.worker.ports import Publisher
from agents.worker.speech.log_stream import StreamLimits
from agents.worker.speech.logs import Logs
from agents.worker.speech.post import Patience, Post
from agents.worker.speech.voice import Voice
from bus.topology import ProviderNames
from identity.speech import Speaker
from identity.trust import Trust
from runtime.clock import Clock
from runtime.outbox import Outbox
from schemas.orders import Job


@dataclass(frozen=True)
class Adapters:
    """What the services stand on."""

    meterer: Meterer
    journal: Journal
    spool: Path
    publisher: Publisher
    trust: Trust
    speaker: Speaker
    place: Workplace
    lent: Callable[[Job], Awaitable[Lent]]
    is_draining: Callable[[], bool]
    clock: Clock
    patience: Patience = field(default_factory=Patience)
    stream_limits: StreamLimits = field(default_factory=StreamLimits)


@dataclass(frozen=True)
class Services:
    """What the wiring runs."""

    claims: Claims
    lives: Lives
    control: Control
    handles: Handles
    logs: Logs
    outbox: Outbox
    post: Post
    journal: Journal
    counts: Counts
    farewell: Farewell
    executor: Executor

    async def recover(self) -> None:
        """Deal with the claims of the life before this one; `logs.run` need not run yet."""
        await recover(
            executor=self.executor,
            claims=self.claims,
            farewell=self.farewell,
            journal=self.journal,
            logs=self.logs,
        )

    async def drain_outbox(self) -> None:
        """Publish what the outbox holds, until cancelled."""
        await self.outbox.run(self.post.publish_stored, self.journal.outbox_filled)

    async def has_unsent(self) -> bool:
        """Whether the bus has not yet taken everything that is to be said."""
        return self.logs.is_busy or bool(await self.journal.count_unsent())


def assemble(on: Adapters) -> Services:
    names = ProviderNames(on.meterer.provider)
    post, voice = Post(on.publisher, names), Voice(on.meterer, on.speaker)
    counts, handles, origins = Counts(), Handles(), Origins(names)
    logs = Logs(on.spool, on.journal, post, voice, on.clock, on.stream_limits)
    farewell = Farewell(journal=on.journal, post=post, voice=voice, counts=counts)
    refuser = Refuser(origins=origins, voice=voice, post=post, counts=counts, clock=on.clock, patience=on.patience)
    claims = Claims(
        trust=on.trust,
        origins=origins,
        lent=on.lent,
        is_draining=on.is_draining,
        refuser=refuser,
        journal=on.journal,
        voice=voice,
        post=post,
        handles=handles,
        counts=counts,
        clock=on.clock,
        patience=on.patience,
    )
    control = Control(
        trust=on.trust,
        origins=origins,
        journal=on.journal,
        handles=handles,
        logs=logs,
        post=post,
        counts=counts,
        clock=on.clock,
    )
    lives = Lives(
        claims=claims,
        handles=handles,
        journal=on.journal,
        logs=logs,
        post=post,
        voice=voice,
        farewell=farewell,
        place=on.place,
        counts=counts,
        clock=on.clock,
    )
    return Services(
        claims=claims,
        lives=lives,
        control=control,
        handles=handles,
        logs=logs,
        outbox=Outbox(JournalOutbox(on.journal.file), on.clock),
        post=post,
        journal=on.journal,
        counts=counts,
        farewell=farewell,
        executor=on.place.executor,
    )
