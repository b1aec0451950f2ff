"""A worker never holds on longer than its controller waits."""

from hypothesis import given
from hypothesis import strategies as st

from agents.worker.jobs.lease import GrantWindow, Lease
from schemas import limits

moments = st.floats(0, 1e6)


def test_a_grant_counts_only_within_its_window() -> None:
    window = GrantWindow(claim_sent_at=100.0)
    assert window.is_open(100.0)
    assert window.is_open(129.9)
    assert not window.is_open(130.0)
    assert not window.is_open(99.0)


@given(sent=st.lists(moments, min_size=1), arrival_seconds=st.floats(0, 100), seconds=st.integers(1, 3600))
def test_the_worker_lets_go_before_the_controller_gives_up(
    sent: list[float], arrival_seconds: float, seconds: int
) -> None:
    lease = Lease(seconds, sent[0])
    for at in sent:
        lease = lease.confirmed(at)
    heard_last_at = max(sent) + arrival_seconds
    assert lease.until < heard_last_at + seconds


def test_a_late_confirm_of_an_early_message_moves_nothing_back() -> None:
    lease = Lease(120, 50.0).confirmed(80.0)
    assert lease.confirmed(60.0) == lease


def test_several_heartbeats_may_fail_before_the_lease_is_lost() -> None:
    lease = Lease(limits.LEASE_SECONDS, 0.0)
    assert lease.until / lease.heartbeat_seconds > 4
