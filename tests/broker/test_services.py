"""The services around the story: the bus that does not take, stores, restarts, hearing, receipts, secrets at rest."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from broker.decisions.leases import Hearing, Line, hear
from broker.dispatch.outgoing import Destination, Publisher
from broker.dispatch.undelivered import JobPublisher
from broker.dispatch.uploads import Uploads
from broker.vault import Vault, make_key
from runtime.errors import OurFault, WorldFault
from runtime.outbox import Later, PublishResult, Rejected, Sent, Unroutable
from schemas import ids
from schemas.life import AttemptState, JobState
from schemas.orders import Grant, Job
from schemas.refusals import Reason, Refusal
from schemas.statements import Receipt
from tests.broker.world import FakeProvider, World, open_world, read

ALICE = "alice.example"
ONE_JOB = "name: p\njobs:\n  build:\n    steps: [make]\n"


class FakeBus:
    """A session that answers as it is told, and remembers what it was given."""

    def __init__(self, answer: PublishResult) -> None:
        self.answer = answer
        self.given: list[tuple[str, str, str, timedelta | None]] = []

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        message_type: str,
        correlation_id: str,
        expires_after: timedelta | None = None,
    ) -> PublishResult:
        self.given.append((exchange, routing_key, message_type, expires_after))
        return self.answer


def publisher(world: World, bus: FakeBus | None) -> JobPublisher:
    return JobPublisher(
        Publisher(world.tenant, lambda _: bus, world.clock),
        outbox=world.controller.outbox,
        database=world.database,
        bells=world.bells,
        clock=world.clock,
    )


# -- The bus


async def test_a_job_goes_to_its_pool_and_lives_as_long_as_its_order(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    (message,) = await world.controller.outbox.pending(10, ())
    bus = FakeBus(Sent())
    assert await publisher(world, bus).publish(message) == Sent()
    expected = (f"jobs.{ALICE}.{world.tenant}", "main", Job.TYPE, timedelta(hours=1))
    assert bus.given == [expected]


@pytest.mark.parametrize(
    ("answer", "reason"), [(Unroutable(), Reason.UNROUTABLE), (Rejected("the queue is full"), Reason.QUEUE_FULL)]
)
async def test_a_job_that_the_bus_refuses_waits_with_that_reason_and_is_tried_again(
    world: World, alice: FakeProvider, answer: PublishResult, reason: Reason
) -> None:
    run = await world.submit(ONE_JOB)
    (message,) = await world.controller.outbox.pending(10, ())
    await publisher(world, FakeBus(answer)).publish(message)
    assert await world.said() == []
    assert (await world.attempt(message.correlation_id)).state is AttemptState.REFUSED
    due_at = await world.dispatch()
    (why,) = (await world.job(run)).waiting_for
    assert str(reason) in why["detail"]
    assert due_at == world.clock.now() + timedelta(seconds=15)
    world.clock.advance(16)
    await world.dispatch()
    assert (await world.job_order()).number == 2


async def test_a_job_that_the_bus_refuses_goes_elsewhere_at_once(world: World, alice: FakeProvider) -> None:
    cecilia = FakeProvider("cecilia.example", world.issuer, world.clock)
    cecilia.hire("w7")
    await world.meet(cecilia)
    await world.submit(ONE_JOB)
    (message,) = await world.controller.outbox.pending(10, ())
    first = Destination.parse(message.destination).provider
    await publisher(world, FakeBus(Unroutable())).publish(message)
    await world.dispatch()
    (said,) = await world.said()
    assert {first, said.to.provider} == {ALICE, cecilia.name}


async def test_without_a_session_a_message_stays_in_the_outbox(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    (message,) = await world.controller.outbox.pending(10, ())
    assert isinstance(await publisher(world, None).publish(message), Later)
    assert len(await world.controller.outbox.pending(10, ())) == 1


# -- Stores


class FakeStores:
    """Stores that keep, refuse or are away."""

    def __init__(self, act: Callable[[], Awaitable[Refusal | None]]) -> None:
        self._act = act
        self.kept: list[tuple[str, str]] = []

    async def put_blob(self, provider: str, path: Path, digest: str) -> Refusal | None:
        refusal = await self._act()
        if refusal is None:
            assert ids.sha256_hex(path.read_bytes()) == digest
            self.kept.append((provider, digest))
        return refusal


def with_stores(world: World, stores: FakeStores) -> Uploads:
    uploads = Uploads(
        database=world.database,
        snapshots=world.controller.snapshots,
        stores=stores,
        bells=world.bells,
        clock=world.clock,
    )
    world.controller.dispatcher._uploads = uploads
    return uploads


BIG = {"big": bytes(300 * 1024)}
WITH_STORE = "name: p\nstore: bettina.example\njobs:\n  build:\n    steps: [make]\n"


async def test_large_sources_wait_for_their_upload_and_travel_by_digest(world: World, alice: FakeProvider) -> None:
    await world.meet(FakeProvider("bettina.example", world.issuer, world.clock, store=True))

    async def keep() -> None:
        return None

    stores = FakeStores(keep)
    uploads = with_stores(world, stores)
    run = await world.submit(WITH_STORE, files=BIG)
    assert "being uploaded to bettina.example" in (await world.job(run)).waiting_for[0]["detail"]
    await uploads._serve("bettina.example")
    await world.dispatch()
    job = await world.job_order()
    assert (job.store, job.source.inline) == ("bettina.example", None)
    assert stores.kept == [("bettina.example", job.source.digest)]


async def test_the_grant_of_a_large_job_lets_its_worker_read_the_sources_only(
    world: World, alice: FakeProvider
) -> None:
    await world.meet(FakeProvider("bettina.example", world.issuer, world.clock, store=True))

    async def keep() -> None:
        return None

    uploads = with_stores(world, FakeStores(keep))
    await world.submit(WITH_STORE, files=BIG)
    await uploads._serve("bettina.example")
    await world.dispatch()
    job = await world.job_order()
    claim = await alice.workers["w1"].claim(world.tenant, job.attempt)
    await world.hear(ALICE, claim.raw)
    secrets = claim.open(await world.said_one(Grant))
    assert secrets is not None
    assert secrets.store_ticket is not None
    ticket = read(secrets.store_ticket)
    assert (ticket.reads, ticket.reads_all, ticket.write_bytes) == ((job.source.digest,), False, 0)
    assert ticket.holder_key == alice.workers["w1"].key.public
    assert ticket.write_prefix == f"almanac/{job.run}/build/{job.attempt}/"


async def test_large_sources_without_a_store_say_what_to_write_where(world: World, alice: FakeProvider) -> None:
    run = await world.submit(ONE_JOB, files=BIG)
    assert "`store:`" in (await world.job(run)).waiting_for[0]["detail"]


async def test_a_store_that_nobody_knows_is_named(world: World, alice: FakeProvider) -> None:
    run = await world.submit(WITH_STORE, files=BIG)
    assert "no provider `bettina.example` with a store" in (await world.job(run)).waiting_for[0]["detail"]


async def test_a_store_that_is_away_is_the_reason_shown(
    world: World, alice: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.meet(FakeProvider("bettina.example", world.issuer, world.clock, store=True))

    async def away() -> None:
        raise WorldFault("the store cannot be reached")

    uploads = with_stores(world, FakeStores(away))
    run = await world.submit(WITH_STORE, files=BIG)
    digest = (await world.run(run)).source_digest
    assert "cannot be reached" in str(await uploads._upload("bettina.example", digest))


# -- Restarts


async def test_after_a_restart_a_running_job_is_heard_again_before_it_can_be_lost(
    tmp_path: Path, world: World, alice: FakeProvider
) -> None:
    await world.submit(ONE_JOB)
    claim = await alice.workers["w1"].claim(world.tenant, (await world.job_order()).attempt)
    await world.hear(ALICE, claim.raw)
    await world.said()
    world.clock.advance(3_000)
    async with open_world(tmp_path, world.clock) as again:
        await again.controller.lease_watch.look()
        assert (await again.attempt(claim.attempt)).state is AttemptState.GRANTED
        since = again.clock.boottime()
        again.controller.book.learn_hearing(ALICE, lambda: Hearing(since, again.clock.boottime()))
        again.clock.advance(100)
        await again.hear(ALICE, claim.heartbeat())
        again.clock.advance(100)
        await again.controller.lease_watch.look()
        assert (await again.attempt(claim.attempt)).state is AttemptState.GRANTED
        await again.hear(ALICE, claim.finished())
        assert (await again.attempt(claim.attempt)).state is AttemptState.FINISHED


async def test_what_was_in_the_outbox_is_there_after_a_restart(
    tmp_path: Path, world: World, alice: FakeProvider
) -> None:
    run = await world.submit(ONE_JOB)
    async with open_world(tmp_path, world.clock) as again:
        assert (await again.job_order()).run == run


async def test_while_deaf_no_lease_expires(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    claim = await alice.workers["w1"].claim(world.tenant, (await world.job_order()).attempt)
    await world.hear(ALICE, claim.raw)
    world.controller.book.learn_hearing(ALICE, Hearing)
    world.clock.advance(5_000)
    await world.controller.lease_watch.look()
    assert (await world.attempt(claim.attempt)).state is AttemptState.GRANTED


def test_hearing_begins_anew_after_every_break_and_only_once_all_was_read() -> None:
    assert hear(Line(None, 5), Hearing(1, 4)) == Hearing()
    assert hear(Line(10, None), Hearing()) == Hearing()
    assert hear(Line(10, 9), Hearing(1, 9)) == Hearing()
    assert hear(Line(10, 12), Hearing(1, 9)) == Hearing(12, 12)
    assert hear(Line(10, 17), Hearing(12, 12)) == Hearing(12, 17)


# -- Receipts


async def test_usage_of_a_running_job_is_answered_when_its_log_is_settled(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    claim = await alice.workers["w1"].claim(world.tenant, (await world.job_order()).attempt)
    await world.hear(ALICE, claim.raw, claim.usage(world, ids.sha256_hex(alice.rate_card)))
    await world.said()
    assert await world.controller.receipts.answer() == 0
    await world.hear(ALICE, claim.finished())
    await world.controller.settlement.look()
    assert await world.controller.receipts.answer() == 1
    assert await world.controller.receipts.answer() == 0
    (receipt,) = [said.order for said in await world.said() if isinstance(said.order, Receipt)]
    assert (receipt.verdict, receipt.provider, len(receipt.events)) == ("accepted", ALICE, 1)


async def test_usage_of_an_attempt_that_was_never_ours_is_disputed(world: World, alice: FakeProvider) -> None:
    claim = await alice.workers["w1"].claim(world.tenant, ids.new_attempt_id())
    await world.hear(ALICE, claim.usage(world, "f" * 64))
    assert await world.controller.receipts.answer() == 1
    (receipt,) = [said.order for said in await world.said()]
    assert (receipt.verdict, receipt.reason) == ("disputed", "we know no such attempt")


async def test_usage_of_another_customer_is_refused(world: World, alice: FakeProvider) -> None:
    claim = await alice.workers["w1"].claim(world.tenant, ids.new_attempt_id())
    intake = world.controller.intake(ALICE)
    await intake.take([claim.usage(world, "f" * 64, sub="eliza")])
    assert intake.counts.refused == {Reason.IDENTITY_MISMATCH: 1}


# -- Secrets at rest


def test_a_secret_opens_only_under_its_own_name_and_key(tmp_path: Path) -> None:
    make_key(tmp_path / "1")
    make_key(tmp_path / "2")
    vault = Vault.load(tmp_path / "1")
    box = vault.seal("almanac", "TOKEN", "hunter2")
    assert vault.open("almanac", "TOKEN", box) == "hunter2"
    for other, project, name in (
        (vault, "other", "TOKEN"),
        (vault, "almanac", "X"),
        (Vault.load(tmp_path / "2"), "almanac", "TOKEN"),
    ):
        with pytest.raises(OurFault):
            other.open(project, name, box)


async def test_a_granted_job_shows_what_it_may_cost(world: World, alice: FakeProvider) -> None:
    run = await world.submit("name: p\njobs:\n  build:\n    timeout: 10m\n    steps: [make]\n")
    claim = await alice.workers["w1"].claim(world.tenant, (await world.job_order()).attempt)
    await world.hear(ALICE, claim.raw)
    assert (await world.attempt(claim.attempt)).reserved == "6.00 EUR"
    assert (await world.job(run)).state is JobState.RUNNING
