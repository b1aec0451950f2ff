"""What one usage event does to the book: a pure decision over bytes, the provider's agents and what is known.

A fact is known by its id, which must be the one that derives from what it states: an agent cannot mint a second id for
the same fact. The same bytes again change nothing; other bytes under the same id are an alarm and never replace what
was entered first (DESIGN §9).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from identity.trust import SignedBy, verify_statement
from schemas import frame
from schemas.refusals import Reason, Refusal
from schemas.statements import Agent, Usage, usage_id


@dataclass(frozen=True, slots=True)
class NewFact:
    fact: SignedBy[Usage]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same bytes again: settled already."""

    id: str


def read_usage(raw: bytes, *, provider: str, agents: Mapping[str, Agent]) -> SignedBy[Usage] | Refusal:
    """A usage fact that one of the provider's agents has stated, or why this is none."""
    agent = agents.get(_claimed_agent(raw))
    if agent is None:
        return Refusal(Reason.UNKNOWN_AGENT, "the event names no agent of this provider's card")
    stated = verify_statement(raw, Usage, key=agent.key)
    if isinstance(stated, Refusal):
        return stated
    usage = stated.message
    if usage.provider != provider:
        return Refusal(Reason.IDENTITY_MISMATCH, "the event is another provider's")
    if usage.id != usage_id(usage.provider, usage.subject, usage.meter, usage.interval):
        return Refusal(Reason.IDENTITY_MISMATCH, "the event's id does not derive from its fact")
    return stated


def decide(fact: SignedBy[Usage], known_digest: str | None) -> NewFact | Repeat | Refusal:
    """What a verified fact does, given the digest under which its id is in the book."""
    if known_digest is None:
        return NewFact(fact)
    if known_digest == fact.digest:
        return Repeat(fact.message.id)
    return Refusal(Reason.EQUIVOCATION, "the book holds this fact with other content")


def _claimed_agent(raw: bytes) -> str:
    """The agent that an event says it is from: only to pick the key that must then have signed it."""
    envelope = frame.split(raw)
    usage = envelope if isinstance(envelope, Refusal) else Usage.from_payload(envelope.payload)
    return "" if isinstance(usage, Refusal) else usage.agent
