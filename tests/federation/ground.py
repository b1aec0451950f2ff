"""The ground that all tests here stand on: one federation, and what its people can do to their own part of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bus.access import AdminAccess
from fedci.federation import standing, story
from fedci.federation.cast import CUSTOMERS
from fedci.federation.places import Places
from fedci.federation.processes import Role, RoleProcesses
from fedci.federation.screen import PlainScreen
from fedci.federation.standing import Federation
from fedci.federation.story import Story
from tests.federation.projects import Project
from tests.federation.waiting import until


@dataclass(frozen=True)
class Ground:
    """A federation that stands, with its customers' projects."""

    federation: Federation
    http: httpx.AsyncClient
    story: Story
    projects: dict[str, Project]

    @property
    def places(self) -> Places:
        return self.federation.places

    @property
    def access(self) -> AdminAccess:
        return self.federation.access

    @property
    def processes(self) -> RoleProcesses:
        return self.federation.processes

    def role(self, title: str) -> Role:
        """A role by its title, say `alice's worker`."""
        at = self.places
        roles = [*standing.issuer_roles(at), *standing.desk_roles(at), *standing.other_roles(at)]
        return next(role for role in roles if role.title == title)

    async def logged(self, title: str, event: str, **fields: object) -> dict[str, Any]:
        """The newest line of this event with these fields in a role's log, as soon as it is there."""
        log = self.role(title).log

        async def look() -> list[dict[str, Any]]:
            lines = await asyncio.to_thread(_lines, log)
            return [line for line in lines if line.get("event") == event and fields.items() <= line.items()]

        return (await until(look, bool))[-1]


def _lines(log: Path) -> list[dict[str, Any]]:
    text = log.read_text(encoding="utf-8", errors="replace")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]


@asynccontextmanager
async def opened_ground(directory: Path, toolchain: Path) -> AsyncIterator[Ground]:
    """A new federation in which the customers know all providers, for the length of a block.

    It is kept by a task of its own: it is left in the task that entered it, whichever task leaves this block.
    """
    stands: asyncio.Future[Ground] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()
    keeping = asyncio.create_task(_keep(directory, toolchain, stands, leave))
    await asyncio.wait((keeping, stands), return_when=asyncio.FIRST_COMPLETED)
    if keeping.done():
        await keeping
    try:
        yield stands.result()
    finally:
        leave.set()
        await keeping


async def _keep(directory: Path, toolchain: Path, stands: "asyncio.Future[Ground]", leave: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        federation = await stack.enter_async_context(standing.standing(directory, toolchain))
        tale = await stack.enter_async_context(story.opened(federation.places, PlainScreen(), {}, directory))
        await tale.introduce()
        projects = {
            customer.person: Project(customer.person, customer.project, tale.clients[customer.person])
            for customer in CUSTOMERS
        }
        stands.set_result(Ground(federation, tale.http, tale, projects))
        await leave.wait()
