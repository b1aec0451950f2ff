"""A federation that stands: RabbitMQ, and every role as a process, for the length of a block.

Used by the demo and by the end-to-end tests alike. The identity servers start while RabbitMQ does; the desks follow as
soon as it answers, then everybody who needs a desk. A directory founded before is started again as it is.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bus.access import AdminAccess
from bus.node import PrivateNode
from fedci.federation import founding, places, processes
from fedci.federation.cast import CUSTOMERS, ISSUERS, PROVIDERS
from fedci.federation.places import Places
from fedci.federation.processes import Role, RoleProcesses


@dataclass(frozen=True, slots=True)
class Federation:
    """A running federation."""

    places: Places
    access: AdminAccess
    processes: RoleProcesses


def issuer_roles(at: Places) -> list[Role]:
    return [Role(f"{person}'s identity server", "identity", at.of("issuers", person)) for person in ISSUERS]


def desk_roles(at: Places) -> list[Role]:
    return [Role(f"{each.person}'s desk", "desk", at.of("desks", each.person)) for each in PROVIDERS]


def other_roles(at: Places) -> list[Role]:
    """Everybody who needs a desk."""
    roles = [Role(f"{each.person}'s ledger", "ledger", at.of("ledgers", each.person)) for each in PROVIDERS]
    for each in PROVIDERS:
        verb = "run" if each.lends == "worker" else "serve"
        roles.append(Role(f"{each.person}'s {each.lends}", each.lends, at.of(f"{each.lends}s", each.person), verb))
    for customer in CUSTOMERS:
        directory = at.of("controllers", customer.person)
        roles.append(Role(f"{customer.person}'s controller", "controller", directory))
    return roles


@asynccontextmanager
async def standing(
    directory: Path, toolchain: Path, tell: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Federation]:
    """Found the federation in `directory` where it is new, and keep it running.

    RabbitMQ is a private node, or the one that the environment names. Leaving stops everybody; a role that ends by
    itself meanwhile ends the block with its error.
    """
    # RabbitMQ is left last: who stops still has something to say.
    async with AsyncExitStack() as bus, processes.running() as roles:
        at = places.choose(directory)
        tell("starting RabbitMQ and the identity servers")
        tokens = None if places.is_founded(directory) else await founding.found_issuers(at)
        async with asyncio.TaskGroup() as starting:
            starting.create_task(roles.start(*issuer_roles(at)))
            rabbitmq = starting.create_task(_rabbitmq(bus, at))
        access = rabbitmq.result()
        if tokens is not None:
            await founding.found_members(at, tokens, access, toolchain)
            places.remember(at)
        tell("starting the desks")
        await roles.start(*desk_roles(at))
        tell("starting workers, store, ledgers and controllers")
        await roles.start(*other_roles(at))
        async with asyncio.TaskGroup() as watching:
            watch = watching.create_task(roles.watch())
            try:
                yield Federation(at, access, roles)
            finally:
                tell("stopping everybody")
            watch.cancel()


async def _rabbitmq(stack: AsyncExitStack, at: Places) -> AdminAccess:
    existing = AdminAccess.from_environment(os.environ)
    if existing is not None:
        return existing
    node = await stack.enter_async_context(PrivateNode.start(at.rabbitmq))
    return node.admin
