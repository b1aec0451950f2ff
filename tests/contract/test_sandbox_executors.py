"""What every executor promises (`agents.sandbox.executor`), kept by bubblewrap and by the plain process alike."""

import asyncio
import dataclasses
import os
from pathlib import Path, PurePosixPath

import pytest

from agents.sandbox import cgroups
from agents.sandbox.causes import Cause
from agents.sandbox.executor import End, Mount, SandboxUnavailable
from agents.sandbox.local import EXECUTORS, LocalExecutor, Place, open_executor
from agents.sandbox.tree import boottime
from tests.sandboxes import (
    LIMITS,
    MIB,
    groups_of,
    log_of,
    processes_of,
    rooms_of,
    run_job,
    spec,
    wait_until_dead,
    watched,
)

# Three ways to leave a parent behind; each says it is up by a file, then stays for ever.
DAEMONS = [
    "setsid sh -c 'touch up; exec sleep 1000' >/dev/null 2>&1 &",
    "(sh -c 'touch up; exec sleep 1000' >/dev/null 2>&1 & ) &",
    "setsid sh -c \"trap '' TERM HUP INT CHLD; (touch up; exec sleep 1000) & wait\" &",
]
UNTIL_UP = "\nwhile [ ! -e up ]; do :; done; rm up; echo up"

needs_cgroups = pytest.mark.skipif(
    not {"memory", "pids"} <= cgroups.find_layout("fedci").controllers,
    reason="without cgroups these limits hold for each process or user only",
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "running")


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest, place: Place) -> LocalExecutor:
    return open_executor(request.param, place)


async def test_a_job_succeeds(executor: LocalExecutor) -> None:
    log, outcome = await run_job(executor, spec("echo one; echo two >&2", "echo three"))
    assert log == b"one\ntwo\nthree\n"
    assert (outcome.end, outcome.cause) == (End.SUCCEEDED, None)
    assert [(step.name, step.exit_code) for step in outcome.steps] == [("step 0", 0), ("step 1", 0)]


async def test_a_failing_step_ends_the_job(executor: LocalExecutor) -> None:
    log, outcome = await run_job(executor, spec("echo before", "exit 42", "echo never"))
    assert log == b"before\n"
    assert outcome.end is End.FAILED
    assert outcome.failed_step is not None
    assert (outcome.failed_step.name, outcome.failed_step.exit_code) == ("step 1", 42)


@pytest.mark.parametrize("script", ["false; echo never", "echo $undefined; echo never", "nosuchcommand; echo never"])
async def test_a_step_stops_at_its_first_error(executor: LocalExecutor, script: str) -> None:
    log, outcome = await run_job(executor, spec(script))
    assert b"never" not in log
    assert outcome.end is End.FAILED


async def test_a_step_killed_by_a_signal_says_which(executor: LocalExecutor) -> None:
    _, outcome = await run_job(executor, spec("kill -SEGV $$"))
    assert outcome.end is End.FAILED
    assert outcome.failed_step is not None
    assert (outcome.failed_step.exit_code, outcome.failed_step.signal) == (None, 11)


async def test_a_step_that_kills_its_driver_is_a_failed_job(executor: LocalExecutor) -> None:
    _, outcome = await run_job(executor, spec("kill -9 $PPID; sleep 1000", "echo never"))
    assert (outcome.end, outcome.cause) == (End.FAILED, None)


async def test_steps_share_workspace_home_and_tmp_but_not_their_variables(executor: LocalExecutor) -> None:
    first = 'x=1; pwd > "$HOME/where"; touch "$TMPDIR/t" here'
    second = 'test -z "${x-}"; test "$(cat "$HOME/where")" = "$PWD"; test -e "$TMPDIR/t"; test -e here'
    _, outcome = await run_job(executor, spec(first, second))
    assert outcome.end is End.SUCCEEDED


async def test_environment_and_secrets_arrive_as_they_are(executor: LocalExecutor) -> None:
    odd = 'it\'s $HOME `id` \\n "quoted"\nsecond line ü'
    job = spec('printf %s "$ODD$SECRET"', env={"ODD": odd}, secrets={"SECRET": odd})
    log, _ = await run_job(executor, job)
    assert log.decode() == odd * 2


async def test_a_step_inherits_no_open_file_and_no_input(executor: LocalExecutor) -> None:
    log, _ = await run_job(executor, spec("ls /proc/self/fd; cat"))
    assert log.split() == [b"0", b"1", b"2", b"3"]  # 3 is the directory that ls reads


async def test_steps_may_open_their_output_anew(executor: LocalExecutor) -> None:
    log, outcome = await run_job(executor, spec("echo a > /dev/stderr; echo b > /dev/stdout"))
    assert (log, outcome.end) == (b"a\nb\n", End.SUCCEEDED)


async def test_a_toolchain_comes_first_in_the_path(executor: LocalExecutor, tmp_path: Path) -> None:
    tool = tmp_path / "toolchain" / "bin" / "date"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho the toolchain\n")
    tool.chmod(0o755)
    target = PurePosixPath("/opt/toolchain")
    mount = Mount(tmp_path / "toolchain", target)
    log, _ = await run_job(executor, spec("date", mounts=(mount,), path=("/opt/toolchain/bin",)))
    assert log == b"the toolchain\n"


async def test_use_is_measured(executor: LocalExecutor) -> None:
    _, outcome = await run_job(executor, spec("head -c 50000000 /dev/zero | tail -c 40000000 >/dev/null"))
    assert 0 < outcome.use.cpu_seconds <= outcome.use.wall_seconds * (os.cpu_count() or 1)
    assert outcome.use.memory_peak_bytes > 30 * MIB


@pytest.mark.parametrize("script", DAEMONS)
async def test_a_daemon_does_not_outlive_its_job(executor: LocalExecutor, script: str) -> None:
    async with executor.prepare(spec(script + UNTIL_UP)) as sandbox:
        assert b"".join([chunk async for chunk in log_of(sandbox)]) == b"up\n"
        assert processes_of("job") == set()
        assert (await sandbox.outcome()).end is End.SUCCEEDED


async def test_nothing_is_left_after_a_job(executor: LocalExecutor, place: Place) -> None:
    unkind = "mkdir -p a/b; ln -s / a/root; chmod 000 a/b; mkfifo pipe; chmod 000 ."
    await run_job(executor, spec(unkind))
    assert (processes_of("job"), groups_of(place), rooms_of(place)) == (set(), set(), [])


async def test_a_workspace_deeper_than_any_path_is_removed(executor: LocalExecutor, place: Place) -> None:
    dig = "name=%s; i=0; while [ $i -lt 60 ]; do mkdir $name; cd $name; i=$((i+1)); done" % ("d" * 100)
    _, outcome = await run_job(executor, spec(dig))
    assert outcome.cause is Cause.WORKSPACE_FULL
    assert rooms_of(place) == []


async def test_a_log_over_its_limit_ends_the_job(executor: LocalExecutor) -> None:
    log, outcome = await run_job(executor, spec("yes"))
    assert outcome.cause is Cause.LOG_FLOOD
    assert log[: LIMITS.log_bytes] == b"y\n" * (LIMITS.log_bytes // 2)
    assert log[LIMITS.log_bytes :] == b"\n[fedci] the job was ended: its log is over its limit\n"


async def test_a_log_of_just_its_limit_is_no_flood(executor: LocalExecutor) -> None:
    log, outcome = await run_job(executor, spec(f"head -c {LIMITS.log_bytes} /dev/zero"))
    assert (len(log), outcome.end) == (LIMITS.log_bytes, End.SUCCEEDED)


async def test_wall_time_ends_the_job(executor: LocalExecutor) -> None:
    limits = dataclasses.replace(LIMITS, wall_seconds=0.2)
    log, outcome = await run_job(executor, spec("sleep 1000", limits=limits))
    assert (outcome.end, outcome.cause) == (End.KILLED, Cause.WALL_TIMEOUT)
    assert log.endswith(b"[fedci] the job was ended: its wall time is over\n")


async def test_a_step_may_clean_up_when_asked_to_end(executor: LocalExecutor) -> None:
    limits = dataclasses.replace(LIMITS, wall_seconds=0.2)
    script = "trap 'echo cleaned up; exit 0' TERM; while :; do :; done"
    log, outcome = await run_job(executor, spec(script, "echo never", limits=limits))
    assert log.startswith(b"cleaned up\n")
    assert b"never" not in log
    assert outcome.cause is Cause.WALL_TIMEOUT


async def test_a_step_that_will_not_end_is_killed_after_the_grace(executor: LocalExecutor) -> None:
    limits = dataclasses.replace(LIMITS, wall_seconds=0.2)
    _, outcome = await run_job(executor, spec("trap '' TERM; while :; do :; done", limits=limits, grace_seconds=0.2))
    assert outcome.cause is Cause.WALL_TIMEOUT
    assert outcome.use.wall_seconds >= 0.4


@needs_cgroups
async def test_memory_over_its_limit_ends_the_job(executor: LocalExecutor) -> None:
    limits = dataclasses.replace(LIMITS, memory_bytes=64 * MIB)
    _, outcome = await run_job(executor, spec("head -c 400000000 /dev/zero | tail -c 300000000 | wc -c", limits=limits))
    assert outcome.cause is Cause.OUT_OF_MEMORY


@needs_cgroups
async def test_memory_of_many_processes_counts_together(executor: LocalExecutor) -> None:
    limits = dataclasses.replace(LIMITS, memory_bytes=64 * MIB)
    some = "hold() { x=$(head -c 30000000 /dev/zero | tr '\\0' x); sleep 1000; }; hold & hold & hold & wait"
    _, outcome = await run_job(executor, spec(some, limits=limits))
    assert outcome.cause is Cause.OUT_OF_MEMORY


@needs_cgroups
async def test_processes_are_limited(executor: LocalExecutor) -> None:
    limits = dataclasses.replace(LIMITS, processes=20)
    many = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); echo $i; done"
    log, outcome = await run_job(executor, spec(many, limits=limits))
    assert outcome.end is End.FAILED
    assert len(log.splitlines()) <= 25


async def test_a_fork_bomb_ends_with_its_job(executor: LocalExecutor) -> None:
    bomb = "b() { b & b & wait; }; sleep 1000 & keep=$!; b & wait $keep"
    limits = dataclasses.replace(LIMITS, wall_seconds=0.5)
    _, outcome = await run_job(executor, spec(bomb, limits=limits, grace_seconds=0.1))
    assert outcome.cause is Cause.WALL_TIMEOUT
    assert processes_of("job") == set()


@pytest.mark.parametrize(
    "script",
    [
        "head -c 1000000000 /dev/zero > big",
        "i=0; while :; do head -c 4000000 /dev/zero > f$i; i=$((i+1)); done",
        'i=0; while :; do head -c 4000000 /dev/zero > "$HOME/f$i"; i=$((i+1)); done',
        "exec 3>gone; rm gone; head -c 30000000 /dev/zero >&3; exec 4>gone; rm gone; "
        "head -c 30000000 /dev/zero >&4; exec 5>gone; rm gone; head -c 30000000 /dev/zero >&5; sleep 1000",
    ],
    ids=["one file", "many files", "in the home", "unlinked files"],
)
async def test_a_full_workspace_ends_the_job(executor: LocalExecutor, script: str) -> None:
    log, outcome = await run_job(executor, spec(script))
    assert outcome.cause is Cause.WORKSPACE_FULL
    assert log.endswith(b"[fedci] the job was ended: its workspace is over its limit\n")


@pytest.mark.parametrize("cause", [Cause.CANCELLED, Cause.SHUTDOWN, Cause.LEASE_LOST])
async def test_the_worker_ends_a_job_and_the_outcome_says_why(executor: LocalExecutor, cause: Cause) -> None:
    async with executor.prepare(spec("echo up; sleep 1000")) as sandbox:
        async for _ in log_of(sandbox):
            await sandbox.signal(cause)
        outcome = await sandbox.outcome()
    assert (outcome.end, outcome.cause) == (End.KILLED, cause)


async def test_the_first_cause_stands(executor: LocalExecutor) -> None:
    async with executor.prepare(spec("echo up; sleep 1000")) as sandbox:
        async for _ in log_of(sandbox):
            await sandbox.signal(Cause.CANCELLED)
            await sandbox.signal(Cause.SHUTDOWN)
        assert (await sandbox.outcome()).cause is Cause.CANCELLED


async def test_a_lease_that_is_not_extended_runs_out(executor: LocalExecutor) -> None:
    async with executor.prepare(spec("sleep 1000")) as sandbox:
        end = boottime() + 0.3
        log = b"".join([chunk async for chunk in sandbox.run(end)])
        outcome = await sandbox.outcome()
    assert (outcome.cause, boottime() >= end) == (Cause.LEASE_LOST, True)
    assert log.endswith(b"[fedci] the job was ended: the worker's lease ran out\n")


async def test_an_extended_lease_lets_the_job_finish(executor: LocalExecutor) -> None:
    async with executor.prepare(spec("echo up; sleep 0.6; echo done")) as sandbox:
        log = b""
        async for chunk in sandbox.run(boottime() + 0.4):
            sandbox.extend(boottime() + 20)
            log += chunk
        assert (log, (await sandbox.outcome()).end) == (b"up\ndone\n", End.SUCCEEDED)


async def test_a_lease_never_shrinks(executor: LocalExecutor) -> None:
    async with executor.prepare(spec("echo up; sleep 0.3")) as sandbox:
        async for _ in log_of(sandbox):
            sandbox.extend(boottime() - 100)
        assert (await sandbox.outcome()).end is End.SUCCEEDED


async def test_a_slow_reader_stops_the_job_not_the_memory(executor: LocalExecutor) -> None:
    limits = dataclasses.replace(LIMITS, log_bytes=100 * MIB)
    async with executor.prepare(spec("head -c 20000000 /dev/zero; touch written", limits=limits)) as sandbox:
        chunks = log_of(sandbox)
        first = await anext(chunks)
        await run_job(executor, spec("sleep 0.3", job_id="meanwhile", slot=1))
        assert not (sandbox.workspace / "written").exists()
        rest = [len(chunk) async for chunk in chunks]
        assert len(first) + sum(rest) == 20_000_000
        assert max(rest) <= MIB
        assert (sandbox.workspace / "written").exists()


async def test_a_cancelled_caller_leaves_nothing_behind(executor: LocalExecutor, place: Place) -> None:
    is_up = asyncio.Event()

    async def work() -> None:
        async with executor.prepare(spec("trap '' TERM; echo up; while :; do :; done")) as sandbox:
            async for _ in log_of(sandbox):
                is_up.set()

    task = asyncio.create_task(work())
    await is_up.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (processes_of("job"), groups_of(place), rooms_of(place)) == (set(), set(), [])


async def test_a_caller_that_fails_leaves_nothing_behind(executor: LocalExecutor, place: Place) -> None:
    async def work() -> None:
        async with executor.prepare(spec("echo up; sleep 1000")) as sandbox:
            async for _ in log_of(sandbox):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert (processes_of("job"), groups_of(place), rooms_of(place)) == (set(), set(), [])


async def test_a_prepared_job_need_not_run(executor: LocalExecutor, place: Place) -> None:
    async with executor.prepare(spec("echo never")) as sandbox:
        assert sandbox.workspace.is_dir()
    assert (groups_of(place), rooms_of(place)) == (set(), [])


async def test_a_job_runs_once(executor: LocalExecutor) -> None:
    async with executor.prepare(spec("true")) as sandbox:
        assert [chunk async for chunk in log_of(sandbox)] == []
        with pytest.raises(RuntimeError):
            await anext(log_of(sandbox))


async def test_a_job_is_not_prepared_twice(executor: LocalExecutor) -> None:
    async with executor.prepare(spec("true")):
        with pytest.raises(SandboxUnavailable):
            async with executor.prepare(spec("true")):
                pass


async def test_jobs_run_side_by_side(executor: LocalExecutor) -> None:
    jobs = [spec(f"echo {number}", job_id=f"job{number}", slot=number) for number in range(6)]
    results = await asyncio.gather(*(run_job(executor, job) for job in jobs))
    assert [log for log, _ in results] == [b"%d\n" % number for number in range(6)]


async def test_secrets_are_in_no_command_line_and_no_file(executor: LocalExecutor) -> None:
    secret = "hunter2-but-longer"
    found: list[Path] = []
    async with executor.prepare(spec("echo up; sleep 1000", secrets={"TOKEN": secret})) as sandbox:
        async for _ in log_of(sandbox):
            lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
            assert not any(secret.encode() in line for line in lines)
            files = [path for path in sandbox.workspace.parent.rglob("*") if path.is_file()]
            found = [path for path in files if secret.encode() in path.read_bytes()]
            await sandbox.signal(Cause.CANCELLED)
    assert found == []


async def test_a_killed_warden_takes_its_job_along(executor: LocalExecutor, place: Place) -> None:
    script = DAEMONS[0] + UNTIL_UP + "; sleep 1000"
    async with executor.prepare(spec(script)) as sandbox:
        log = log_of(sandbox)
        assert await anext(log) == b"up\n"
        with watched(processes_of("job")) as pidfds:
            assert len(pidfds) >= 3
            os.kill(int((place.state / "job/warden").read_text().split()[0]), 9)
            if executor.name == "bubblewrap":  # the kernel kills that one, with no help of ours
                wait_until_dead(pidfds)
        assert [chunk async for chunk in log] == [b"\n[fedci] the job was ended: its warden died\n"]
        outcome = await sandbox.outcome()
        assert (outcome.end, outcome.cause) == (End.KILLED, Cause.WARDEN_LOST)
        assert processes_of("job") == set()
    assert (groups_of(place), rooms_of(place)) == (set(), [])
