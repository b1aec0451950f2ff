"""Roles that die and come back, and connections that break, while a job runs: it goes on, and nothing of it is lost."""

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from broker.views import JobView, UsageOfProvider
from tests.federation.ground import Ground
from tests.federation.projects import BOARD, Project, Run
from tests.federation.waiting import until

TICKS = 40
SLOWLY = f"for tick in $(seq {TICKS}); do echo tick $tick; sleep 0.1; done"
"""Four seconds of work that say so ten times a second."""


async def is_whole(run: Run, done: JobView) -> None:
    """The job ran once, to its end, and every byte of its log is here, in order."""
    assert (done.state, len(done.attempts)) == ("succeeded", 1), done
    log = await run.log()
    assert [line for line in log.splitlines() if line.startswith("tick")] == [f"tick {n}" for n in range(1, TICKS + 1)]
    assert done.log is not None
    assert (done.log.is_whole, done.log.sha256) == (True, hashlib.sha256(log.encode()).hexdigest())


async def usage_of(project: Project, provider: str, attempt: str, meters: int) -> UsageOfProvider:
    """What the provider stated, once it has stated so many meters of this attempt."""

    def is_complete(usage: UsageOfProvider) -> bool:
        return len([event for event in usage.events if event.attempt == attempt]) >= meters

    return await until(lambda: project.client.usage(provider), is_complete)


@asynccontextmanager
async def away(ground: Ground, title: str, number: signal.Signals = signal.SIGTERM) -> AsyncIterator[None]:
    """End a role with this signal, and start it again at the end of the block; asked politely, it ends well."""
    role = ground.role(title)
    async with asyncio.timeout(30):
        status = await ground.processes.end(role, number)
    try:
        assert status == (0 if number is signal.SIGTERM else -number), role.log.read_text()[-3000:]
        yield
    finally:
        await ground.processes.start(role)


async def again(ground: Ground, title: str, number: signal.Signals) -> None:
    """End a role with this signal and start it again."""
    async with away(ground, title, number):
        pass


async def test_a_controller_that_is_away_for_a_while_misses_nothing_of_a_running_job(
    ground: Ground, dinah: Project
) -> None:
    run = await dinah.run(SLOWLY, at=BOARD, artifacts={"proof": ["README"]})
    await run.says("tick 3\n")
    await again(ground, "dinah's controller", signal.SIGTERM)
    await again(ground, "dinah's controller", signal.SIGKILL)
    done = await run.settled()
    await is_whole(run, done)
    assert [artifact.path for artifact in await dinah.client.artifacts(run.id)] == ["README"]
    usage = await usage_of(dinah, "alice.example", done.attempts[0].id, meters=3)
    about = [event.meter for event in usage.events if event.attempt == done.attempts[0].id]
    assert sorted(about) == sorted(set(about)), "each meter of an attempt is stated once"


async def test_a_job_that_ended_while_the_controller_was_away_is_known_when_it_is_back(
    ground: Ground, dinah: Project
) -> None:
    run = await dinah.run(SLOWLY, at=BOARD)
    await run.says("tick 3\n")
    attempt = (await run.job()).attempts[0].id
    async with away(ground, "dinah's controller", signal.SIGKILL):
        await ground.logged("alice's worker", "job_ended", attempt=attempt)
    await is_whole(run, await run.settled())


async def test_a_worker_that_is_asked_to_stop_finishes_its_jobs_and_leaves_what_waits_to_its_next_life(
    ground: Ground, dinah: Project
) -> None:
    running = [await dinah.run(SLOWLY, at=BOARD) for _ in range(2)]
    for run in running:
        await run.says("tick 1\n")
    waiting = await dinah.run("echo at last", at=BOARD)
    await waiting.waits_for("queued")
    async with away(ground, "alice's worker"):
        for run in running:
            await is_whole(run, await run.settled())
        assert (await waiting.job()).state in ("queued", "waiting")
    assert (await waiting.settled()).state == "succeeded"


async def test_a_worker_that_is_killed_takes_its_job_with_it_and_the_job_is_run_again(
    ground: Ground, dinah: Project
) -> None:
    run = await dinah.run("echo begun", SLOWLY, at=BOARD, retries=1)
    await run.says("tick 3\n")
    await again(ground, "alice's worker", signal.SIGKILL)
    done = await run.settled()
    assert done.state == "succeeded"
    assert [(attempt.state, attempt.reason) for attempt in done.attempts] == [
        ("finished", "worker-restarted"),
        ("finished", "succeeded"),
    ]
    first = (await run.client.log(run.id, "job", attempt=1)).decode()
    assert "tick 3\n" in first
    assert f"tick {TICKS}\n" not in first


async def test_a_job_survives_that_all_connections_to_rabbitmq_are_cut(ground: Ground, dinah: Project) -> None:
    run = await dinah.run(SLOWLY, at=BOARD)
    await run.says("tick 3\n")
    assert await cut_all_connections(ground) >= 10
    await run.says("tick 20\n")
    await cut_all_connections(ground)
    await is_whole(run, await run.settled())
    await dinah.can_build(BOARD)


async def cut_all_connections(ground: Ground) -> int:
    """Have RabbitMQ close every connection that it has; how many that were."""
    access = ground.access
    async with httpx.AsyncClient(base_url=access.api_url, auth=(access.user, access.password), trust_env=False) as api:
        connections = (await api.get("/api/connections")).json()
        for connection in connections:
            await api.delete(f"/api/connections/{connection['name']}", headers={"x-reason": "a test cuts all"})
    return len(connections)


async def test_work_goes_on_while_a_desk_restarts(ground: Ground, dinah: Project) -> None:
    run = await dinah.run(SLOWLY, at=BOARD)
    await run.says("tick 3\n")
    async with away(ground, "alice's desk"):
        await dinah.can_build(BOARD)  # open sessions work to their end
    await is_whole(run, await run.settled())
    await dinah.can_build(BOARD)


async def test_work_that_runs_goes_on_while_its_issuer_is_away(ground: Ground, dinah: Project) -> None:
    run = await dinah.run(SLOWLY, at=BOARD)
    await run.says("tick 3\n")
    await again(ground, "fatima's identity server", signal.SIGKILL)
    await is_whole(run, await run.settled())
    await dinah.can_build(BOARD)


@pytest.mark.parametrize("title", ["bettina's store", "bettina's ledger", "alice's ledger"])
async def test_who_is_killed_between_two_jobs_serves_the_second(ground: Ground, dinah: Project, title: str) -> None:
    await again(ground, title, signal.SIGKILL)
    run = await dinah.run("echo made > proof", at=BOARD, artifacts={"proof": ["proof"]})
    assert (await run.settled()).state == "succeeded"
