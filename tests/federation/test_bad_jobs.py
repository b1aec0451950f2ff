"""Jobs that fail, misbehave or cannot run: each ends with its own reason, loses nothing, and harms nobody else."""

import hashlib
import secrets
from pathlib import Path

import pytest

from fedci.controller_client import RequestRefused
from schemas import limits
from tests.federation.ground import Ground
from tests.federation.projects import BOARD, Project, job, snapshot


def processes_with(mark: str) -> list[str]:
    """The processes of this machine that have this text in their environment."""
    living = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                living.append(process.name)
        except OSError:
            continue  # it ended meanwhile
    return living


@pytest.fixture
def mark() -> str:
    """What tells the processes of one job from all others: a value in its environment."""
    return secrets.token_hex(16)


async def test_a_step_that_fails_is_the_last_one_and_its_log_is_kept(dinah: Project) -> None:
    run = await dinah.run("echo before", "echo on stderr >&2; exit 7", "echo after", at=BOARD)
    done = await run.settled()
    assert (done.state, done.reason) == ("failed", "exit-code")
    assert done.detail == "step 'echo on stderr >&2; exit 7' exited with 7"
    log = await run.log()
    assert "before\n" in log
    assert "on stderr\n" in log
    assert "after" not in log
    assert done.log is not None
    assert done.log.sha256 == hashlib.sha256(log.encode()).hexdigest()


async def test_a_failure_is_not_tried_again_and_what_needs_it_is_skipped(dinah: Project) -> None:
    run = await dinah.submit(first=job("false", retries=3), second=job("true", needs=["first"]))
    over = await run.over()
    assert (over.state, [each.state for each in over.graph]) == ("failed", ["failed", "skipped"])
    assert len((await run.job("first")).attempts) == 1
    assert (await run.job("second")).detail == "`first` did not succeed"


async def test_a_step_that_a_signal_ends_says_which(dinah: Project) -> None:
    done = await (await dinah.run("kill -SEGV $$")).settled()
    assert (done.state, done.reason) == ("failed", "signal")
    assert "signal 11" in (done.detail or "")


async def test_a_flood_of_log_ends_the_job_and_what_is_kept_of_it_is_whole(dinah: Project) -> None:
    run = await dinah.run("yes this line is said for ever", at=BOARD)
    done = await run.settled()
    assert (done.state, done.reason) == ("failed", "log-limit")
    assert done.log is not None
    assert done.log.is_whole
    assert limits.JOB_LOG_BYTES <= done.log.bytes <= limits.JOB_LOG_BYTES + limits.MIB
    assert done.log.sha256 == hashlib.sha256(await run.client.log(run.id, "job")).hexdigest()


async def test_a_job_that_forks_without_end_ends_and_leaves_nothing_running(dinah: Project, mark: str) -> None:
    bomb = "bomb() { bomb | bomb & }; bomb; sleep 600"
    run = await dinah.run(bomb, at=BOARD, timeout="4s", resources={"processes": 64}, env={"MARK": mark})
    done = await run.settled()
    assert (done.state, done.reason) in {("failed", "timeout"), ("failed", "exit-code")}
    assert processes_with(mark) == []
    await dinah.can_build(BOARD)


async def test_a_job_that_outlives_its_timeout_is_ended_with_all_its_children(dinah: Project, mark: str) -> None:
    run = await dinah.run("setsid sleep 600 & trap '' TERM; sleep 600", timeout="1s", env={"MARK": mark})
    await run.until(lambda each: each.state == "running")
    done = await run.settled()
    assert (done.state, done.reason, done.detail) == ("failed", "timeout", "the job outlived its timeout")
    assert processes_with(mark) == []


async def test_an_artifact_that_was_promised_and_is_not_there_fails_the_job(dinah: Project) -> None:
    done = await (await dinah.run("touch other", artifacts={"wheel": ["dist/*.whl"]})).settled()
    assert (done.state, done.reason) == ("failed", "artifact-missing")
    assert done.detail == "artifact wheel, dist: there is no such file"


async def test_a_job_waits_for_a_secret_that_its_project_lacks_and_goes_on_when_it_has_it(dinah: Project) -> None:
    run = await dinah.run('test "$DEPLOY_KEY" = open-sesame && echo as expected', secrets=["DEPLOY_KEY"])
    (why,) = await run.waits_for("secret-missing")
    assert why.detail == "the project has no secret `DEPLOY_KEY`; set it and the job goes on"
    await dinah.client.set_secret(dinah.name, "DEPLOY_KEY", "open-sesame")
    assert (await run.settled()).state == "succeeded"
    assert "open-sesame" not in await run.log()


async def test_a_job_has_no_way_to_bus_desk_or_anywhere(ground: Ground, dinah: Project) -> None:
    ports = [ground.access.amqp_port, ground.places.ports["desks/alice"], ground.places.ports["controllers/dinah"]]
    script = f"""
import socket
for address in [*(("127.0.0.1", port) for port in {ports}), ("192.0.2.1", 80), ("8.8.8.8", 53)]:
    try:
        socket.create_connection(address, 2)
    except OSError as error:
        print("shut:", error.strerror)
    else:
        print("OPEN:", address)
print("interfaces:", *(name for _, name in socket.if_nameindex()))
"""
    run = await dinah.submit({"probe.py": script.encode()}, job=job("python probe.py", at=BOARD, toolchain="python"))
    assert (await run.settled()).state == "succeeded"
    log = await run.log()
    assert log.count("shut:") == 5
    assert "OPEN" not in log
    assert "interfaces: lo\n" in log
    assert "network off" in log


async def test_a_job_cannot_read_what_is_its_workers_or_anybody_elses(ground: Ground, dinah: Project) -> None:
    home = ground.places.of("workers", "alice")
    files = [*home.glob("*.*"), *ground.places.of("controllers", "dinah").glob("*.*"), Path("/etc/shadow")]
    probes = [f"if cat {file} >/dev/null 2>&1; then echo OPEN {file}; fi" for file in files]
    others = "for each in /proc/[0-9]*/environ; do tr '\\0' '\\n' <$each; done 2>/dev/null | grep -c ^PYTHONPATH= || :"
    run = await dinah.run("\n".join(probes), f"ls {home} || echo nothing there", others, "id -u", at=BOARD)
    assert (await run.settled()).state == "succeeded"
    log = await run.log()
    assert "OPEN" not in log
    assert "nothing there\n0\n" in log
    assert not log.endswith("\n0\n0\n"), "a job never runs as root"


async def test_a_job_whose_labels_nobody_offers_waits_and_says_which_of_whom(dinah: Project) -> None:
    run = await dinah.run("true", at="machine=quantum")
    reasons = {why.provider: why for why in await run.waits_for("labels-not-offered")}
    assert reasons["alice.example"].obstacle == reasons["cecilia.example"].obstacle == "labels-not-offered"
    assert reasons["alice.example"].detail.startswith("pool boards: has not `machine=quantum`; it has ")
    assert "`machine=fast`" in reasons["cecilia.example"].detail
    assert reasons["bettina.example"].detail == "it has no pool of workers at the moment"
    await run.client.cancel(run.id)
    assert (await run.over()).state == "cancelled"


async def test_a_job_whose_toolchain_nobody_offers_waits_and_says_what_there_is(dinah: Project) -> None:
    run = await dinah.run("true", at=BOARD, toolchain="cobol")
    reasons = {why.provider: why for why in await run.waits_for("toolchain-not-offered")}
    assert reasons["alice.example"].detail == "pool boards: has no toolchain `cobol`; it has `python`"
    await run.client.cancel(run.id)
    assert (await run.over()).state == "cancelled"


async def test_a_running_job_that_is_cancelled_is_gone_with_all_its_children(dinah: Project, mark: str) -> None:
    run = await dinah.run("setsid sleep 600 & echo under way; wait", "echo never", at=BOARD, env={"MARK": mark})
    await run.says("under way")
    assert processes_with(mark)
    await run.client.cancel(run.id)
    done = await run.settled()
    assert (done.state, done.reason) == ("cancelled", "cancelled")
    assert processes_with(mark) == []
    assert "never" not in await run.log()


async def test_a_job_that_waits_for_a_slot_can_be_cancelled_and_never_starts(dinah: Project) -> None:
    blocking = [await dinah.run("echo under way; sleep 600", at=BOARD) for _ in range(2)]
    for run in blocking:
        await run.says("under way")
    waiting = await dinah.run("echo never", at=BOARD)
    (why,) = await waiting.waits_for("queued")
    assert why.detail == "its order waits for a free worker of the pool boards"
    await waiting.client.cancel(waiting.id)
    assert (await waiting.over()).state == "cancelled"
    for run in blocking:
        await run.client.cancel(run.id)
        assert (await run.over()).state == "cancelled"
    await dinah.can_build(BOARD)
    assert (await waiting.job()).log is None


async def test_a_broken_pipeline_is_told_with_line_and_column_and_starts_nothing(dinah: Project) -> None:
    before = await dinah.client.runs()
    with pytest.raises(RequestRefused) as told:
        await dinah.client.submit(
            dinah.name,
            snapshot=snapshot({".fedci.yml": b"name: small\njobs:\n  test:\n    stepps: [true]\n    needs: [test]\n"}),
            revision="test",
        )
    assert ".fedci.yml:4:5: " in str(told.value)
    assert "did you mean `steps`?" in str(told.value)
    assert await dinah.client.runs() == before
