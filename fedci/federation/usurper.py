"""Mallory, who runs an identity server of her own and vouches for herself: real like the others, believed by none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from fedci.federation.places import HOST, free_ports
from fedci.federation.trespass import Member
from identity.account import Account
from identity.keys import SigningKey
from identity.server import administration, wiring
from identity.server.administration import Operator
from identity.server.store import write
from runtime.clock import Clock
from runtime.lifecycle import Stop, StopLevel

NAME = "mallory"
READY_SECONDS = 20.0


@asynccontextmanager
async def usurper(directory: Path, http: httpx.AsyncClient, clock: Clock) -> AsyncIterator[Member]:
    """Mallory with an account at her own identity server, which runs for the length of the block."""
    (port,) = free_ports(1)
    url = f"http://{HOST}:{port}"
    place = directory / str(port)
    await wiring.initialise(place, issuer=url, listen=f"{HOST}:{port}", clock=clock)
    token = await _account(place, clock)
    stop = Stop()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(wiring.serve(place, stop))
        await _until_it_answers(http, url, serving)
        key = SigningKey.generate()
        account = Account(issuer=url, sub=NAME, api_token=token, key=key, client=http, clock=clock)
        yield Member(NAME, url, account, key)
        stop.rise_to(StopLevel.HAND_BACK)


async def _account(directory: Path, clock: Clock) -> str:
    by = Operator(NAME, clock.now())
    async with wiring.opened(directory) as house:
        await write(house.database, lambda store: administration.add_account(store, by, NAME))
        made = await write(house.database, lambda store: administration.issue_api_token(store, by, NAME))
    return made.token


async def _until_it_answers(http: httpx.AsyncClient, url: str, serving: asyncio.Task[None]) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while not serving.done():
            try:
                await http.get(f"{url}/healthz")
            except httpx.TransportError:
                await asyncio.sleep(0.02)
            else:
                return
