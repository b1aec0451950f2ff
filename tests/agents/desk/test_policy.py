"""Who is let in: what the owner said of the account first, then of its issuer, then the cap."""

import pytest

from agents.desk import policy
from agents.desk.policy import IssuerPolicy, Standing, Welcome
from schemas.refusals import Reason, Refusal

ISSUER = "https://id.fatima.example"


@pytest.mark.parametrize(
    ("welcome", "standing"),
    [(Welcome.ADMIT, Standing.ADMITTED), (Welcome.HOLD, Standing.HELD), (Welcome.DENY, Standing.DENIED)],
)
def test_a_newcomer_stands_as_its_issuers_policy_says(welcome: Welcome, standing: Standing) -> None:
    assert policy.first_standing(ISSUER, {ISSUER: IssuerPolicy(welcome, 10)}, 0) is standing


def test_an_issuer_without_a_policy_lets_nobody_in() -> None:
    refusal = policy.first_standing(ISSUER, {}, 0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.NOT_ADMITTED


@pytest.mark.parametrize("welcome", [Welcome.ADMIT, Welcome.HOLD])
def test_a_flood_of_accounts_at_one_issuer_meets_its_cap(welcome: Welcome) -> None:
    policies = {ISSUER: IssuerPolicy(welcome, 3)}
    assert not isinstance(policy.first_standing(ISSUER, policies, 2), Refusal)
    refusal = policy.first_standing(ISSUER, policies, 3)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.TOO_MANY_TENANTS


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        (Standing.HELD, Reason.HELD_FOR_APPROVAL),
        (Standing.DENIED, Reason.NOT_ADMITTED),
        (Standing.SUSPENDED, Reason.SUSPENDED),
    ],
)
def test_whoever_is_not_admitted_is_told_why(standing: Standing, reason: Reason) -> None:
    refusal = policy.refusal_of(standing)
    assert refusal is not None
    assert refusal.reason is reason
    assert refusal.detail


def test_whoever_is_admitted_is_not_refused() -> None:
    assert policy.refusal_of(Standing.ADMITTED) is None
