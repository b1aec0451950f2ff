"""Who may be a tenant: the owner's policy, as a table and one pure decision (DESIGN §6).

A principal that passed `identity.trust` is only known, not yet welcome. What the owner said of this very principal
comes first, then what the owner says of its issuer; an issuer without a policy lets nobody in. A new tenant meets the
cap of its issuer, so that a flood of accounts at one issuer costs the others nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from schemas.refusals import Reason, Refusal


class Standing(StrEnum):
    """What the owner, or their policy, made of a principal."""

    ADMITTED = "admitted"
    HELD = "held"
    DENIED = "denied"
    SUSPENDED = "suspended"


class Welcome(StrEnum):
    """What happens to an issuer's principals when they first come."""

    ADMIT = "admit"
    HOLD = "hold"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class IssuerPolicy:
    welcome: Welcome
    tenants: int
    """How many of its principals may be tenants at a time."""


_FIRST_STANDING = {
    Welcome.ADMIT: Standing.ADMITTED,
    Welcome.HOLD: Standing.HELD,
    Welcome.DENY: Standing.DENIED,
}
_REFUSALS = {
    Standing.HELD: Refusal(
        Reason.HELD_FOR_APPROVAL, "the provider's owner approves newcomers by hand; you are on the list"
    ),
    Standing.DENIED: Refusal(Reason.NOT_ADMITTED, "the provider's owner does not lend to this account"),
    Standing.SUSPENDED: Refusal(Reason.SUSPENDED, "the provider's owner has suspended this account"),
}


def first_standing(iss: str, policies: Mapping[str, IssuerPolicy], tenants_of_issuer: int) -> Standing | Refusal:
    """What a principal is that comes for the first time, or why it is not even put on the list."""
    policy = policies.get(iss)
    if policy is None:
        return Refusal(Reason.NOT_ADMITTED, "this provider lends to no account of that issuer")
    if policy.welcome is not Welcome.DENY and tenants_of_issuer >= policy.tenants:
        return Refusal(Reason.TOO_MANY_TENANTS, f"{policy.tenants} accounts of that issuer are tenants already")
    return _FIRST_STANDING[policy.welcome]


def refusal_of(standing: Standing) -> Refusal | None:
    """Why a principal of this standing gets no session, or None when it gets one."""
    return _REFUSALS.get(standing)
