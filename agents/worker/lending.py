"""What this worker lends: told to the desk as an offer, and to admission as what a job may ask for.

Both come from the same settings and the same machine, so that nobody is promised what is refused later. The rate cards
under which it works are the ones that the provider's card named since this process started: a job that was signed just
before the prices changed is still taken.
"""

from agents.worker.labels import Machine, labels_of
from agents.worker.orders.admission import Lent
from agents.worker.settings import WorkerSettings
from identity.own_card import OwnCard
from schemas.orders import Job, Resources
from schemas.tickets import Toolchain, WorkerOffer


class Lending:
    """Raises OurFault where the owner's labels contradict the machine."""

    def __init__(self, settings: WorkerSettings, machine: Machine, own_card: OwnCard) -> None:
        self._settings = settings
        self._labels = labels_of(machine, settings.labels)
        self._slot = slot_size(settings, machine)
        self._own_card = own_card
        self._rate_cards: set[str] = set()

    def offer(self) -> WorkerOffer:
        settings, slot = self._settings, self._slot
        return WorkerOffer(
            pool=settings.pool,
            labels=self._labels,
            toolchains=tuple(Toolchain(name=each.name, description=each.description) for each in settings.toolchains),
            stores=tuple(store.name for store in settings.stores),
            slots=settings.slots,
            cores=slot.cores,
            memory_bytes=slot.memory_bytes,
            disk_bytes=slot.disk_bytes,
            is_network_allowed=settings.sandbox.network,
        )

    async def lent(self, job: Job) -> Lent:
        """What admission may give this job; a rate card that is not known yet is looked up first."""
        if job.rate_card not in self._rate_cards:
            await self._own_card.renew()
            self._rate_cards |= {digest for digest in (self._own_card.rate_card_digest,) if digest is not None}
        settings = self._settings
        return Lent(
            pool=settings.pool,
            labels=frozenset(self._labels),
            toolchains=frozenset(toolchain.name for toolchain in settings.toolchains),
            stores=frozenset(store.name for store in settings.stores),
            slot=self._slot,
            is_network_allowed=settings.sandbox.network,
            rate_cards=frozenset(self._rate_cards),
        )


def slot_size(settings: WorkerSettings, machine: Machine) -> Resources:
    """The most that one job may reserve."""
    slot = settings.slot
    return Resources(
        cores=slot.cores or max(1, machine.cores // settings.slots),
        memory_bytes=slot.memory_bytes or machine.memory_bytes // settings.slots,
        disk_bytes=slot.disk_bytes,
        processes=slot.processes,
    )
