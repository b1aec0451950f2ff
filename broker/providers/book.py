"""What the controller knows of its providers at this moment, in memory: cards, sessions, hearing.

The cards come from `pinning`, which verified them against the pinned roots; sessions and hearing from each
provider's session. The book answers what placement and ingest ask.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from broker.decisions.leases import Hearing
from broker.decisions.placement import Offer
from schemas.refusals import Reason, Refusal
from schemas.reports import Introduced, Report
from schemas.statements import Agent, Card, Statement

STARTING = "its session is being opened"
DEAF = Hearing()


@dataclass(frozen=True, slots=True)
class KnownProvider:
    """A provider: its pinned root, newest card, and how our session there is (no trouble: it is up)."""

    name: str
    url: str
    root_key: bytes
    card: Card
    alarm: str | None = None
    session_trouble: str | None = STARTING
    hear: Callable[[], Hearing] = lambda: DEAF

    def agent(self, name: str) -> Agent | None:
        return next((agent for agent in self.card.agents if agent.name == name), None)


class Book:
    """The providers by name."""

    def __init__(self) -> None:
        self._known: dict[str, KnownProvider] = {}

    def put(self, known: KnownProvider) -> None:
        self._known[known.name] = known

    def get(self, name: str) -> KnownProvider | None:
        return self._known.get(name)

    def all(self) -> tuple[KnownProvider, ...]:
        return tuple(self._known[name] for name in sorted(self._known))

    def learn_card(self, name: str, card: Card) -> None:
        self._change(name, card=card)

    def learn_alarm(self, name: str, alarm: str | None) -> None:
        self._change(name, alarm=alarm)

    def learn_session(self, name: str, trouble: str | None) -> None:
        self._change(name, session_trouble=trouble)

    def learn_hearing(self, name: str, hear: Callable[[], Hearing]) -> None:
        self._change(name, hear=hear)

    def hearing(self, name: str) -> Hearing:
        known = self._known.get(name)
        return DEAF if known is None else known.hear()

    def offers(self, in_flight: Mapping[tuple[str, str], int]) -> tuple[Offer, ...]:
        """What placement chooses from; `in_flight` counts our attempts by provider and pool."""
        return tuple(
            Offer(
                provider=known.name,
                card=known.card,
                alarm=known.alarm,
                session_trouble=known.session_trouble,
                in_flight={pool: count for (name, pool), count in in_flight.items() if name == known.name},
            )
            for known in self.all()
        )

    def store_of(self, name: str) -> KnownProvider | None:
        """The provider, if it lends a store."""
        known = self._known.get(name)
        return known if known is not None and known.card.store is not None else None

    def _change(self, name: str, **changes: object) -> None:
        if name in self._known:
            self._known[name] = replace(self._known[name], **changes)  # type: ignore[arg-type]  # its own fields


def introduced_agent(known: KnownProvider, message: Introduced, key: bytes) -> Agent | Refusal:
    """The agent of the provider's card that introduces itself: the card must list name, key, issuer and sub."""
    return _listed(known, message, key, {(message.iss, message.sub)})


def reporting_agent(known: KnownProvider, message: Report, key: bytes) -> Agent | Refusal:
    """The agent of the card that signed a report with its key."""
    return _listed(known, message, key, None)


def _listed(
    known: KnownProvider, message: Report, key: bytes, account: Iterable[tuple[str, str]] | None
) -> Agent | Refusal:
    if message.provider != known.name:
        return Refusal(Reason.WRONG_ORIGIN, f"it came over {known.name}'s bus and speaks for {message.provider}")
    agent = known.agent(message.agent)
    if agent is None or agent.key != key:
        return Refusal(Reason.NOT_IN_CARD, f"{known.name}'s card lists no agent {message.agent} with this key")
    accounts = {(entry.iss, entry.sub) for entry in agent.accounts}
    if account is not None and accounts.isdisjoint(account):
        return Refusal(Reason.NOT_IN_CARD, f"{known.name}'s card does not list this account of {message.agent}")
    return agent


def stating_agent(known: KnownProvider, statement: Statement, agent_name: str) -> Agent | Refusal:
    """The agent of the card that a statement of this provider names."""
    if statement.provider != known.name:
        return Refusal(Reason.WRONG_ORIGIN, f"it came over {known.name}'s bus and speaks for {statement.provider}")
    agent = known.agent(agent_name)
    return agent or Refusal(Reason.NOT_IN_CARD, f"{known.name}'s card lists no agent {agent_name}")
