"""What must not be believed, put by a customer onto her own exchanges, or shown by a stranger at his own door.

Each is refused with its reason, the refusal can be seen by the one whom it concerns, and worker and controller go on.
"""

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import aio_pika
import pytest
import pytest_asyncio
from aio_pika.exceptions import AMQPException

from agents.desk import setup as desk_setup
from agents.desk.policy import Standing
from bus.topology import FANOUT_KEY, ProviderNames, jobs_key
from fedci.controller_client import RequestRefused
from fedci.federation.cast import CUSTOMERS, PROVIDERS
from identity.keys import SigningKey
from identity.speech import Speaker
from runtime.clock import SystemClock
from runtime.store_client import StoreClient
from schemas import frame, limits
from schemas.ids import (
    controller_audience,
    new_attempt_id,
    new_claim_id,
    provider_audience,
    sha256_hex,
    store_audience,
)
from schemas.orders import Cancel, Grant, Job
from schemas.refusals import Reason, Refusal
from schemas.reports import Heartbeat, Used
from schemas.tickets import StoreTicket
from tests.federation.by_hand import ByHand, by_hand, copies, envelope, next_of
from tests.federation.fake_desk import NAME, FakeDesk
from tests.federation.ground import Ground
from tests.federation.projects import BOARD, FAST, Project
from tests.federation.waiting import found, until
from tests.runtime.serving import served

ALICE, CECILIA, BETTINA = PROVIDERS
DINAH, ELIZA = CUSTOMERS
LATE = timedelta(seconds=limits.CLOCK_SKEW_SECONDS + 30)


@pytest_asyncio.fixture(scope="module")
async def at_alices(ground: Ground) -> AsyncIterator[ByHand]:
    """Dinah at Alice's bus, past her own controller."""
    async with by_hand(ground, DINAH, ALICE) as customer:
        yield customer


def report_for_order(customer: ByHand) -> bytes:
    """A report, well signed by the customer, who has no business to report."""
    heartbeat = Heartbeat(
        aud=controller_audience(customer.member.tenant),
        provider=ALICE.name,
        agent=ALICE.agent,
        made_at=SystemClock().now(),
        attempt=new_attempt_id(),
        claim=new_claim_id(),
        sequence=0,
        step=0,
        log_bytes=0,
        used=Used(wall_seconds=Decimal(0), cpu_seconds=Decimal(0), memory_peak_bytes=0, is_estimate=True),
    )
    return frame.seal(heartbeat, customer.member.key.private)


UNREADABLE = [
    pytest.param(b"\xc1 no envelope at all", Reason.MALFORMED_FRAME, id="garbage"),
    pytest.param(envelope(Job.TYPE, bytes(limits.JOB_BYTES + 1)), Reason.TOO_LARGE, id="too large"),
    pytest.param(envelope("fedci.spell/1"), Reason.UNKNOWN_TYPE, id="unknown type"),
    pytest.param(envelope("fedci.job/9"), Reason.UNKNOWN_VERSION, id="unknown version"),
    pytest.param(envelope(Job.TYPE), Reason.TOKEN_MISSING, id="no token"),
]


@pytest.mark.parametrize(("body", "reason"), UNREADABLE)
async def test_what_no_worker_can_read_is_refused_to_its_sender_and_the_next_job_runs(
    dinah: Project, at_alices: ByHand, body: bytes, reason: Reason
) -> None:
    before = len(await dinah.refusals(reason))
    await at_alices.offer(body)
    refusal = await dinah.refused(reason, since=before)
    assert (refusal.provider, refusal.attempt) == ("alice.example", None)
    await dinah.can_build(BOARD)


@pytest.mark.parametrize(("body", "reason"), UNREADABLE)
async def test_what_is_no_order_about_a_claim_is_dropped_with_its_reason_and_cancels_still_arrive(
    ground: Ground, dinah: Project, at_alices: ByHand, body: bytes, reason: Reason
) -> None:
    run = await dinah.run("echo under way; sleep 600", at=BOARD)
    await run.says("under way")
    await at_alices.tell_worker(body)
    await run.client.cancel(run.id)
    assert (await run.settled()).reason == "cancelled"
    exchange = at_alices.names.control_exchange(at_alices.member.tenant)
    await ground.logged("alice's worker", "order_refused", exchange=exchange, reason=reason)


async def test_the_bus_itself_takes_nothing_beyond_its_limit(ground: Ground, dinah: Project, at_alices: ByHand) -> None:
    granted = await at_alices.bus.up()
    connection = await aio_pika.connect(ground.access.amqp_url(ALICE.name, granted.user, granted.password))
    async with connection, connection.channel() as channel:
        exchange = await channel.get_exchange(at_alices.names.jobs_exchange(at_alices.member.tenant), ensure=False)
        with pytest.raises(AMQPException):
            await exchange.publish(aio_pika.Message(bytes(limits.BUS_MESSAGE_BYTES + 1)), jobs_key(ALICE.pool))
    await dinah.can_build(BOARD)


async def test_a_report_in_place_of_an_order_is_refused(dinah: Project, at_alices: ByHand) -> None:
    before = len(await dinah.refusals(Reason.WRONG_KIND))
    await at_alices.offer(report_for_order(at_alices))
    assert (await dinah.refused(Reason.WRONG_KIND, since=before)).provider == "alice.example"
    await dinah.can_build(BOARD)


async def test_a_cancel_where_jobs_are_taken_is_refused(dinah: Project, at_alices: ByHand) -> None:
    attempt = new_attempt_id()
    await at_alices.offer(await at_alices.order(Cancel, attempt=attempt, claim=new_claim_id(), cause="user"))
    assert (await dinah.refused(Reason.WRONG_KIND, attempt)).agent == "w1"
    await dinah.can_build(BOARD)


async def test_a_job_for_another_pool_is_refused_by_the_pool_that_it_was_put_before(
    dinah: Project, at_alices: ByHand
) -> None:
    attempt = new_attempt_id()
    await at_alices.offer(await at_alices.job(attempt=attempt, pool="fast"))
    refusal = await dinah.refused(Reason.POOL_UNKNOWN, attempt)
    assert (refusal.scope, refusal.detail) == ("final", "this worker serves the pool boards, not fast")
    await dinah.can_build(BOARD)


async def test_an_order_whose_time_is_over_is_refused_by_the_worker(dinah: Project, at_alices: ByHand) -> None:
    attempt, then = new_attempt_id(), SystemClock().now() - LATE
    await at_alices.offer(await at_alices.job(attempt=attempt, issued_at=then - LATE, expires_at=then))
    assert (await dinah.refused(Reason.EXPIRED, attempt)).agent == "w1"
    await dinah.can_build(BOARD)


async def test_an_order_that_no_slot_had_room_for_in_time_is_answered_by_the_desk(
    dinah: Project, at_alices: ByHand
) -> None:
    blocking = [await dinah.run("echo under way; sleep 600", at=BOARD) for _ in range(2)]
    for run in blocking:
        await run.says("under way")
    attempt, soon = new_attempt_id(), timedelta(seconds=1)
    order = await at_alices.job(attempt=attempt, expires_at=SystemClock().now() + soon)
    await at_alices.offer(order, expires_after=soon)
    refusal = await dinah.refused(Reason.EXPIRED, attempt)
    assert (refusal.agent, refusal.scope) == ("desk", "final")
    for run in blocking:
        await run.client.cancel(run.id)
        await run.over()
    await dinah.can_build(BOARD)


async def test_an_order_that_is_replayed_costs_a_claim_and_never_a_second_run(
    ground: Ground, dinah: Project, at_alices: ByHand
) -> None:
    exchange = at_alices.names.jobs_exchange(at_alices.member.tenant)
    async with copies(ground.access, ALICE, exchange, jobs_key(ALICE.pool)) as spied:
        run = await dinah.run("date +%s%N", at=BOARD)
        order = await next_of(spied)
    (attempt,) = (await run.settled()).attempts
    await ground.logged("alice's worker", "claim_settled", attempt=attempt.id)
    first = await run.view(), await run.log()
    await at_alices.offer(order)
    released = await ground.logged("alice's worker", "claim_released", attempt=attempt.id)
    assert released["reason"] in (Reason.ALREADY_GRANTED, Reason.ATTEMPT_NOT_CURRENT)
    await dinah.can_build(BOARD)
    assert (await run.view(), await run.log()) == first


async def test_other_bytes_for_the_same_attempt_are_equivocation(dinah: Project, at_alices: ByHand) -> None:
    run = await dinah.run("true", at=BOARD)
    (attempt,) = (await run.settled()).attempts
    await at_alices.offer(await at_alices.job(attempt=attempt.id))
    refusal = await dinah.refused(Reason.EQUIVOCATION, attempt.id)
    assert (refusal.agent, refusal.scope) == ("w1", "final")
    assert (await run.job()).attempts == (attempt,)
    await dinah.can_build(BOARD)


async def test_a_grant_for_a_claim_that_nobody_made_starts_nothing(
    ground: Ground, dinah: Project, at_alices: ByHand
) -> None:
    attempt, claim = new_attempt_id(), new_claim_id()
    await at_alices.tell_worker(await at_alices.order(Grant, attempt=attempt, claim=claim, sealed=b"nothing"))
    await ground.logged("alice's worker", "answer_ignored", claim=claim)
    await dinah.can_build(BOARD)


async def test_a_claim_of_an_attempt_that_her_controller_never_made_is_stood_down(
    ground: Ground, dinah: Project, at_alices: ByHand
) -> None:
    attempt = new_attempt_id()
    await at_alices.offer(await at_alices.job(attempt=attempt))
    released = await ground.logged("alice's worker", "claim_released", attempt=attempt)
    assert released["reason"] == Reason.UNKNOWN_ATTEMPT
    orphans = (await dinah.client.status()).orphans
    assert attempt in {orphan.attempt for orphan in orphans}
    await dinah.can_build(BOARD)


@pytest.mark.parametrize("lane", ["replies", "logs"])
async def test_nonsense_from_a_provider_is_counted_by_the_controller_which_listens_on(
    ground: Ground, dinah: Project, at_alices: ByHand, lane: str
) -> None:
    tenant, names = at_alices.member.tenant, ProviderNames(ALICE.name)
    exchange = names.replies(tenant) if lane == "replies" else names.logs(tenant)
    before = await _refused_by_dinah(ground, Reason.MALFORMED_FRAME)
    connection = await aio_pika.connect(ground.access.amqp_url(ALICE.name))
    async with connection, connection.channel() as channel:
        target = await channel.get_exchange(exchange, ensure=False)
        await target.publish(aio_pika.Message(b"\xc1 no envelope at all"), FANOUT_KEY)
    await until(lambda: _refused_by_dinah(ground, Reason.MALFORMED_FRAME), lambda count: count > before)
    await dinah.can_build(BOARD)


async def _refused_by_dinah(ground: Ground, reason: Reason) -> float:
    """How many messages from Alice's bus Dinah's controller refused, by its own metrics."""
    answer = await ground.http.get(f"{ground.places.url('controllers', 'dinah')}/metrics")
    wanted = f'fedci_controller_refused_total{{provider="alice.example",reason="{reason}"}} '
    counts = [line.removeprefix(wanted) for line in answer.text.splitlines() if line.startswith(wanted)]
    return float(counts[0]) if counts else 0.0


# -- At the store


async def _open_tab(ground: Ground, audience: str, holder: SigningKey) -> object:
    """What the store answers Dinah, who shows a ticket of this audience that names this holder's key."""
    member, clock = ground.story.member(DINAH), SystemClock()
    speaker = Speaker([member.account], key=member.key, clock=clock)
    end = clock.now() + timedelta(minutes=1)
    ticket = await speaker.ticket(
        audience, StoreTicket, holder_key=holder.public, attempt=None, reads=(sha256_hex(b""),), tab_ends_at=end
    )
    store = StoreClient(ground.places.url("stores", "bettina"), ground.http, member.key.private, clock)
    return await store.open_tab(ticket)


async def test_a_ticket_for_the_desk_opens_nothing_at_the_store(ground: Ground) -> None:
    answer = await _open_tab(ground, provider_audience(BETTINA.name), ground.story.member(DINAH).key)
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.AUDIENCE


async def test_a_store_ticket_is_worth_nothing_to_who_has_not_the_key_that_it_names(ground: Ground) -> None:
    answer = await _open_tab(ground, store_audience(BETTINA.name), SigningKey.generate())
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.REQUEST_SIGNATURE


# -- Cards


async def test_a_card_that_another_key_signed_is_not_taken(eliza: Project) -> None:
    async with served(FakeDesk(signer=SigningKey.generate()).app()) as url:
        with pytest.raises(RequestRefused) as told:
            await eliza.client.add_provider(url)
    assert told.value.refusal.reason is Reason.CARD_SIGNATURE
    assert NAME not in {provider.name for provider in await eliza.client.providers()}


async def test_a_provider_whose_root_is_not_what_its_owner_said_is_not_taken(eliza: Project) -> None:
    async with served(FakeDesk().app()) as url:
        with pytest.raises(RequestRefused) as told:
            await eliza.client.add_provider(url, fingerprint="00" * 32)
    assert told.value.refusal.reason is Reason.ROOT_CHANGED
    assert NAME not in {provider.name for provider in await eliza.client.providers()}


async def test_a_root_that_changes_later_is_an_alarm_and_gets_no_work(ground: Ground, eliza: Project) -> None:
    desk, role = FakeDesk(), ground.role("eliza's controller")
    async with served(desk.app()) as url:
        await eliza.client.add_provider(url)
        desk.root, desk.serial = SigningKey.generate(), 2
        await ground.processes.end(role)  # a card is looked at when a controller starts, and every minute
        await ground.processes.start(role)

        async def alarm() -> str | None:
            return next(each.alarm for each in await eliza.client.providers() if each.name == NAME)

        assert (await found(alarm)).startswith("root-changed: its root key changed to ")
        assert NAME in {each.provider for each in (await eliza.client.status()).alarms}
        run = await eliza.run("true", at="machine=quantum")
        reasons = {why.provider: why.obstacle for why in await run.waits_for("alarm")}
        assert reasons[NAME] == "alarm"
        await run.client.cancel(run.id)
    await eliza.can_build(FAST)


# -- Whom the owner no longer wants


async def test_a_tenant_that_is_suspended_is_cut_off_and_told_why_and_works_on_when_approved(
    ground: Ground, dinah: Project
) -> None:
    desk, tenant = ground.places.of("desks", "alice"), ground.story.member(DINAH).tenant

    async def trouble() -> str:
        return next(each.trouble for each in await dinah.client.providers() if each.name == "alice.example")

    assert await trouble() == ""
    assert await desk_setup.judge(desk, tenant, Standing.SUSPENDED)
    try:
        told = await until(trouble, lambda text: "suspended" in text, seconds=60)
        assert told == "the desk refused: suspended: the provider's owner has suspended this account"
        run = await dinah.run("echo at last", at=BOARD)
        reasons = {why.provider: why.detail for why in await run.waits_for("no-session")}
        assert reasons["alice.example"] == told
        await dinah.can_build(FAST)
    finally:
        await desk_setup.judge(desk, tenant, Standing.ADMITTED)
    assert (await run.settled()).state == "succeeded"
    assert await trouble() == ""
