"""States usage: seals each fact once, into the outbox, in the transaction of its effect (DESIGN §9).

Each statement goes to the billing exchange, and a copy of the same bytes to the customer. Nothing can be stated before
the provider's card is known, because every fact cites its prices: those who meter wait for `is_ready`.
"""

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncSession

from agents.store import metering
from agents.store.metering import Customer, Fact, Meterer
from bus.topology import FANOUT_KEY, ProviderNames, usage_key
from identity.keys import SigningKey
from identity.own_card import OwnCard
from runtime.errors import OurFault
from runtime.outbox_table import OutboxTable
from schemas import frame


class Billing:
    """Who measured, in whose name, at which prices."""

    def __init__(self, meterer: Meterer, key: SigningKey, own_card: OwnCard, outbox: OutboxTable) -> None:
        self._meterer = meterer
        self._key = key
        self._own_card = own_card
        self._outbox = outbox
        self._names = ProviderNames(meterer.provider)

    async def is_ready(self) -> bool:
        """Whether prices are known; asks the desk again for the newest, as rarely as `OwnCard` allows."""
        await self._own_card.renew()
        return self._own_card.rate_card_digest is not None

    def state(self, session: AsyncSession, customer: Customer, facts: Iterable[Fact]) -> None:
        """Add these facts to the caller's transaction, which must also see to it that they are stated only once."""
        rate_card = self._own_card.rate_card_digest
        if rate_card is None:
            raise OurFault("usage cannot be stated before the provider's card was read", where=self._meterer.provider)
        for fact in facts:
            usage = metering.usage_of(self._meterer, customer, rate_card, fact)
            body = frame.seal(usage, self._key.private)
            billed = destination(self._names.billing_exchange, usage_key(customer.tenant, fact.meter))
            copied = destination(self._names.replies(customer.tenant), FANOUT_KEY)
            for place in (billed, copied):
                self._outbox.enqueue(session, destination=place, body=body, correlation_id=usage.id)


def destination(exchange: str, routing_key: str) -> str:
    """An outbox destination; a space stands in no exchange's name, so it has one reading (`read_destination`)."""
    return f"{exchange} {routing_key}"


def read_destination(text: str) -> tuple[str, str]:
    """The exchange and the routing key of an outbox destination."""
    exchange, _, routing_key = text.partition(" ")
    return exchange, routing_key
