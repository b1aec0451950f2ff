"""What comes together, too late, or never: batches that contradict themselves, silence, providers that are gone."""

import asyncio

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from broker.decisions.leases import Hearing
from broker.store import claims as claim_store
from broker.tables import AttemptRow, ClaimRow
from schemas import limits
from schemas.ends import EndReason
from schemas.life import AttemptState, JobState
from schemas.orders import Cancel, Grant, StandDown
from schemas.refusals import Reason
from tests.broker.world import FakeProvider, World

ALICE = "alice.example"
ONE_JOB = "name: p\njobs:\n  build:\n    steps: [make]\n"


async def test_a_refusal_and_then_another_workers_claim_in_one_batch_are_both_taken_in(
    world: World, alice: FakeProvider
) -> None:
    """The acknowledgement behind the refusal was lost, so the bus handed the job to the next worker."""
    run = await world.submit(ONE_JOB)
    (published,) = await world.said()
    attempt = published.order.attempt
    refusal = await alice.workers["w1"].refuse(world.tenant, published.raw, attempt, Reason.DRAINING, "here")
    claim = await alice.workers["w2"].claim(world.tenant, attempt)
    await world.hear(ALICE, refusal, claim.raw)
    assert (await world.said_one(StandDown)).reason is Reason.ATTEMPT_NOT_CURRENT
    assert (await world.attempt(attempt)).state is AttemptState.REFUSED
    assert (await world.job(run)).state is JobState.WAITING


async def test_a_release_of_a_claim_that_never_came_and_the_next_claim_in_one_batch_are_both_taken_in(
    world: World, alice: FakeProvider
) -> None:
    """A worker restarted before its claim was out: it released it, and claimed the job anew when it came again."""
    run = await world.submit(ONE_JOB)
    attempt = (await world.job_order()).attempt
    lost = await alice.workers["w1"].claim(world.tenant, attempt)
    again = await alice.workers["w1"].claim(world.tenant, attempt)
    await world.hear(ALICE, lost.released(Reason.DRAINING), again.raw)
    assert Reason.ATTEMPT_NOT_CURRENT in {
        said.order.reason for said in await world.said() if isinstance(said.order, StandDown)
    }
    await world.dispatch()
    claim = await alice.workers["w2"].claim(world.tenant, (await world.job_order()).attempt)
    await world.hear(ALICE, claim.raw)
    assert (await world.said_one(Grant)).claim == claim.claim
    assert (await world.job(run)).state is JobState.RUNNING


async def test_a_grant_made_while_the_watch_looks_is_heard_of_from_then_on(
    world: World, alice: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider has been heard for long: whoever forgets when this claim spoke counts all of that as silence."""
    world.clock.advance(1000)
    run = await world.submit(ONE_JOB)
    claim = await alice.workers["w1"].claim(world.tenant, (await world.job_order()).attempt)
    read_running = claim_store.running_claims

    async def granted_meanwhile(session: AsyncSession) -> list[tuple[AttemptRow, ClaimRow]]:
        running = await read_running(session)
        await world.hear(ALICE, claim.raw)
        return running

    with monkeypatch.context() as patched:
        patched.setattr(claim_store, "running_claims", granted_meanwhile)
        await world.controller.lease_watch.look()
    await world.controller.lease_watch.look()
    assert (await world.job(run)).state is JobState.RUNNING
    world.clock.advance(121)
    await world.controller.lease_watch.look()
    assert (await world.attempt(claim.attempt)).state is AttemptState.LOST


async def test_an_order_to_a_provider_that_is_gone_is_given_up_when_it_has_expired(
    world: World, alice: FakeProvider
) -> None:
    run = await world.submit(ONE_JOB)
    job = await world.job_order()
    world.controller.book.learn_hearing(ALICE, Hearing)
    world.clock.advance(3631)
    await world.controller.lease_watch.look()
    assert (await world.attempt(job.attempt)).state is AttemptState.LOST
    assert (await world.job(run)).state is JobState.WAITING


async def test_a_claim_without_an_answer_is_given_up_though_its_provider_is_gone(
    world: World, alice: FakeProvider
) -> None:
    await world.submit(ONE_JOB)
    claim = await alice.workers["w1"].claim(world.tenant, (await world.job_order()).attempt)
    world.clock.advance(3590)
    await world.controller.parts.trust.prime()
    del world.issuer.accounts["dinah"]
    await world.hear(ALICE, (await alice.workers["w1"].claim(world.tenant, claim.attempt)).raw)
    world.controller.book.learn_hearing(ALICE, Hearing)
    world.clock.advance(61)
    await world.controller.lease_watch.look()
    assert (await world.attempt(claim.attempt)).state is AttemptState.LOST


async def test_a_job_whose_provider_never_comes_back_is_over_when_its_own_time_is(
    world: World, alice: FakeProvider
) -> None:
    run = await world.submit("name: p\njobs:\n  build:\n    timeout: 60\n    steps: [make]\n")
    claim = await alice.workers["w1"].claim(world.tenant, (await world.job_order()).attempt)
    await world.hear(ALICE, claim.raw)
    world.controller.book.learn_hearing(ALICE, Hearing)
    world.clock.advance(60 + limits.STORE_TAB_GRACE_SECONDS)
    await world.controller.lease_watch.look()
    assert (await world.attempt(claim.attempt)).state is AttemptState.GRANTED
    world.clock.advance(limits.CLOCK_SKEW_SECONDS)
    await world.controller.lease_watch.look()
    assert (await world.attempt(claim.attempt)).end_reason is EndReason.WORKER_LOST
    assert (await world.job(run)).state is JobState.WAITING


async def test_a_worker_that_beats_for_ever_does_not_keep_its_job_for_ever(world: World, alice: FakeProvider) -> None:
    await world.submit("name: p\njobs:\n  build:\n    timeout: 60\n    steps: [make]\n")
    claim = await alice.workers["w1"].claim(world.tenant, (await world.job_order()).attempt)
    await world.hear(ALICE, claim.raw)
    await world.said()
    for _ in range(20):
        world.clock.advance(100)
        await world.hear(ALICE, claim.heartbeat())
        await world.controller.lease_watch.look()
    assert (await world.attempt(claim.attempt)).state is AttemptState.LOST
    assert {said.order.cause for said in await world.said() if isinstance(said.order, Cancel)} == {"superseded"}


async def test_a_place_that_one_run_leaves_is_offered_to_the_jobs_of_another(world: World, alice: FakeProvider) -> None:
    """Two slots take six orders of ours: the seventh job waits, and its own run never changes."""
    jobs = "".join(f"  job{number}:\n    steps: [make]\n" for number in range(6))
    await world.submit(f"name: p\njobs:\n{jobs}")
    first, *_ = await world.said()
    waiting = await world.submit(ONE_JOB)
    assert {why["obstacle"] for why in (await world.job(waiting)).waiting_for} == {"queue-full"}
    world.bells.dispatch.clear()
    dispatching = asyncio.create_task(world.controller.dispatcher.run())
    try:
        claim = await alice.workers["w1"].claim(world.tenant, first.order.attempt)
        await world.hear(ALICE, claim.raw)
        await world.hear(ALICE, claim.finished())
        async with asyncio.timeout(10):
            while (await world.job(waiting)).state is JobState.WAITING:
                pass
    finally:
        dispatching.cancel()
        await asyncio.wait([dispatching])


async def test_a_worker_that_released_a_claim_which_could_not_be_read_is_not_asked_again_at_once(
    world: World, alice: FakeProvider
) -> None:
    """While our issuer is away every claim ends like this; fifty of them in a row would end the job."""
    run = await world.submit(ONE_JOB)
    attempt = (await world.job_order()).attempt
    for worker in ("w1", "w2"):
        unread = await alice.workers[worker].claim(world.tenant, attempt)
        await world.hear(ALICE, unread.released())
        await world.dispatch()
        job = await world.job(run)
        attempt = (await world.job_order()).attempt if job.state is JobState.QUEUED else attempt
    assert {why["obstacle"] for why in (await world.job(run)).waiting_for} == {"refused"}
    world.clock.advance(6)
    await world.dispatch()
    assert (await world.job(run)).state is JobState.QUEUED


async def test_an_issuer_that_is_away_is_asked_once_for_all_the_claims_of_a_batch(
    world: World, alice: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question may last ten seconds, in which nothing else of the queue is read."""
    await world.submit("name: p\njobs:\n  one:\n    steps: [make]\n  two:\n    steps: [make]\n")
    world.clock.advance(3590)
    await world.controller.parts.trust.prime()
    claims = [await alice.workers["w1"].claim(world.tenant, said.order.attempt) for said in await world.said()]
    asked: list[str] = []

    def away(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        raise httpx.ConnectTimeout("away")

    monkeypatch.setattr(world.issuer, "answer", away)
    await world.hear(ALICE, *(claim.raw for claim in claims))
    assert len(asked) == 1
    assert [(await world.attempt(claim.attempt)).state for claim in claims] == 2 * [AttemptState.CLAIMED]
