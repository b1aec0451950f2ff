"""The whole controller as its process runs it: made by `init`, started, asked, stopped, started again."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from broker import setup, wiring
from runtime.clock import SystemClock
from runtime.errors import OurFault
from runtime.lifecycle import Stop
from tests.issuers import FakeIssuer, served_issuer


@asynccontextmanager
async def founded(tmp_path: Path) -> AsyncIterator[tuple[Path, FakeIssuer]]:
    directory = tmp_path / "dinah"
    async with served_issuer(SystemClock()) as issuer:
        await setup.init(directory, issuer=issuer.url, account="dinah", issuer_token="t", listen="127.0.0.1:0")
        yield directory, issuer


async def while_serving(directory: Path, ask: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    """Serve until `ask` is done, then stop in order."""
    stop, ready = Stop(), directory / "controller.ready"
    ready.unlink(missing_ok=True)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        serving = group.create_task(wiring.serve(directory, stop))
        while not ready.exists():
            assert not serving.done()
            await asyncio.sleep(0.01)
        url = json.loads(ready.read_text())["urls"]["http"]
        headers = {"authorization": f"Bearer {setup.read_api_token(directory)}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
            await ask(client)
        stop.press()


async def test_a_controller_starts_answers_stops_and_keeps_what_it_was_told(tmp_path: Path) -> None:
    async def tell(client: httpx.AsyncClient) -> None:
        assert (await client.post("/api/v1/projects", json={"name": "almanac"})).status_code == 201
        assert (await client.get("/api/v1/status")).json()["account"] == "dinah"
        assert (await client.get("/healthz")).text == "ok\n"
        assert (await client.get("/readyz")).json() == {"ready": True, "waiting_for": {}}
        assert "fedci_controller_refused" in (await client.get("/metrics")).text

    async def ask_again(client: httpx.AsyncClient) -> None:
        assert [project["name"] for project in (await client.get("/api/v1/projects")).json()] == ["almanac"]

    async with founded(tmp_path) as (directory, _):
        await while_serving(directory, tell)
        await while_serving(directory, ask_again)


async def test_without_its_issuer_the_controller_starts_and_says_what_is_missing(tmp_path: Path) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        # While the issuer is being asked once more, its last trouble is not told.
        while (answer := await client.get("/readyz")).status_code == 200:
            pass
        assert list(answer.json()["waiting_for"]) == ["issuer"]

    async with founded(tmp_path) as (directory, issuer):
        issuer.is_away = True
        await while_serving(directory, ask)


async def test_init_makes_secrets_that_nobody_else_reads_and_never_overwrites(tmp_path: Path) -> None:
    async with founded(tmp_path) as (directory, issuer):
        modes = {
            name: (directory / name).stat().st_mode & 0o777 for name in ("api.token", "controller.key", "vault.key")
        }
        assert set(modes.values()) == {0o600}
        assert (directory / "issuer.token").stat().st_mode & 0o777 == 0o600
        with pytest.raises(OurFault, match="there is a controller here already"):
            await setup.init(directory, issuer=issuer.url, account="eve", issuer_token="t")


async def test_init_with_an_address_that_cannot_be_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OurFault, match=r"account\.url"):
        await setup.init(tmp_path / "x", issuer="http://id.example", account="dinah", issuer_token="t")
    assert list((tmp_path / "x").iterdir()) == []
