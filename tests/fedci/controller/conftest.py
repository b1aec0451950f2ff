"""A real controller's API on loopback, found through its data directory as the command line finds it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from broker.api.access import Access
from broker.api.app import behind_guards, build_app
from broker.pages.web import Pages
from fedci.cli import app
from fedci.controller_client import ControllerClient, connected, place_of
from runtime.secrets import write_secret
from schemas.orders import Grant
from tests.broker.world import Claimed, FakeProvider, World, open_world
from tests.clocks import ManualClock
from tests.runtime.serving import served

TOKEN = "the token"
ALICE = "alice.example"


@dataclass(frozen=True)
class Served:
    """A controller that is served, and its data directory."""

    world: World
    url: str
    directory: Path

    async def command(self, *words: str, stdin: str | None = None) -> Result:
        """Run `fedci controller ...`, in a thread: it has an event loop of its own."""
        return await asyncio.to_thread(lambda: CliRunner().invoke(app, ["controller", *words], input=stdin))


@pytest.fixture
async def controller(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Served]:
    async with open_world(tmp_path, clock) as world:
        await world.add_project()
        access = Access(TOKEN)
        api = build_app(world.controller, access, Pages(world.controller, access).routes())
        async with served(behind_guards(api)) as url:
            write_secret(tmp_path / "api.token", TOKEN.encode())
            told = {"pid": 1, "role": "controller", "urls": {"http": url}}
            (tmp_path / "controller.ready").write_text(json.dumps(told))
            yield Served(world, url, tmp_path)


@pytest.fixture
async def client(controller: Served) -> AsyncIterator[ControllerClient]:
    async with connected(place_of(controller.directory)) as opened:
        yield opened


@pytest.fixture
async def alice(controller: Served) -> FakeProvider:
    provider = FakeProvider(ALICE, controller.world.issuer, controller.world.clock)
    provider.hire("w1")
    await controller.world.meet(provider)
    return provider


async def granted(world: World, provider: FakeProvider) -> Claimed:
    """The job that was just published is claimed, and may run."""
    await world.dispatch()
    job = await world.job_order()
    claim = await provider.workers["w1"].claim(world.tenant, job.attempt)
    await world.hear(provider.name, claim.raw)
    assert isinstance(await world.said_one(Grant), Grant)
    return claim
