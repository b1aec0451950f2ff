"""The story of a job as the controller lives it: claim, grant, run, end, and all that goes wrong on the way."""

import pytest

from broker.decisions.leases import Hearing
from schemas import ids
from schemas.ends import EndReason
from schemas.life import AttemptState, JobState
from schemas.orders import Cancel, Grant, Job, Resend, Settled, StandDown
from schemas.refusals import Reason
from tests.broker.world import Claimed, FakeProvider, World

ONE_JOB = "name: p\njobs:\n  build:\n    steps: [make]\n"
ALICE = "alice.example"


async def claimed(world: World, provider: FakeProvider, worker: str = "w1") -> Claimed:
    """A worker claims the job that was just published."""
    job = await world.job_order()
    return await provider.workers[worker].claim(world.tenant, job.attempt)


async def granted(world: World, provider: FakeProvider) -> Claimed:
    claim = await claimed(world, provider)
    await world.hear(provider.name, claim.raw)
    assert isinstance(await world.said_one(Grant), Grant)
    return claim


async def test_a_ready_job_is_published_with_its_source_and_rate_card(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB, files={"Makefile": b"all:\n"})
    job = await world.job_order()
    assert (job.run, job.name, job.pool, job.project, job.number) == (run, "build", "main", "almanac", 1)
    assert job.source.inline is not None
    assert job.source.digest == ids.sha256_hex(job.source.inline)
    assert job.rate_card == ids.sha256_hex(alice.rate_card)
    assert (await world.job(run)).state is JobState.QUEUED


async def test_a_claim_is_granted_and_its_job_runs(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    claim = await claimed(world, alice)
    await world.hear(ALICE, claim.raw)
    grant = await world.said_one(Grant)
    assert (grant.attempt, grant.claim) == (claim.attempt, claim.claim)
    assert claim.open(grant) is not None
    assert (await world.job(run)).state is JobState.RUNNING


async def test_two_claims_in_one_batch_get_one_grant_and_one_stand_down(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    first = await claimed(world, alice)
    second = await alice.workers["w2"].claim(world.tenant, first.attempt)
    await world.hear(ALICE, first.raw, second.raw)
    answers = {said.order.claim: type(said.order) for said in await world.said()}
    assert answers == {first.claim: Grant, second.claim: StandDown}


async def test_the_same_claim_again_is_answered_once(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    claim = await claimed(world, alice)
    await world.hear(ALICE, claim.raw, claim.raw)
    await world.hear(ALICE, claim.raw)
    assert len(await world.said()) == 1


async def test_a_claim_by_somebody_who_is_not_in_the_card_is_refused(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    job = await world.job_order()
    stranger = FakeProvider(ALICE, world.issuer, world.clock).hire("w1")
    await world.hear(ALICE, (await stranger.claim(world.tenant, job.attempt)).raw)
    assert await world.said() == []
    assert (await world.job(run)).state is JobState.QUEUED


async def test_another_providers_worker_cannot_claim_over_its_own_bus(world: World, alice: FakeProvider) -> None:
    cecilia = FakeProvider("cecilia.example", world.issuer, world.clock)
    worker = cecilia.hire("w9")
    await world.meet(cecilia)
    await world.submit("name: p\njobs:\n  build:\n    labels: [at=alice]\n    steps: [make]\n")
    job = await world.job_order()
    await world.hear(cecilia.name, (await worker.claim(world.tenant, job.attempt)).raw)
    assert (await world.said_one(StandDown)).reason is Reason.WRONG_ORIGIN


async def test_a_claim_of_an_unknown_attempt_is_kept_as_an_orphan_and_stood_down(
    world: World, alice: FakeProvider
) -> None:
    claim = await alice.workers["w1"].claim(world.tenant, ids.new_attempt_id())
    await world.hear(ALICE, claim.raw)
    assert (await world.said_one(StandDown)).reason is Reason.UNKNOWN_ATTEMPT
    await world.hear(ALICE, claim.heartbeat())
    assert (await world.said_one(Cancel)).cause == "orphan"


async def test_a_success_ends_the_run_and_is_settled_when_the_log_is_whole(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    await world.hear(ALICE, claim.heartbeat())
    await world.hear(ALICE, claim.finished(log=b"hello world\n"))
    assert (await world.job(run)).state is JobState.SUCCEEDED
    assert (await world.run(run)).state == "succeeded"
    await world.controller.settlement.look()
    assert await world.said() == []
    await world.hear_log(ALICE, claim.log(6, b"world\n"), claim.log(0, b"hello "))
    await world.controller.settlement.look()
    assert (await world.said_one(Settled)).claim == claim.claim


async def test_a_gap_in_the_log_is_asked_for_again_and_then_shown(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    await world.hear_log(ALICE, claim.log(0, b"hello "))
    await world.hear(ALICE, claim.finished(log=b"hello world\n"))
    for seconds in (5, 15, 30, 60, 120, 240, 480, 960):
        world.clock.advance(seconds - 1)
        await world.controller.settlement.look()
        assert await world.said() == []
        world.clock.advance(1)
        await world.controller.settlement.look()
        resend = await world.said_one(Resend)
        assert (resend.log_from, resend.log_to) == (6, 12)
    world.clock.advance(1920)
    await world.controller.settlement.look()
    assert isinstance(await world.said_one(Settled), Settled)
    row = await world.claim(claim.claim)
    assert row is not None
    assert row.log_gap == "the log is not complete: bytes 6 to 12 never came"


async def test_other_bytes_at_the_same_offset_raise_an_alarm_and_change_nothing(
    world: World, alice: FakeProvider
) -> None:
    await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    await world.hear_log(ALICE, claim.log(0, b"hello"))
    await world.hear_log(ALICE, claim.log(0, b"hellO"), claim.log(3, b"lo!"))
    assert world.controller.logs.read(claim.claim, 0, 100) == b"hello!"


async def test_a_worker_without_the_grant_writes_into_no_log(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    first = await granted(world, alice)
    second = await alice.workers["w2"].claim(world.tenant, first.attempt)
    await world.hear(ALICE, second.raw)
    intake = world.controller.log_intake(ALICE)
    await intake.take([second.log(0, b"forged")])
    assert intake.refused == {Reason.UNKNOWN_CLAIM: 1}


async def test_a_result_without_the_grant_is_fenced(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    first = await granted(world, alice)
    second = await alice.workers["w2"].claim(world.tenant, first.attempt)
    await world.hear(ALICE, second.raw, second.finished(EndReason.EXIT_CODE))
    assert (await world.job(run)).state is JobState.RUNNING


async def test_a_failure_is_not_retried(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    await world.hear(ALICE, claim.finished(EndReason.EXIT_CODE))
    await world.dispatch()
    job = await world.job(run)
    assert (job.state, job.reason) == (JobState.FAILED, "exit-code")
    assert not [said for said in await world.said() if isinstance(said.order, Job)]


async def test_an_error_is_retried_until_the_retries_are_used_up(world: World, alice: FakeProvider) -> None:
    run = await world.submit("name: p\njobs:\n  build:\n    retries: 1\n    steps: [make]\n")
    for number in (1, 2):
        claim = await granted(world, alice)
        assert (await world.attempt(claim.attempt)).number == number
        await world.hear(ALICE, claim.finished(EndReason.SANDBOX_FAILED))
        await world.dispatch()
    assert (await world.job(run)).state is JobState.ERRORED


async def test_a_refusal_for_the_provider_leaves_the_job_waiting_with_that_reason(
    world: World, alice: FakeProvider
) -> None:
    run = await world.submit(ONE_JOB)
    (said,) = await world.said()
    worker = alice.workers["w1"]
    refused = await worker.refuse(world.tenant, said.raw, said.order.attempt, Reason.NETWORK_NOT_ALLOWED, "final")
    await world.hear(ALICE, refused)
    assert (await world.attempt(said.order.attempt)).state is AttemptState.REFUSED
    await world.dispatch()
    job = await world.job(run)
    assert job.state is JobState.WAITING
    assert job.waiting_for[0]["obstacle"] == "refused"
    assert "network-not-allowed" in job.waiting_for[0]["detail"]


async def test_a_refusal_about_another_envelope_ends_no_attempt(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    job = await world.job_order()
    refused = await alice.workers["w1"].refuse(world.tenant, b"other", job.attempt, Reason.DRAINING, "final")
    await world.hear(ALICE, refused)
    assert (await world.attempt(job.attempt)).state is AttemptState.PUBLISHED


async def test_a_dead_letters_refusal_comes_from_the_desk(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    (said,) = await world.said()
    refused = await alice.desk.refuse(world.tenant, said.raw, said.order.attempt, Reason.UNDELIVERED, "final")
    await world.hear(ALICE, refused)
    assert (await world.attempt(said.order.attempt)).state is AttemptState.REFUSED


async def test_a_desk_cannot_claim(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    job = await world.job_order()
    await world.hear(ALICE, (await alice.desk.claim(world.tenant, job.attempt)).raw)
    assert await world.said() == []


async def test_a_released_claim_sends_the_job_on(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    await world.hear(ALICE, claim.released())
    assert (await world.attempt(claim.attempt)).state is AttemptState.RELEASED
    await world.dispatch()
    assert (await world.job(run)).state is JobState.QUEUED
    assert (await world.job_order()).number == 2


async def test_silence_longer_than_the_lease_loses_the_attempt(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    world.clock.advance(119)
    await world.controller.lease_watch.look()
    assert (await world.attempt(claim.attempt)).state is AttemptState.GRANTED
    world.clock.advance(2)
    await world.controller.lease_watch.look()
    assert (await world.attempt(claim.attempt)).state is AttemptState.LOST
    await world.dispatch()
    assert (await world.job(run)).state is JobState.QUEUED


async def test_a_heartbeat_keeps_the_lease(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    for _ in range(5):
        world.clock.advance(100)
        await world.hear(ALICE, claim.heartbeat())
        await world.controller.lease_watch.look()
    assert (await world.attempt(claim.attempt)).state is AttemptState.GRANTED


async def test_a_result_that_comes_after_the_loss_is_fenced_and_its_worker_released(
    world: World, alice: FakeProvider
) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    world.clock.advance(121)
    await world.controller.lease_watch.look()
    await world.hear(ALICE, claim.heartbeat())
    assert (await world.said_one(Cancel)).cause == "superseded"
    await world.hear(ALICE, claim.finished())
    await world.controller.settlement.look()
    assert isinstance(await world.said_one(Settled), Settled)
    assert (await world.job(run)).state is JobState.WAITING


async def test_a_claim_and_its_release_in_one_batch_send_the_job_on(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    claim = await claimed(world, alice)
    await world.hear(ALICE, claim.raw, claim.released())
    assert (await world.attempt(claim.attempt)).state is AttemptState.RELEASED
    assert (await world.job(run)).state is JobState.WAITING
    await world.said()
    await world.controller.settlement.look()
    assert isinstance(await world.said_one(Settled), Settled)


async def test_a_claim_that_could_not_be_read_is_let_go_when_it_is_released(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    claim = await claimed(world, alice)
    await world.hear(ALICE, claim.released())
    assert (await world.attempt(claim.attempt)).state is AttemptState.LOST


async def test_without_a_token_a_claim_waits_unanswered_and_its_attempt_is_given_up(
    world: World, alice: FakeProvider
) -> None:
    run = await world.submit(ONE_JOB)
    claim = await claimed(world, alice)
    world.clock.advance(3590)
    await world.controller.parts.trust.prime()
    del world.issuer.accounts["dinah"]
    await world.hear(ALICE, (await alice.workers["w1"].claim(world.tenant, claim.attempt)).raw)
    assert (await world.attempt(claim.attempt)).state is AttemptState.CLAIMED
    assert await world.said() == []
    world.clock.advance(61)
    await world.controller.lease_watch.look()
    assert (await world.attempt(claim.attempt)).state is AttemptState.LOST
    assert (await world.job(run)).state is JobState.WAITING


async def test_a_claim_is_settled_only_once_its_worker_can_be_told(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    await world.hear(ALICE, claim.finished())
    world.clock.advance(3600)
    world.issuer.is_away = True
    assert await world.controller.settlement.look() == 1
    world.issuer.is_away = False
    assert await world.controller.settlement.look() == 0
    assert isinstance(await world.said_one(Settled), Settled)


async def test_an_order_that_nobody_claims_is_given_up_when_it_has_expired(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    job = await world.job_order()
    world.clock.advance(3600)
    await world.controller.lease_watch.look()
    assert (await world.attempt(job.attempt)).state is AttemptState.PUBLISHED
    world.clock.advance(31)
    await world.controller.lease_watch.look()
    assert (await world.attempt(job.attempt)).state is AttemptState.LOST


async def test_cancelling_before_the_claim_ends_at_once_and_stands_the_worker_down(
    world: World, alice: FakeProvider
) -> None:
    run = await world.submit(ONE_JOB)
    claim = await claimed(world, alice)
    await world.controller.runs.cancel(run)
    assert (await world.run(run)).state == "cancelled"
    await world.hear(ALICE, claim.raw)
    assert (await world.said_one(StandDown)).reason is Reason.CANCELLED


async def test_cancelling_withdraws_an_order_that_has_not_left(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    await world.controller.runs.cancel(run)
    assert await world.said() == []


async def test_cancelling_a_running_job_waits_for_its_worker(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    await world.controller.runs.cancel(run)
    assert (await world.said_one(Cancel)).cause == "user"
    assert (await world.job(run)).state is JobState.RUNNING
    await world.hear(ALICE, claim.finished(EndReason.CANCELLED))
    assert (await world.job(run)).state is JobState.CANCELLED


async def test_a_cancelled_job_that_still_beats_is_told_again(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    await world.controller.runs.cancel(run)
    await world.said()
    await world.hear(ALICE, claim.heartbeat())
    assert isinstance(await world.said_one(Cancel), Cancel)


async def test_a_cancelled_job_ends_though_its_provider_is_never_heard(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    await granted(world, alice)
    world.controller.book.learn_hearing(ALICE, Hearing)
    await world.controller.runs.cancel(run)
    world.clock.advance(361)
    await world.controller.lease_watch.look()
    assert (await world.job(run)).state is JobState.CANCELLED


async def test_a_job_behind_a_failed_one_is_skipped_and_one_behind_a_success_runs(
    world: World, alice: FakeProvider
) -> None:
    run = await world.submit(
        "name: p\njobs:\n  build:\n    steps: [make]\n  after:\n    needs: build\n    steps: [make]\n"
        "  last:\n    needs: after\n    steps: [make]\n"
    )
    assert (await world.job(run, "after")).waiting_for[0]["detail"] == "it needs build"
    claim = await granted(world, alice)
    await world.hear(ALICE, claim.finished())
    await world.dispatch()
    claim = await granted(world, alice)
    await world.hear(ALICE, claim.finished(EndReason.TIMEOUT))
    await world.dispatch()
    states = {name: job.state for name, job in (await world.jobs(run)).items()}
    assert states == {"build": JobState.SUCCEEDED, "after": JobState.FAILED, "last": JobState.SKIPPED}
    assert (await world.run(run)).state == "failed"


async def test_labels_that_nobody_offers_make_the_run_wait_and_say_why(world: World, alice: FakeProvider) -> None:
    run = await world.submit("name: p\njobs:\n  build:\n    labels: [board=k1]\n    steps: [make]\n")
    (reason,) = (await world.job(run)).waiting_for
    assert (reason["provider"], reason["obstacle"]) == (ALICE, "labels-not-offered")
    assert reason["detail"] == "pool main: has not `board=k1`; it has `os=linux`, `at=alice`"


async def test_a_job_without_its_secret_waits_and_gets_it_sealed_once_it_is_set(
    world: World, alice: FakeProvider
) -> None:
    run = await world.submit("name: p\njobs:\n  build:\n    secrets: [TOKEN]\n    steps: [make]\n")
    assert "`TOKEN`" in (await world.job(run)).waiting_for[0]["detail"]
    await world.controller.projects.set_secret("almanac", "TOKEN", "hunter2")
    await world.dispatch()
    job = await world.job_order()
    assert job.secrets == ("TOKEN",)
    claim = await alice.workers["w1"].claim(world.tenant, job.attempt)
    await world.hear(ALICE, claim.raw)
    secrets = claim.open(await world.said_one(Grant))
    assert secrets is not None
    assert secrets.secrets == {"TOKEN": "hunter2"}


async def test_when_the_issuer_is_away_the_job_waits_and_says_so(world: World, alice: FakeProvider) -> None:
    world.issuer.is_away = True
    run = await world.submit(ONE_JOB)
    (reason,) = (await world.job(run)).waiting_for
    assert "could not be signed" in reason["detail"]
    world.issuer.is_away = False
    await world.dispatch()
    assert (await world.job_order()).run == run


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\x95\x01\xa5fedci\xc0\xc0\xc0", b"x" * 2_000_000])
async def test_garbage_is_counted_and_the_consumer_lives_on(world: World, alice: FakeProvider, garbage: bytes) -> None:
    await world.submit(ONE_JOB)
    claim = await claimed(world, alice)
    intake = world.controller.intake(ALICE)
    await intake.take([garbage, claim.raw])
    assert sum(intake.counts.refused.values()) == 1
    assert isinstance(await world.said_one(Grant), Grant)


async def test_a_second_report_under_one_number_is_an_alarm(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    await world.hear(ALICE, claim.heartbeat())
    claim.sequence = 0
    await world.hear(ALICE, claim.finished())
    assert (await world.job(run)).state is JobState.RUNNING
