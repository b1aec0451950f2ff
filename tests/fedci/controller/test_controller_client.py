"""The client of the controller's API, against the real API on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker import setup
from broker.views import ArtifactView
from fedci import controller_client
from fedci.controller_client import (
    ControllerClient,
    Place,
    RequestRefused,
    connected,
    located,
    place_of,
    remote_place,
)
from runtime.errors import OurFault, PeerFault, WorldFault
from runtime.secrets import SecretError
from schemas import ids
from schemas.ends import EndReason
from schemas.refusals import Reason
from tests.broker.world import FakeProvider, tar_of
from tests.fedci.controller.conftest import ALICE, TOKEN, Served, granted
from tests.runtime.serving import served

PIPELINE = b"name: p\njobs:\n  build:\n    steps: [make]\n"
SNAPSHOT = tar_of({".fedci.yml": PIPELINE})


def test_the_token_lies_where_init_puts_it() -> None:
    assert controller_client.TOKEN_FILE == setup.API_TOKEN


async def test_a_run_is_submitted_watched_and_its_log_followed(
    controller: Served, client: ControllerClient, alice: FakeProvider
) -> None:
    started = await client.submit("almanac", SNAPSHOT, "abc")
    assert [run.id for run in await client.runs("almanac")] == [started.run]
    claim = await granted(controller.world, alice)
    states: list[str] = []
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        watching = group.create_task(client.wait(started.run, lambda run: states.append(run.graph[0].state)))
        following = group.create_task(_all_text(client.follow_log(started.run, "build")))
        await controller.world.hear_log(ALICE, claim.log(0, b"one\n"))
        await controller.world.hear_log(ALICE, claim.log(4, b"two\n"))
        await controller.world.hear(ALICE, claim.finished(EndReason.SUCCEEDED, b"one\ntwo\n"))
        await controller.world.controller.settlement.look()
    assert watching.result().state == "succeeded"
    assert states[-1] == "succeeded"
    assert following.result() == "one\ntwo\n"
    assert await client.log(started.run, "build") == b"one\ntwo\n"


async def _all_text(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


async def test_a_snapshot_is_sent_once(controller: Served, client: ControllerClient, tmp_path: Path) -> None:
    file = tmp_path / "snapshot.tar"
    file.write_bytes(SNAPSHOT)
    await client.submit("almanac", file, "abc")
    stored = controller.world.controller.snapshots.path(ids.sha256_hex(SNAPSHOT))
    before = stored.stat().st_mtime_ns
    assert (await client.submit("almanac", file, "abc")).number == 2
    assert stored.stat().st_mtime_ns == before


async def test_a_wrong_pipeline_is_refused_with_file_line_and_column(client: ControllerClient) -> None:
    with pytest.raises(RequestRefused) as refused:
        await client.submit("almanac", SNAPSHOT, "abc", pipeline=b"name: p\njobs:\n  build:\n    stepz: [make]\n")
    assert refused.value.refusal.reason is Reason.INVALID_REQUEST
    assert ".fedci.yml:4:5: jobs.build.stepz: " in refused.value.what


def test_only_what_looks_like_a_problem_is_rewritten() -> None:
    assert located("a.yml: line 3, column 7: x: bad\nplain") == "a.yml:3:7: x: bad\nplain"


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.run("r1"),
        lambda client: client.cancel("r1"),
        lambda client: client.artifacts("r1"),
        lambda client: client.log("r1", "build"),
        lambda client: client.secrets("nope"),
        lambda client: client.usage("nobody.example"),
        lambda client: client.submit("nope", SNAPSHOT, "abc"),
    ],
)
async def test_what_is_not_there_is_refused(
    client: ControllerClient, ask: Callable[[ControllerClient], "asyncio.Future[object]"]
) -> None:
    with pytest.raises(RequestRefused) as refused:
        await ask(client)
    assert refused.value.refusal.reason is Reason.NOT_FOUND


async def test_a_wrong_token_is_refused(controller: Served) -> None:
    async with connected(Place(controller.url, "wrong")) as client:
        with pytest.raises(RequestRefused) as refused:
            await client.runs()
    assert refused.value.refusal.reason is Reason.UNAUTHENTICATED


async def test_secrets_go_in_and_only_their_names_come_out(client: ControllerClient) -> None:
    await client.set_secret("almanac", "API_KEY", "hush")
    assert [secret.name for secret in await client.secrets("almanac")] == ["API_KEY"]
    await client.remove_secret("almanac", "API_KEY")
    assert await client.secrets("almanac") == []


async def test_a_controller_that_is_away_is_the_worlds_fault() -> None:
    async with connected(Place("http://127.0.0.1:1", TOKEN)) as client:
        with pytest.raises(WorldFault):
            await client.status()


async def test_a_directory_without_a_running_controller_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(OurFault, match="fedci controller serve"):
        place_of(tmp_path)


def test_a_remote_controller_is_spoken_to_by_https_alone(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    assert remote_place("https://ci.example/", token).url == "https://ci.example"
    assert TOKEN not in repr(remote_place("https://ci.example", token))
    with pytest.raises(OurFault, match="plaintext"):
        remote_place("http://ci.example", token)
    token.chmod(0o644)
    with pytest.raises(SecretError):
        remote_place("https://ci.example", token)


# -- A controller that answers nonsense


def artifact(digest: str) -> ArtifactView:
    return ArtifactView(
        id=1, job="build", artifact="wheel", path="x.whl", provider="b.example", sha256=digest, size_bytes=4
    )


@asynccontextmanager
async def answering(status: int, body: bytes) -> AsyncIterator[ControllerClient]:
    """A client of a controller that answers everything alike."""

    async def app(
        _scope: object, _receive: object, send: Callable[[dict[str, object]], "asyncio.Future[None]"]
    ) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with served(app) as url, connected(Place(url, TOKEN)) as client:  # type: ignore[arg-type]
        yield client


async def test_a_download_appears_whole_and_right_or_not_at_all(tmp_path: Path) -> None:
    async with answering(200, b"data") as client:
        path = await client.download(artifact(ids.sha256_hex(b"data")), tmp_path / "x.whl")
        assert path.read_bytes() == b"data"
        with pytest.raises(PeerFault):
            await client.download(artifact("0" * 64), tmp_path / "y.whl")
    assert [path.name for path in tmp_path.iterdir()] == ["x.whl"]


@pytest.mark.parametrize(("status", "body"), [(200, b"nonsense"), (200, b'{"id": 1}'), (500, b"<html>"), (502, b"[]")])
async def test_answers_that_are_no_answers_are_the_peers_fault(status: int, body: bytes) -> None:
    async with answering(status, body) as client:
        with pytest.raises(PeerFault):
            await client.run("r1")
