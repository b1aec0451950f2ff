"""Claims, retries, bars, leases, logs, cards, receipts: the tables of what follows from what."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.decisions.cards import SeenCard, check_card
from broker.decisions.claims import ClaimedAttempt, GrantIt, StandDownIt, decide_claim
from broker.decisions.leases import (
    Hearing,
    Listening,
    is_over,
    job_ends_at,
    lease_ends_at,
    unanswered_ends_at,
    unclaimed_ends_at,
)
from broker.decisions.retry import (
    ATTEMPTS_MAX,
    Again,
    Final,
    History,
    PastRefusal,
    bars_of,
    decide_after_end,
    decide_unstarted,
)
from broker.decisions.settling import (
    RESENDS_MAX,
    AskAgain,
    Complete,
    GiveUp,
    LogReceived,
    Ranges,
    add_range,
    contiguous,
    decide_settling,
    first_gap,
)
from broker.decisions.witness import Witnessed, judge_usage
from schemas import ids
from schemas.ends import ENDS, EndReason, Outcome
from schemas.life import FINAL_ATTEMPT_STATES, AttemptState
from schemas.refusals import Reason, Refusal
from schemas.statements import Card, Usage, usage_id
from tests.clocks import START

ATTEMPT = ClaimedAttempt("a", "alice.example", AttemptState.PUBLISHED, True, False, None)


# -- Claims


def test_the_first_claim_of_a_current_attempt_is_granted() -> None:
    assert decide_claim(ATTEMPT, "alice.example") == GrantIt()


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        (None, Reason.UNKNOWN_ATTEMPT),
        (replace(ATTEMPT, provider="cecilia.example"), Reason.WRONG_ORIGIN),
        (replace(ATTEMPT, is_cancelled=True), Reason.CANCELLED),
        (replace(ATTEMPT, granted_claim="c"), Reason.ALREADY_GRANTED),
        (replace(ATTEMPT, is_current=False), Reason.ATTEMPT_NOT_CURRENT),
        *((replace(ATTEMPT, state=state), Reason.ATTEMPT_NOT_CURRENT) for state in FINAL_ATTEMPT_STATES),
        (replace(ATTEMPT, state=AttemptState.GRANTED), Reason.ATTEMPT_NOT_CURRENT),
    ],
)
def test_every_other_claim_is_stood_down_with_its_reason(attempt: ClaimedAttempt | None, reason: Reason) -> None:
    assert decide_claim(attempt, "alice.example") == StandDownIt(reason)


# -- Retries


@pytest.mark.parametrize("reason", [reason for reason in EndReason if not ENDS[reason].is_retried])
def test_what_is_not_an_error_is_final_at_once(reason: EndReason) -> None:
    history = History(attempts=1, errors=0, retries=5, is_cancelled=True)
    assert decide_after_end(reason, history) == Final(ENDS[reason].outcome)


@pytest.mark.parametrize("reason", [reason for reason in EndReason if ENDS[reason].is_retried])
def test_an_error_is_retried_as_often_as_the_job_allows(reason: EndReason) -> None:
    assert decide_after_end(reason, History(1, 1, 1, False)) == Again()
    assert decide_after_end(reason, History(2, 2, 1, False)) == Final(Outcome.ERRORED)
    assert decide_after_end(reason, History(1, 1, 0, False)) == Final(Outcome.ERRORED)
    assert decide_after_end(reason, History(1, 1, 1, True)) == Final(Outcome.CANCELLED)


def test_what_did_not_run_is_tried_again_but_not_for_ever() -> None:
    assert decide_unstarted(History(7, 0, 0, False)) == Again()
    assert decide_unstarted(History(ATTEMPTS_MAX, 0, 0, False)) == Final(Outcome.ERRORED)
    assert decide_unstarted(History(1, 0, 9, True)) == Final(Outcome.CANCELLED)


def refusal(reason: Reason, scope: str = "final", seconds_ago: float = 0, agent: str = "w1") -> PastRefusal:
    return PastRefusal("alice.example", agent, reason, scope, START - timedelta(seconds=seconds_ago))  # type: ignore[arg-type]


def test_a_final_refusal_bars_the_provider_and_a_local_one_the_worker() -> None:
    bars = bars_of([refusal(Reason.NETWORK_NOT_ALLOWED), refusal(Reason.RESOURCES_TOO_LARGE, "here")], START)
    assert set(bars.providers) == {"alice.example"}
    assert set(bars.workers) == {("alice.example", "w1")}
    assert bars.until is None


def test_what_time_heals_bars_for_a_while_and_twice_as_long_the_next_time() -> None:
    once = bars_of([refusal(Reason.DRAINING, "here", seconds_ago=16)], START)
    assert not once.workers
    twice = bars_of([refusal(Reason.DRAINING, "here", 60), refusal(Reason.DRAINING, "here", 16)], START)
    assert twice.until == START + timedelta(seconds=14)


# -- Leases


def test_silence_counts_only_while_we_hear_and_from_when_we_heard_without_a_break() -> None:
    listening = Listening(lease_seconds=120, heard_at=100)
    assert lease_ends_at(listening, Hearing()) is None
    assert lease_ends_at(listening, Hearing(since=50, read_to=150)) == 220
    assert lease_ends_at(listening, Hearing(since=500, read_to=510)) == 620


def test_a_lease_is_over_only_when_everything_up_to_its_end_was_read() -> None:
    assert not is_over(220, Hearing(50, 219.9))
    assert is_over(220, Hearing(50, 220))
    assert not is_over(None, Hearing(50, 10_000))
    assert not is_over(220, Hearing())


def test_orders_claims_and_jobs_have_their_own_ends_that_need_no_hearing() -> None:
    assert unclaimed_ends_at(1000) == 1030
    assert unanswered_ends_at(1000) == 1060
    assert job_ends_at(granted_at=1000, timeout_seconds=60) == 1000 + 60 + 1800 + 30


# -- Logs


@given(chunks=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=20))
def test_ranges_hold_exactly_the_bytes_that_came(chunks: list[tuple[int, int]]) -> None:
    ranges: Ranges = ()
    expected: set[int] = set()
    for start, length in chunks:
        ranges = add_range(ranges, start, start + length)
        expected |= set(range(start, start + length))
    assert {byte for start, end in ranges for byte in range(start, end)} == expected
    assert all(one[1] < other[0] for one, other in pairwise(ranges))
    end = contiguous(ranges)
    assert all(byte in expected for byte in range(end))
    assert end not in expected
    gap = first_gap(ranges, 80)
    assert gap is None or not expected & set(range(*gap))


def test_a_log_is_settled_only_with_its_length_and_its_digest() -> None:
    def settle(ranges: Ranges, sha256: str | None, resends: int = 0) -> object:
        return decide_settling(LogReceived(ranges, sha256), log_bytes=10, log_sha256="d", resends=resends)

    assert settle(((0, 10),), "d") == Complete()
    assert settle(((0, 4), (6, 10)), None) == AskAgain(4, 6)
    assert settle((), None) == AskAgain(0, 10)
    assert settle(((0, 10),), "other") == AskAgain(0, 10)
    assert isinstance(settle(((0, 4),), None, RESENDS_MAX), GiveUp)
    assert isinstance(settle(((0, 10),), "other", RESENDS_MAX), GiveUp)


def test_an_empty_log_is_complete_at_once() -> None:
    assert decide_settling(LogReceived((), "e"), log_bytes=0, log_sha256="e", resends=0) == Complete()


# -- Cards


def card(**changes: Any) -> Card:
    facts: dict[str, Any] = {
        "provider": "alice.example",
        "serial": 5,
        "desk_url": "https://alice.example",
        "issuers": (),
        "agents": (),
        "pools": (),
        "store": None,
        "rate_card": "a" * 64,
        "speaks": (),
        "issued_at": START,
        "expires_at": START + timedelta(days=1),
    }
    return Card(**(facts | changes))


@pytest.mark.parametrize(
    ("changes", "digest", "expected"),
    [
        ({"serial": 6}, "new", True),
        ({}, "seen", False),
        ({"serial": 4}, "new", Reason.CARD_ROLLED_BACK),
        ({}, "other", Reason.EQUIVOCATION),
        ({"provider": "mallory.example", "serial": 9}, "new", Reason.ROOT_CHANGED),
        ({"serial": 6, "expires_at": START}, "new", Reason.CARD_EXPIRED),
    ],
)
def test_a_card_only_moves_forward(changes: dict[str, Any], digest: str, expected: object) -> None:
    answer = check_card(card(**changes), digest, SeenCard("alice.example", 5, "seen"), START)
    assert (answer.reason if isinstance(answer, Refusal) else answer) == expected


# -- Receipts

SEEN = Witnessed("alice.example", "bettina.example", "c" + "a" * 26, "b" * 64, 30.0, 1000, EndReason.SUCCEEDED, False)


def usage(**changes: Any) -> Usage:
    attempt = "a" + "a" * 26
    facts: dict[str, Any] = {
        "provider": "alice.example",
        "id": usage_id("alice.example", attempt, "wall-seconds", 0),
        "source": "s",
        "subject": attempt,
        "agent": "w1",
        "iss": "https://id.example",
        "sub": "dinah",
        "meter": "wall-seconds",
        "interval": 0,
        "started_at": START,
        "ended_at": START,
        "quantity": "30",
        "rate_card": "b" * 64,
        "attempt": attempt,
        "claim": SEEN.claim,
        "reason": EndReason.SUCCEEDED,
    }
    return Usage(**(facts | changes))


@pytest.mark.parametrize(
    ("changes", "seen", "expected"),
    [
        ({}, SEEN, ""),
        ({"quantity": "89"}, SEEN, ""),
        ({"quantity": "91"}, SEEN, "longer than"),
        ({"provider": "cecilia.example"}, SEEN, "not given to this provider"),
        ({"claim": ids.new_claim_id()}, SEEN, "not granted"),
        ({"rate_card": "c" * 64}, SEEN, "another rate card"),
        ({"reason": EndReason.TIMEOUT}, SEEN, "another reason"),
        ({"meter": "log-bytes", "quantity": "70000"}, SEEN, "more log"),
        ({"meter": "log-bytes", "quantity": "1000"}, SEEN, ""),
        ({}, replace(SEEN, was_lost=True, end=EndReason.WORKER_LOST), "was lost"),
        ({"reason": EndReason.WORKER_LOST}, replace(SEEN, was_lost=True, end=EndReason.WORKER_LOST), ""),
        ({"provider": "bettina.example", "meter": "store-bytes-in", "claim": None, "reason": None}, SEEN, ""),
        ({}, None, "no such attempt"),
    ],
)
def test_a_usage_event_is_signed_for_only_as_far_as_it_was_seen(
    changes: dict[str, Any], seen: Witnessed | None, expected: str
) -> None:
    verdict = judge_usage(usage(**changes), seen, is_our_store=True)
    assert verdict.verdict == ("disputed" if expected else "accepted")
    assert expected in verdict.reason


def test_storage_without_an_attempt_is_ours_only_at_a_store_that_we_use() -> None:
    event = usage(attempt=None, claim=None, meter="store-gib-hours", subject="object", reason=None)
    assert judge_usage(event, None, is_our_store=True).verdict == "accepted"
    assert judge_usage(event, None, is_our_store=False).verdict == "disputed"
