"""Who gets to see the pages, and who may press their buttons."""

from tests.broker.pages.conftest import TOKEN, Browser
from tests.broker.world import FakeProvider, World

ONE_JOB = "name: p\njobs:\n  build:\n    steps: [make]\n"
PATHS = ["/", "/runs/r1", "/runs/r1/jobs/build", "/runs/r1/jobs/build/log", "/artifacts/1", "/providers", "/alarms"]


async def test_a_stranger_is_sent_to_the_login(stranger: Browser) -> None:
    for path in PATHS:
        answer = await stranger.http.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=")


async def test_a_stranger_gets_no_stream(stranger: Browser) -> None:
    for path in ("/runs/r1/live", "/runs/r1/jobs/build/live"):
        assert (await stranger.http.get(path)).status_code == 401


async def test_the_api_token_opens_the_pages_with_a_cookie_that_scripts_and_other_sites_never_see(
    stranger: Browser,
) -> None:
    answer = await stranger.log_in(following="/providers")
    cookie = answer.headers["set-cookie"].lower()
    assert (answer.status_code, answer.headers["location"]) == (303, "/providers")
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert "Runs" in await stranger.get("/")


async def test_over_https_the_cookie_never_travels_in_plaintext(stranger: Browser) -> None:
    answer = await stranger.http.post("https://c/login", data={"token": TOKEN})
    assert "secure" in answer.headers["set-cookie"].lower()


async def test_a_wrong_token_opens_nothing(stranger: Browser) -> None:
    for token in ("", "wrong", TOKEN + "x", "the\x00token", "žeton"):
        answer = await stranger.log_in(token)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert (await stranger.http.get("/")).status_code == 303


async def test_who_guesses_waits_even_when_the_next_guess_is_right(world: World, stranger: Browser) -> None:
    for _ in range(10):
        await stranger.log_in("guess")
    assert (await stranger.log_in()).status_code == 429
    world.clock.advance(61)
    assert (await stranger.log_in()).status_code == 303


async def test_a_login_leads_nowhere_but_to_these_pages(stranger: Browser) -> None:
    for following in ("https://evil.example/", "//evil.example", "/\\evil.example", "/a b", "x", ""):
        assert (await stranger.log_in(following=following)).headers["location"] == "/"


async def test_a_made_up_cookie_is_a_stranger(world: World, stranger: Browser) -> None:
    stranger.http.cookies.set(f"fedci-{world.tenant[:10]}", "made-up")
    assert (await stranger.http.get("/")).status_code == 303


async def test_a_login_ends_by_itself(world: World, browser: Browser) -> None:
    world.clock.advance(12 * 3600 + 1)
    assert (await browser.http.get("/")).status_code == 303


async def test_logging_out_ends_the_login_also_for_who_kept_the_cookie(browser: Browser) -> None:
    token, kept = await browser.form_token(), dict(browser.http.cookies)
    assert (await browser.http.post("/logout", data={"form_token": token})).status_code == 303
    browser.http.cookies.update(kept)
    assert (await browser.http.get("/")).status_code == 303


async def test_a_form_of_another_site_changes_nothing(world: World, alice: FakeProvider, browser: Browser) -> None:
    run = await world.submit(ONE_JOB)
    wrong: list[dict[str, str]] = [{}, {"form_token": ""}, {"form_token": "another"}, {"form_token": "ž"}]
    for fields in wrong:
        assert (await browser.http.post(f"/runs/{run}/cancel", data=fields)).status_code == 403
        assert (await browser.http.post("/logout", data=fields)).status_code == 403
    assert (await world.run(run)).cancelled_at is None
    await browser.get("/")


async def test_the_token_in_the_address_is_not_a_form_token(
    world: World, alice: FakeProvider, browser: Browser
) -> None:
    run = await world.submit(ONE_JOB)
    answer = await browser.http.post(f"/runs/{run}/cancel?form_token={await browser.form_token()}")
    assert answer.status_code == 403


async def test_a_page_cancels_a_run_with_its_own_form(world: World, alice: FakeProvider, browser: Browser) -> None:
    run = await world.submit(ONE_JOB)
    answer = await browser.http.post(f"/runs/{run}/cancel", data={"form_token": await browser.form_token()})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run}")
    assert (await world.run(run)).state == "cancelled"


async def test_the_cookie_alone_does_not_open_the_api(browser: Browser) -> None:
    assert (await browser.http.get("/api/v1/runs")).status_code == 401
