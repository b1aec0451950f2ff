"""What comes together, too late, or never: batches that contradict themselves, silence, providers that are gone."""

from schemas.life import AttemptState, JobState
from schemas.orders import Grant, StandDown
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
