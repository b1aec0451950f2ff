"""What the pages say, and that nothing in them is obeyed."""

import re

from broker.decisions.leases import Hearing
from broker.store import attempts as attempt_store
from broker.store import providers as provider_store
from broker.tables import RefusalRow
from schemas import ids
from schemas.ends import EndReason
from schemas.reports import StepResult
from tests.broker.pages.conftest import Browser, granted
from tests.broker.world import FakeProvider, World

ALICE = "alice.example"
TWO_JOBS = "name: p\njobs:\n  build:\n    steps: [make]\n  test:\n    needs: build\n    steps: [make check]\n"
ONE_JOB = "name: p\njobs:\n  build:\n    steps: [make]\n"
SCRIPT = "<script>alert(1)</script>"


async def test_every_page_lets_no_inline_script_run(world: World, browser: Browser) -> None:
    pages = [await browser.http.get(path) for path in ("/", "/providers", "/alarms", "/runs/none")]
    browser.http.cookies.clear()
    for answer in (*pages, await browser.http.get("/login")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", answer.text)
        assert "http" not in "".join(re.findall(r'(?:src|href)="([^"]*)"', answer.text))


async def test_assets_are_kept_by_browsers_and_no_other_file_is_served(stranger: Browser) -> None:
    page = await stranger.get("/login")
    for url in set(re.findall(r'"(/assets/[^"]+)"', page)):
        assert "immutable" in (await stranger.http.get(url)).headers["cache-control"]
    await stranger.get("/assets/web.py", status=404)
    await stranger.get("/assets/..%2Fweb.py", status=404)


async def test_without_runs_the_first_page_says_how_to_start_one(browser: Browser) -> None:
    assert "fedci controller submit" in await browser.get("/")


async def test_runs_are_listed_with_state_project_and_revision(
    world: World, alice: FakeProvider, browser: Browser
) -> None:
    run = await world.submit(TWO_JOBS)
    page = await browser.get("/")
    assert f'href="/runs/{run}"' in page
    assert "running" in page
    assert "aaaaaaaaaa" in page
    assert f'href="/runs/{run}"' not in await browser.get("/?project=other")


async def test_older_runs_are_on_the_next_page(world: World, alice: FakeProvider, browser: Browser) -> None:
    runs = []
    for _ in range(31):
        world.clock.advance(1)
        runs.append(await world.submit(ONE_JOB))
    first = await browser.get("/")
    assert runs[0] not in first
    older = re.search(r'href="(/\?[^"]*before=[^"]+)"', first)
    assert older is not None
    assert runs[0] in await browser.get(older[1].replace("&amp;", "&"))


async def test_an_unknown_run_is_said_to_be_missing(browser: Browser) -> None:
    for path in ("/runs/nope", "/runs/nope/jobs/build", "/runs/%3Cb%3E"):
        assert "Not here" in await browser.get(path, status=404)


async def test_an_unknown_job_attempt_or_artifact_is_said_to_be_missing(
    world: World, alice: FakeProvider, browser: Browser
) -> None:
    run = await world.submit(ONE_JOB)
    await browser.get(f"/runs/{run}/jobs/nope", status=404)
    await browser.get(f"/runs/{run}/jobs/build?attempt=7", status=404)
    await browser.get(f"/runs/{run}/jobs/nope/log", status=404)
    await browser.get("/artifacts/77", status=404)


async def test_a_run_shows_its_graph_and_why_jobs_wait(world: World, alice: FakeProvider, browser: Browser) -> None:
    run = await world.submit(TWO_JOBS)
    page = await browser.get(f"/runs/{run}")
    assert page.count('class="edge ') == 1
    assert "it needs build" in page
    assert "Cancel this run" in page


async def test_a_job_that_nobody_can_run_says_what_is_missing_where(
    world: World, alice: FakeProvider, browser: Browser
) -> None:
    run = await world.submit("name: p\njobs:\n  build:\n    labels: [board=x1]\n    steps: [make]\n")
    page = await browser.get(f"/runs/{run}/jobs/build")
    assert "Why is it not running?" in page
    assert "board=x1" in page
    assert ALICE in page


async def test_a_finished_job_shows_steps_log_and_cost(world: World, alice: FakeProvider, browser: Browser) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    log = b"\x1b[31mred\x1b[0m plain\n"
    steps = (StepResult(name="make", exit_code=2, seconds="1.5"),)  # type: ignore[arg-type]
    await world.hear_log(ALICE, claim.log(0, log))
    await world.hear(ALICE, claim.finished(EndReason.EXIT_CODE, log, steps=steps, detail="step 1 exited with 2"))
    await world.hear(ALICE, claim.usage(world, ids.sha256_hex(alice.rate_card), reason=EndReason.EXIT_CODE))
    await world.controller.settlement.look()
    page = await browser.get(f"/runs/{run}/jobs/build")
    assert '<span class="c1">red</span> plain' in page
    assert "exit 2" in page
    assert "step 1 exited with 2" in page
    assert ids.sha256_hex(log) in page
    assert "data-stream" not in page
    assert "0.0200 EUR" in await browser.get(f"/runs/{run}")


async def test_what_jobs_and_providers_say_is_shown_and_not_obeyed(
    world: World, alice: FakeProvider, browser: Browser
) -> None:
    run = await world.submit("name: p\njobs:\n  build:\n    steps: ['echo \"<script>alert(1)</script>\"']\n")
    claim = await granted(world, alice)
    log = f"{SCRIPT}</pre>\x1b]8;;javascript:x\x07\u202e".encode()
    await world.hear_log(ALICE, claim.log(0, log))
    await world.hear(ALICE, claim.finished(EndReason.EXIT_CODE, log, detail=SCRIPT))
    async with world.database.write() as session:
        await provider_store.raise_alarm(session, ALICE, SCRIPT, "x", SCRIPT, world.clock.now())
        row = RefusalRow(
            provider=ALICE,
            agent=SCRIPT,
            subject="s",
            attempt_id=None,
            job_id=None,
            reason=SCRIPT,
            scope="here",
            detail=SCRIPT,
            digest="d",
            received_at=world.clock.now(),
        )
        await attempt_store.add_refusal(session, row)
    world.controller.book.learn_alarm(ALICE, SCRIPT)
    world.controller.book.learn_session(ALICE, SCRIPT)
    for path in ("/", f"/runs/{run}", f"/runs/{run}/jobs/build", "/providers", "/alarms"):
        page = await browser.get(path)
        assert SCRIPT not in page
        assert "javascript:x" not in page
        assert "\u202e" not in page
    assert "&lt;script&gt;" in await browser.get(f"/runs/{run}/jobs/build")


async def test_the_plain_log_is_its_very_bytes_and_nothing_but_text(
    world: World, alice: FakeProvider, browser: Browser
) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    log = b"<script>\xff\x1b[31m"
    await world.hear_log(ALICE, claim.log(0, log))
    answer = await browser.http.get(f"/runs/{run}/jobs/build/log?attempt=1")
    assert answer.content == log
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


async def test_a_long_log_is_shown_by_its_end_and_paged_to_its_start(
    world: World, alice: FakeProvider, browser: Browser
) -> None:
    run = await world.submit(ONE_JOB)
    claim = await granted(world, alice)
    log = b"".join(b"line %06d\n" % number for number in range(40_000))
    chunks = [claim.log(start, log[start : start + 60_000]) for start in range(0, len(log), 60_000)]
    await world.hear_log(ALICE, *chunks)
    await world.hear(ALICE, claim.finished(EndReason.SUCCEEDED, log))
    last = await browser.get(f"/runs/{run}/jobs/build")
    assert "line 039999" in last
    assert "line 000000" not in last
    assert len(last) < 300_000
    first = await browser.get(f"/runs/{run}/jobs/build?attempt=1&from=0")
    assert "line 000000" in first
    assert "Later" in first


async def test_a_retried_job_shows_the_log_of_each_attempt(world: World, alice: FakeProvider, browser: Browser) -> None:
    run = await world.submit(ONE_JOB)
    first = await granted(world, alice)
    await world.hear_log(ALICE, first.log(0, b"first try\n"))
    await world.hear(ALICE, first.finished(EndReason.SANDBOX_FAILED, b"first try\n"))
    await world.dispatch()
    await world.said()
    page = await browser.get(f"/runs/{run}/jobs/build")
    assert "first try" in page
    assert "sandbox-failed" in page
    assert "first try" not in await browser.get(f"/runs/{run}/jobs/build?attempt=2")


async def test_providers_show_their_pinned_root_and_session(
    world: World, alice: FakeProvider, browser: Browser
) -> None:
    page = await browser.get("/providers")
    assert "session up" in page
    world.controller.book.learn_session(ALICE, "the desk is away")
    world.controller.book.learn_hearing(ALICE, Hearing)
    page = await browser.get("/providers")
    assert "the desk is away" in page


async def test_a_provider_under_alarm_is_counted_on_every_page(
    world: World, alice: FakeProvider, browser: Browser
) -> None:
    assert 'class="badge"' not in await browser.get("/")
    world.controller.book.learn_alarm(ALICE, "another root key")
    assert '<span class="badge">1</span>' in await browser.get("/")
