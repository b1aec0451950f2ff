"""The API as its users see it: tokens, projects, snapshots, runs, logs, artifacts, refusals as JSON."""

from collections.abc import AsyncIterator

import httpx
import pytest

from broker.api.access import Access
from broker.api.app import behind_guards, build_app
from schemas import ids
from schemas.ends import EndReason
from schemas.orders import Grant
from schemas.reports import ArtifactFile
from tests.broker.world import Claimed, FakeProvider, World, tar_of

TOKEN = "the token"
ALICE = "alice.example"
PIPELINE = b"name: p\njobs:\n  build:\n    steps: [make]\n"
BUILD_IN_STORE = (
    "name: p\nstore: bettina.example\njobs:\n  build:\n    steps: [make]\n    artifacts: {wheel: dist/*.whl}\n"
)


@pytest.fixture
async def api(world: World) -> AsyncIterator[httpx.AsyncClient]:
    app = behind_guards(build_app(world.controller, Access(TOKEN)))
    headers = {"authorization": f"Bearer {TOKEN}"}
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://c/api/v1", headers=headers) as client:
        yield client


async def upload(api: httpx.AsyncClient, files: dict[str, bytes]) -> str:
    snapshot = tar_of(files)
    digest = ids.sha256_hex(snapshot)
    answer = await api.put(f"/snapshots/{digest}", content=snapshot)
    assert answer.status_code == 201, answer.text
    return digest


async def submit(api: httpx.AsyncClient, world: World, pipeline: bytes = PIPELINE) -> str:
    digest = await upload(api, {".fedci.yml": pipeline})
    answer = await api.post("/runs", json={"project": "almanac", "snapshot": digest, "revision": "abc"})
    assert answer.status_code == 201, answer.text
    await world.dispatch()
    return str(answer.json()["run"])


async def granted(world: World, alice: FakeProvider) -> Claimed:
    job = await world.job_order()
    claim = await alice.workers["w1"].claim(world.tenant, job.attempt)
    await world.hear(ALICE, claim.raw)
    await world.said_one(Grant)
    return claim


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic the token", "the token"])
async def test_nobody_gets_in_without_the_token(api: httpx.AsyncClient, header: str | None) -> None:
    answer = await api.get("/runs", headers={"authorization": header or ""})
    assert (answer.status_code, answer.json()["reason"]) == (401, "unauthenticated")


async def test_every_route_but_the_schema_asks_for_the_token(world: World, api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    open_paths = set()
    for path, methods in document["paths"].items():
        for method in methods:
            url = path.replace("{sha256}", "a" * 64).replace("{artifact}", "1")
            answer = await api.request(method, f"http://c{url}", headers={"authorization": ""})
            if answer.status_code != 401:
                open_paths.add(path)
    assert open_paths == {"/api/v1/pipeline.schema.json"}


async def test_a_project_is_added_once(api: httpx.AsyncClient) -> None:
    assert (await api.post("/projects", json={"name": "tools", "providers": [ALICE]})).status_code == 201
    again = await api.post("/projects", json={"name": "tools"})
    assert (again.status_code, again.json()["reason"]) == (409, "conflict")
    assert {project["name"] for project in (await api.get("/projects")).json()} == {"almanac", "tools"}


async def test_a_project_needs_a_name_that_is_a_label(api: httpx.AsyncClient) -> None:
    answer = await api.post("/projects", json={"name": "No Label"})
    assert (answer.status_code, answer.json()["reason"]) == (400, "invalid-request")


async def test_a_secret_is_set_and_listed_by_name_only(world: World, api: httpx.AsyncClient) -> None:
    assert (await api.put("/projects/almanac/secrets/TOKEN", json={"value": "hunter2"})).status_code == 204
    answer = await api.get("/projects/almanac/secrets")
    assert [secret["name"] for secret in answer.json()] == ["TOKEN"]
    assert "hunter2" not in answer.text
    assert b"hunter2" not in (world.controller.parts.directory / "controller.sqlite").read_bytes()
    assert (await api.delete("/projects/almanac/secrets/TOKEN")).status_code == 204
    assert (await api.delete("/projects/almanac/secrets/TOKEN")).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/runs/x", "/runs/x/artifacts", "/runs/x/jobs/b/log", "/runs/x/jobs/b/log/live", "/runs/x/live", "/artifacts/7",
     "/providers/x", "/usage/x", "/projects/x/secrets", "/nothing"],
)  # fmt: skip
async def test_what_is_not_there_is_404(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.get(path)
    assert (answer.status_code, answer.json()["reason"]) == (404, "not-found")


async def test_cancelling_an_unknown_run_is_404(api: httpx.AsyncClient) -> None:
    assert (await api.post("/runs/x/cancel")).status_code == 404


async def test_a_snapshot_that_is_not_what_it_claims_is_refused(world: World, api: httpx.AsyncClient) -> None:
    answer = await api.put(f"/snapshots/{'a' * 64}", content=tar_of({"a": b""}))
    assert (answer.status_code, answer.json()["reason"]) == (422, "digest-mismatch")
    assert list(world.controller.snapshots.path("x").parent.iterdir()) == []


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../b", "a\\b"])
async def test_a_snapshot_with_a_name_that_leaves_it_is_refused(api: httpx.AsyncClient, name: str) -> None:
    snapshot = tar_of({name: b"x"})
    answer = await api.put(f"/snapshots/{ids.sha256_hex(snapshot)}", content=snapshot)
    assert answer.status_code == 400


async def test_a_wrong_pipeline_is_told_with_line_and_column(api: httpx.AsyncClient) -> None:
    digest = await upload(api, {".fedci.yml": b"name: p\njobs:\n  build:\n    step: [make]\n"})
    answer = await api.post("/runs", json={"project": "almanac", "snapshot": digest, "revision": "abc"})
    assert answer.status_code == 400
    assert ".fedci.yml: line 4, column 5: jobs.build.step: `step` is not a key here" in answer.json()["detail"]


async def test_sources_without_a_pipeline_are_told_so(api: httpx.AsyncClient) -> None:
    digest = await upload(api, {"README": b""})
    answer = await api.post("/runs", json={"project": "almanac", "snapshot": digest, "revision": "abc"})
    assert "no file .fedci.yml" in answer.json()["detail"]


@pytest.mark.parametrize(
    "changes",
    [{"snapshot": "a" * 64}, {"project": "nobody"}, {"snapshot": None}, {"repository": "https://x.example/y"}],
)
async def test_a_run_that_cannot_be_is_refused(api: httpx.AsyncClient, changes: dict[str, str]) -> None:
    digest = await upload(api, {".fedci.yml": PIPELINE})
    body = {"project": "almanac", "snapshot": digest, "revision": "abc"} | changes
    answer = await api.post("/runs", json=body)
    assert answer.status_code in (400, 404)
    assert (await api.get("/runs")).json() == []


@pytest.mark.parametrize("url", ["http://git.example/x", "ext::sh -c id", "--upload-pack=id", "git://x.example/y"])
async def test_a_repository_that_git_must_not_see_is_refused(api: httpx.AsyncClient, url: str) -> None:
    answer = await api.post("/runs", json={"project": "almanac", "repository": url, "revision": "main"})
    assert (answer.status_code, answer.json()["reason"]) == (400, "invalid-request")


async def test_a_run_shows_its_jobs_and_why_they_wait(world: World, api: httpx.AsyncClient) -> None:
    run = await submit(api, world)
    shown = (await api.get(f"/runs/{run}")).json()
    (job,) = shown["graph"]
    assert (shown["state"], job["state"]) == ("running", "waiting")
    assert job["waiting_for"][0]["obstacle"] == "no-provider"


async def test_a_finished_run_shows_worker_log_cost_and_artifacts(
    world: World, api: httpx.AsyncClient, alice: FakeProvider
) -> None:
    bettina = FakeProvider("bettina.example", world.issuer, world.clock, store=True)
    await world.meet(bettina)
    run = await submit(api, world, BUILD_IN_STORE.encode())
    claim = await granted(world, alice)
    log = "größe\n".encode()
    await world.hear_log(ALICE, claim.log(0, log))
    wheel = ArtifactFile(artifact="wheel", path="dist/a.whl", digest="b" * 64, size_bytes=3)
    world.clock.advance(2)
    await world.hear(
        ALICE,
        claim.finished(log=log, artifacts=(wheel,)),
        claim.usage(world, ids.sha256_hex(alice.rate_card)),
    )
    await world.controller.settlement.look()
    assert await world.controller.receipts.answer() == 1
    shown = (await api.get(f"/runs/{run}")).json()
    (job,) = shown["graph"]
    assert (job["state"], job["provider"], job["worker"], job["seconds"]) == ("succeeded", ALICE, "w1", 2.0)
    assert job["log"]["sha256"] == ids.sha256_hex(log)
    assert job["log"]["is_whole"]
    assert shown["costs"] == [{"currency": "EUR", "total": "0.02", "unpriced_events": 0}]
    (artifact,) = (await api.get(f"/runs/{run}/artifacts")).json()
    assert (artifact["path"], artifact["provider"], artifact["size_bytes"]) == ("dist/a.whl", "bettina.example", 3)
    (event,) = (await api.get(f"/usage/{ALICE}")).json()["events"]
    assert (event["verdict"], event["quantity"]) == ("accepted", "2")


async def test_a_log_is_read_from_an_offset(world: World, api: httpx.AsyncClient, alice: FakeProvider) -> None:
    run = await submit(api, world)
    claim = await granted(world, alice)
    await world.hear_log(ALICE, claim.log(0, b"hello "), claim.log(11, b"beyond a gap"))
    answer = await api.get(f"/runs/{run}/jobs/build/log", params={"offset": 2})
    assert (answer.content, answer.headers["fedci-log-end"]) == (b"llo ", "6")
    assert answer.headers["fedci-log-whole"] == "false"
    await world.hear_log(ALICE, claim.log(6, b"world"))
    answer = await api.get(f"/runs/{run}/jobs/build/log", params={"attempt": 1})
    assert answer.content == b"hello worldbeyond a gap"


async def test_a_live_log_resumes_where_the_browser_was_and_ends(
    world: World, api: httpx.AsyncClient, alice: FakeProvider
) -> None:
    run = await submit(api, world)
    claim = await granted(world, alice)
    log = "aé".encode()
    await world.hear_log(ALICE, claim.log(0, log))
    await world.hear(ALICE, claim.finished(log=log))
    await world.controller.settlement.look()
    answer = await api.get(f"/runs/{run}/jobs/build/log/live", headers={"last-event-id": "1"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.split("\n\n")[:2] == [
        'event: log\nid: 3\ndata: {"offset": 1, "text": "\\u00e9"}',
        'event: end\nid: 3\ndata: {"state": "succeeded", "bytes": 3, "is_whole": true}',
    ]


async def test_a_run_is_cancelled_and_says_so(world: World, api: httpx.AsyncClient) -> None:
    run = await submit(api, world)
    assert (await api.post(f"/runs/{run}/cancel")).json()["state"] == "cancelled"
    assert (await api.post(f"/runs/{run}/cancel")).json()["state"] == "cancelled"
    followed = (await api.get(f"/runs/{run}/live")).text
    assert followed == 'event: end\ndata: {"state": "cancelled"}\n\n'


async def test_runs_are_listed_newest_first_and_paged(world: World, api: httpx.AsyncClient) -> None:
    first = await submit(api, world)
    world.clock.advance(1)
    second = await submit(api, world)
    runs = (await api.get("/runs")).json()
    assert [(run["id"], run["number"]) for run in runs] == [(second, 2), (first, 1)]
    older = (await api.get("/runs", params={"before": runs[0]["submitted_at"]})).json()
    assert [run["id"] for run in older] == [first]


async def test_a_failed_job_says_why(world: World, api: httpx.AsyncClient, alice: FakeProvider) -> None:
    run = await submit(api, world)
    claim = await granted(world, alice)
    await world.hear(ALICE, claim.finished(EndReason.EXIT_CODE, detail="step 1 ended with status 2"))
    (job,) = (await api.get(f"/runs/{run}")).json()["graph"]
    assert (job["state"], job["reason"], job["detail"]) == ("failed", "exit-code", "step 1 ended with status 2")


async def test_the_status_names_alarms_and_refusals(world: World, api: httpx.AsyncClient, alice: FakeProvider) -> None:
    await submit(api, world)
    claim = await granted(world, alice)
    await world.hear(ALICE, claim.heartbeat())
    claim.sequence = 0
    await world.hear(ALICE, claim.finished())
    status = (await api.get("/status")).json()
    assert status["tenant"] == world.tenant
    assert [alarm["kind"] for alarm in status["alarms"]] == ["equivocation-report"]
    assert status["jobs"] == {"running": 1}


async def test_a_provider_is_shown_with_its_pools_and_fingerprint(api: httpx.AsyncClient, alice: FakeProvider) -> None:
    (provider,) = (await api.get("/providers")).json()
    assert provider["is_session_up"]
    assert provider["root_fingerprint"].replace(" ", "") == ids.sha256_hex(alice.root.public)
    assert provider["pools"][0]["workers"] == ["w1", "w2"]
