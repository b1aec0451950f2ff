"""The story of one job, told with an executor that does as it is told."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agents.sandbox.causes import Cause
from agents.sandbox.executor import End, SandboxUnavailable
from agents.worker.journal.claims import ClaimState
from agents.worker.orders.claims import Claimed
from agents.worker.services import Services
from agents.worker.speech import logs
from agents.worker.speech.voice import ClaimRef
from bus.delivery import Fate
from runtime.errors import WorldFault
from runtime.outbox import Later, Sent
from schemas import ids
from schemas.ends import EndReason
from schemas.orders import InputFile, OutputArtifact, Source
from schemas.refusals import Reason, Refusal
from schemas.reports import Claim, Finished, Heartbeat, Log, Released
from schemas.statements import Usage
from tests.agents.worker.jobs import inline_source
from tests.agents.worker.tars import tar_of
from tests.agents.worker.world import NAMES, FakeDelivery, Script, World
from tests.clocks import ManualClock

STORE = "bettina.example"
TICKET = b"ticket"


async def _claim(world: World, services: Services, **job: Any) -> tuple[Claimed, Claim]:
    claimed = await services.claims.take_in(await world.dinah.offer(**job))
    assert claimed is not None
    return claimed, world.bus.of(Claim)[-1]


async def _run(world: World, job: dict[str, Any] | None = None, **grant: Any) -> Finished:
    """Take a job, grant it, live it to its end; what it finished with."""
    async with world.running() as services:
        claimed, claim = await _claim(world, services, **(job or {}))
        assert await services.control.handle(await world.dinah.grant(claim, **grant)) is Fate.SETTLED
        await services.lives.live(claimed, 0)
        return await world.bus.until(Finished)  # type: ignore[no-any-return]


async def test_a_granted_job_runs_and_everything_is_told(world: World) -> None:
    finished = await _run(world)
    assert finished.reason is EndReason.SUCCEEDED
    assert [step.name for step in finished.steps] == ["make"]
    assert [said.exchange for said in world.bus.published if isinstance(said.message, Finished)] == [
        NAMES.replies(world.dinah.tenant)
    ]


async def test_the_log_is_whole_and_begins_with_where_it_ran(world: World) -> None:
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        await services.control.handle(await world.dinah.grant(claim))
        await services.lives.live(claimed, 0)
        finished = await world.bus.until(Finished)
        await world.bus.until_true(lambda: sum(len(log.data) for log in world.bus.of(Log)) == finished.log_bytes)
    log = world.bus.log()
    assert log.endswith(b"made\n")
    assert log.startswith(b"[fedci] worker w7 of alice.example, sandbox fake, network off\n")
    assert b"not enforced here: the weather" in log
    assert (len(log), ids.sha256_hex(log)) == (finished.log_bytes, finished.log_sha256)


async def test_usage_is_billed_and_the_same_bytes_go_to_the_customer(world: World) -> None:
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        await services.control.handle(await world.dinah.grant(claim))
        await services.lives.live(claimed, 0)
        await world.bus.until(Usage, 10)
    said = [each for each in world.bus.published if isinstance(each.message, Usage)]
    billed = {each.routing_key: each.body for each in said if each.exchange == NAMES.billing_exchange}
    copies = {each.body for each in said if each.exchange == NAMES.replies(world.dinah.tenant)}
    assert f"usage.{world.dinah.tenant}.wall-seconds" in billed
    assert len(billed) == 5
    assert set(billed.values()) == copies


async def test_a_failed_step_is_the_jobs_fault(world: World) -> None:
    world.fake.script = Script(end=End.FAILED)
    assert (await _run(world)).reason is EndReason.EXIT_CODE


async def test_a_sandbox_that_cannot_be_made_is_the_providers_fault(world: World) -> None:
    world.fake.script = Script(fault=SandboxUnavailable("no namespaces"))
    finished = await _run(world)
    assert (finished.reason, finished.detail) == (EndReason.SANDBOX_FAILED, "no namespaces")


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), RuntimeError("a surprise")])
async def test_whatever_breaks_the_end_is_reported_as_ours(world: World, fault: Exception) -> None:
    world.fake.script = Script(fault=fault)
    finished = await _run(world)
    assert finished.reason is EndReason.SANDBOX_FAILED


# -- the grant


async def test_nothing_starts_without_a_grant(world: World) -> None:
    world.patience = world.patience.__class__(publish_seconds=0.05)
    async with world.running() as services:
        claimed, _ = await _claim(world, services)
        await services.lives.live(claimed, 0)
        released = await world.bus.until(Released)
        assert await services.journal.claims() == []
    assert released.reason is Reason.GRANT_TOO_LATE
    assert world.fake.sandboxes == []


async def test_a_grant_that_comes_late_by_the_boot_clock_starts_nothing(world: World, clock: ManualClock) -> None:
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        grant = await world.dinah.grant(claim)
        clock.advance(world.patience.publish_seconds)  # the machine slept: the loop's timers did not notice
        await services.control.handle(grant)
        await services.lives.live(claimed, 0)
        released = await world.bus.until(Released)
    assert released.reason is Reason.GRANT_TOO_LATE
    assert world.fake.sandboxes == []


async def test_a_stand_down_releases_with_the_controllers_reason(world: World) -> None:
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        await services.control.handle(await world.dinah.stand_down(claim, Reason.CANCELLED))
        await services.lives.live(claimed, 0)
        released = await world.bus.until(Released)
    assert released.reason is Reason.CANCELLED
    assert world.fake.sandboxes == []


async def test_a_replayed_grant_never_starts_a_second_run(world: World) -> None:
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        grant = await world.dinah.grant(claim)
        await services.control.handle(grant)
        await services.lives.live(claimed, 0)
        await world.bus.until(Finished)
        assert await services.control.handle(FakeDelivery(grant.body, grant.exchange)) is Fate.SETTLED
        await services.lives.live(claimed, 0)  # even were the whole life told again
        assert len(await services.journal.claims()) == 1
    assert len(world.fake.sandboxes) == 1


async def test_a_grant_after_the_release_is_ignored(world: World) -> None:
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        grant = await world.dinah.grant(claim)
        await services.control.handle(await world.dinah.stand_down(claim))
        await services.lives.live(claimed, 0)
        assert await services.control.handle(grant) is Fate.SETTLED
        assert services.handles.all() == ()
    assert world.fake.sandboxes == []


async def test_a_second_other_grant_is_an_alarm_and_the_first_one_stands(world: World) -> None:
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        await services.control.handle(await world.dinah.grant(claim))
        await services.control.handle(await world.dinah.grant(claim, lease_seconds=60))
        assert services.counts.alarms._value.get() == 1
        await services.lives.live(claimed, 0)
        assert await services.control.handle(await world.dinah.grant(claim, lease_seconds=61)) is Fate.DEAD
        assert services.counts.alarms._value.get() == 2
    assert len(world.fake.sandboxes) == 1


# -- secrets, sources, artifacts


async def test_secrets_reach_the_job_and_nothing_else(world: World) -> None:
    await _run(world, {"secrets": ("TOKEN",)}, secrets={"TOKEN": "s3cret", "UNASKED": "x"})
    assert world.fake.sandboxes[0].spec.secrets == {"TOKEN": "s3cret"}
    assert b"s3cret" not in b"".join(path.read_bytes() for path in world.directory.glob("journal.sqlite*"))


async def test_a_secret_that_the_grant_does_not_bring_ends_the_job(world: World) -> None:
    finished = await _run(world, {"secrets": ("TOKEN",)})
    assert finished.reason is EndReason.SECRET_MISSING
    assert "TOKEN" in finished.detail


async def test_a_box_for_another_claim_does_not_open(world: World) -> None:
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        _, other = await _claim(world, services)
        moved = other.model_copy(update={"claim": claim.claim, "attempt": claim.attempt})
        await services.control.handle(await world.dinah.grant(moved))
        await services.lives.live(claimed, 0)
        assert (await world.bus.until(Finished)).reason is EndReason.SECRET_MISSING


async def test_the_source_is_unpacked_into_the_workspace(world: World) -> None:
    await _run(world, {"source": inline_source(tar_of({"src/main.c": b"int main;"}))})
    assert (world.fake.sandboxes[0].workspace / "src/main.c").read_bytes() == b"int main;"


async def test_a_source_that_is_not_what_its_digest_says_never_reaches_the_sandbox(world: World) -> None:
    tar = tar_of({"a": b"a"})
    lie = Source(digest="ab" * 32, size_bytes=len(tar), revision="r", inline=tar)
    assert (await _run(world, {"source": lie})).reason is EndReason.SOURCE_REFUSED
    assert world.fake.sandboxes == []


async def test_a_source_that_leads_out_is_refused(world: World) -> None:
    finished = await _run(world, {"source": inline_source(tar_of({"../evil": b"x"}))})
    assert finished.reason is EndReason.SOURCE_REFUSED


def _stored(world: World, data: bytes) -> str:
    digest = ids.sha256_hex(data)
    world.stores.blobs[digest] = data
    return digest


async def test_a_large_source_and_inputs_come_from_the_store(world: World) -> None:
    tar, wheel = tar_of({"a": b"source"}), b"wheel"
    source = Source(digest=_stored(world, tar), size_bytes=len(tar), revision="r")
    inputs = (InputFile(path="dist/x.whl", digest=_stored(world, wheel), size_bytes=len(wheel)),)
    finished = await _run(world, {"source": source, "inputs": inputs, "store": STORE}, store_ticket=TICKET)
    workspace = world.fake.sandboxes[0].workspace
    assert finished.reason is EndReason.SUCCEEDED
    assert (workspace / "a").read_bytes() == b"source"
    assert (workspace / "dist/x.whl").read_bytes() == wheel
    assert (world.stores.tickets, world.stores.closed) == ([TICKET], 1)
    assert list((world.directory / "scratch").iterdir()) == []


async def test_an_input_is_not_written_through_a_link_of_the_source(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "workspaces" / "outside"
    wheel = b"wheel"
    job = {
        "source": inline_source(tar_of({"real/keep": b""}, links={"dist": "real"})),
        "inputs": (InputFile(path="dist/x.whl", digest=_stored(world, wheel), size_bytes=len(wheel)),),
        "store": STORE,
    }
    finished = await _run(world, job, store_ticket=TICKET)
    assert finished.reason is EndReason.INPUT_UNAVAILABLE
    assert not outside.exists()


ENDS_OF_STORES: list[tuple[EndReason, Refusal | None, Exception | None, bytes | None]] = [
    (EndReason.TICKET_REFUSED, Refusal(Reason.REVOKED), None, TICKET),
    (EndReason.STORE_UNAVAILABLE, None, WorldFault("away"), TICKET),
    (EndReason.TICKET_REFUSED, None, None, None),
    (EndReason.SOURCE_UNAVAILABLE, None, None, TICKET),
]


@pytest.mark.parametrize(("reason", "refusal", "fault", "ticket"), ENDS_OF_STORES)
async def test_a_source_that_cannot_be_had_is_not_the_providers_fault(
    world: World, reason: EndReason, refusal: Refusal | None, fault: Exception | None, ticket: bytes | None
) -> None:
    world.stores.refusal, world.stores.fault = refusal, fault
    source = Source(digest="ab" * 32, size_bytes=10, revision="r")
    assert (await _run(world, {"source": source, "store": STORE}, store_ticket=ticket)).reason is reason


async def test_artifacts_are_stored_and_reported(world: World) -> None:
    job = {
        "source": inline_source(tar_of({"dist/a.whl": b"wheel", "dist/b.whl": b"other"})),
        "artifacts": (OutputArtifact(name="wheels", paths=("dist/*.whl",)),),
        "store": STORE,
    }
    finished = await _run(world, job, store_ticket=TICKET)
    assert [(file.artifact, file.path) for file in finished.artifacts] == [
        ("wheels", "dist/a.whl"),
        ("wheels", "dist/b.whl"),
    ]
    assert world.stores.names["dist/a.whl"] == finished.artifacts[0].digest == ids.sha256_hex(b"wheel")


async def test_a_missing_artifact_fails_the_job(world: World) -> None:
    job = {"artifacts": (OutputArtifact(name="wheel", paths=("dist/*.whl",)),), "store": STORE}
    finished = await _run(world, job, store_ticket=TICKET)
    assert finished.reason is EndReason.ARTIFACT_MISSING
    assert "artifact wheel" in finished.detail


async def test_artifacts_over_the_limit_are_refused(world: World) -> None:
    job = {
        "source": inline_source(tar_of({"a": b"12345"})),
        "artifacts": (OutputArtifact(name="a", paths=("a",)),),
        "artifact_bytes": 4,
        "store": STORE,
    }
    assert (await _run(world, job, store_ticket=TICKET)).reason is EndReason.ARTIFACT_REFUSED


# -- ends from outside


async def test_a_cancel_ends_the_job_as_cancelled(world: World) -> None:
    world.fake.script = Script(lasts=True)
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        await services.control.handle(await world.dinah.grant(claim))
        living = asyncio.create_task(services.lives.live(claimed, 0))
        await world.bus.until(Heartbeat)
        await services.control.handle(await world.dinah.cancel(claim))
        await living
        assert (await world.bus.until(Finished)).reason is EndReason.CANCELLED


async def test_a_cancel_before_the_grant_releases(world: World) -> None:
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        await services.control.handle(await world.dinah.cancel(claim))
        await services.lives.live(claimed, 0)
        assert (await world.bus.until(Released)).reason is Reason.CANCELLED


async def test_the_first_cause_stands(world: World) -> None:
    world.fake.script = Script(lasts=True)
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        await services.control.handle(await world.dinah.grant(claim))
        living = asyncio.create_task(services.lives.live(claimed, 0))
        await world.bus.until(Heartbeat)
        claimed.handle.stop(Cause.SHUTDOWN)
        await services.control.handle(await world.dinah.cancel(claim))
        await living
        assert (await world.bus.until(Finished)).reason is EndReason.WORKER_SHUTDOWN


async def test_only_confirmed_heartbeats_extend_the_lease(world: World) -> None:
    world.fake.script = Script(lasts=True)
    world.bus.answer = lambda said: Later("blocked") if isinstance(said.message, Heartbeat) else Sent()
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        await services.control.handle(await world.dinah.grant(claim, lease_seconds=1))
        living = asyncio.create_task(services.lives.live(claimed, 0))
        # The log's first lines are written before the sandbox is made.
        async with asyncio.timeout(10):
            while not (world.fake.sandboxes and world.fake.sandboxes[0].leases):  # noqa: ASYNC110 - turns, not time
                await asyncio.sleep(0)
        sandbox = world.fake.sandboxes[0]
        assert sandbox.leases == [claimed.window.claim_sent_at + 0.75]
        world.bus.answer = lambda _: Sent()
        await world.bus.until(Heartbeat)
        world.clock.advance(1)  # type: ignore[attr-defined]
        await world.bus.until(Heartbeat, 3)
        assert sandbox.leases[-1] >= claimed.window.claim_sent_at + 1.75
        claimed.handle.stop(Cause.LEASE_LOST)
        await living
        assert (await world.bus.until(Finished)).reason is EndReason.LEASE_LOST


async def test_a_killed_life_leaves_a_claim_that_the_next_start_reports(world: World) -> None:
    world.fake.script = Script(lasts=True, chunks=[b"half of "])
    async with world.running() as services:
        claimed, claim = await _claim(world, services)
        await services.control.handle(await world.dinah.grant(claim))
        living = asyncio.create_task(services.lives.live(claimed, 0))
        await world.bus.until_true(lambda: b"half of " in world.bus.log())
        living.cancel()
        await asyncio.wait([living])
        (entry,) = await services.journal.claims()
        assert entry.state is ClaimState.GRANTED
        assert world.bus.of(Finished) == []
    async with world.running() as services:
        finished = await world.bus.until(Finished)
        await world.bus.until(Usage, 10)
        assert services.handles.all() == ()
    assert finished.reason is EndReason.WORKER_RESTARTED
    assert finished.log_bytes == len(world.bus.log())
    assert finished.log_sha256 == ids.sha256_hex(world.bus.log())
    sequences = [report.sequence for report in (*world.bus.of(Heartbeat), *world.bus.of(Finished))]
    assert len(set(sequences)) == len(sequences)


async def test_a_claim_without_grant_is_released_after_a_restart_and_may_come_again(world: World) -> None:
    offer = await world.dinah.offer()
    async with world.running() as services:
        assert await services.claims.take_in(offer) is not None
    async with world.running() as services:
        released = await world.bus.until(Released)
        again = await services.claims.take_in(FakeDelivery(offer.body, offer.exchange))
        assert again is not None
    assert released.reason is Reason.DRAINING
    first, second = world.bus.of(Claim)
    assert first.claim != second.claim


async def test_a_journal_without_room_does_not_end_the_sending_of_a_log(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How far the bus has a log is noted now and then, and is no more than a help for the next start."""
    monkeypatch.setattr(logs, "NOTE_SECONDS", 0.001)
    async with world.running() as services:
        failed = asyncio.Event()

        async def no_room(*_: object, **__: object) -> None:
            failed.set()
            raise WorldFault("the disk is full")

        stream = await services.logs.open(ClaimRef(world.dinah.tenant, ids.new_attempt_id(), ids.new_claim_id()))
        with monkeypatch.context() as patched:
            patched.setattr(services.journal, "note_log", no_room)
            await stream.write(b"one ")
            await failed.wait()
        await stream.write(b"two")
        await stream.close()
        await world.bus.until_true(lambda: world.bus.log() == b"one two")
