"""A private, real RabbitMQ node: started on free loopback ports, stopped with its epmd, gone with its parent.

For the one-machine federation and for tests; a provider in the wild runs RabbitMQ as a service instead. The node has
its own name, epmd, cookie and data under one directory and cannot meet another node.

Who ends it: `start` as a context manager stops it politely. A guard, a shell that leads the node's process group, kills
the group as soon as its standard input closes, which happens when the parent dies of anything, SIGKILL included. Should
the guard be killed too, the next start on the directory ends what carries the directory's mark. A directory in use is
refused by a lock.

The node is ready when AMQP answers a protocol header and the management API knows the administrator; both are asked,
because `rabbitmqctl` would cost a second Erlang VM for each question.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx

from bus.access import AMQP_VARIABLE, API_VARIABLE, AdminAccess
from bus.node_files import (
    ADMINISTRATOR,
    LOOPBACK,
    NodePorts,
    choose_ports,
    node_environment,
    remembered_ports,
    write_node_files,
)
from bus.processes import end_marked_processes, has_ended, wait_for_exit
from runtime.errors import OurFault, WorldFault

AMQP_HEADER = b"AMQP\x00\x00\x09\x01"  # AMQP 0-9-1, section 4.2.2
START_SECONDS = 90.0
STOP_SECONDS = 10.0
START_TRIES = 3
POLL_SECONDS = 0.05
# Debian's wrapper in /usr/sbin changes user and drops the environment; the script in lib/ does neither, so it is first.
# The rest is where tarballs, the official images and distributions put RabbitMQ and Erlang.
SEARCH_PATH = os.pathsep.join(
    [
        "/usr/lib/rabbitmq/bin",
        "/opt/rabbitmq/sbin",
        "/opt/erlang/lib/erlang/bin",
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
)

# epmd is started here, not by Erlang, so that it stays in the guard's process group instead of becoming a daemon.
GUARD = """\
trap 'kill -KILL 0' TERM INT HUP
epmd -port "$ERL_EPMD_PORT" -address "$ERL_EPMD_ADDRESS" </dev/null >/dev/null &
rabbitmq-server </dev/null >/dev/null &
echo "$!"
read -r closed
kill -KILL 0
"""


class NodeMissing(OurFault):
    """RabbitMQ or Erlang is not installed."""


class NodeInUse(OurFault):
    """Another process runs a node on the same directory."""


class NodeFailed(WorldFault):
    """The node ended or did not answer; the remedy carries the end of its logs."""


@dataclass(frozen=True)
class PrivateNode:
    """A running node; valid inside the `start` that made it."""

    directory: Path
    ports: NodePorts
    admin: AdminAccess
    server_pid: int

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, directory: Path, *, search_path: str = SEARCH_PATH) -> AsyncIterator[PrivateNode]:
        """Run a node in `directory` (made if missing) for the length of the block; it is gone when the block is left.

        Ports and password of an earlier start on the same directory are kept while the ports are free. Cancelling ends
        the node as leaving does.

        Raises:
            NodeMissing: RabbitMQ or Erlang is not installed.
            NodeInUse: another process runs a node on this directory.
            NodeFailed: the node did not come up.
        """
        _require_installed(search_path)
        directory = directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        with _exclusive(directory):
            await end_marked_processes(directory)
            try:
                async with contextlib.AsyncExitStack() as stack:
                    yield await _start(stack, directory, search_path)
            finally:
                await end_marked_processes(directory)

    async def ended(self) -> None:
        """Return when the node's process has ended, by itself or by a kill. Safe to cancel."""
        await wait_for_exit(self.server_pid)


def _require_installed(search_path: str) -> None:
    missing = [name for name in ("rabbitmq-server", "erl", "epmd") if shutil.which(name, path=search_path) is None]
    if missing:
        raise NodeMissing(
            f"{', '.join(missing)} not found",
            where=search_path,
            remedy="install RabbitMQ (on Debian: apt-get install rabbitmq-server), "
            f"or point {AMQP_VARIABLE} and {API_VARIABLE} at an existing one",
        )


@contextlib.contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NodeInUse(
                "a node already runs in this directory", where=str(directory), remedy="stop it, or choose another one"
            ) from error
        yield


@dataclass(frozen=True)
class _Guard:
    """The shell that ends the node when `lifeline` closes."""

    process: asyncio.subprocess.Process
    lifeline: asyncio.StreamWriter
    server_pid: int


async def _start(stack: contextlib.AsyncExitStack, directory: Path, search_path: str) -> PrivateNode:
    """Try again with other ports when somebody took one of ours between our look and the node's listening."""
    for _ in range(START_TRIES - 1):
        try:
            return await stack.enter_async_context(_running_node(directory, search_path))
        except NodeFailed:
            if remembered_ports(directory) is not None:
                raise  # the ports are free, so they were not the cause
    return await stack.enter_async_context(_running_node(directory, search_path))


@contextlib.asynccontextmanager
async def _running_node(directory: Path, search_path: str) -> AsyncIterator[PrivateNode]:
    ports = remembered_ports(directory) or choose_ports()
    password = write_node_files(directory, ports)
    guard = await _spawn_guard(directory, node_environment(directory, ports, search_path))
    try:
        admin = AdminAccess(f"http://{LOOPBACK}:{ports.management}", ADMINISTRATOR, password, LOOPBACK, ports.amqp)
        node = PrivateNode(directory, ports, admin, guard.server_pid)
        await _wait_until_ready(node)
        yield node
    finally:
        await _stop(guard)


async def _spawn_guard(directory: Path, environment: dict[str, str]) -> _Guard:
    with (directory / "start.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            GUARD,
            "private-rabbitmq-guard",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd=directory,
            start_new_session=True,
        )
    lifeline = cast(asyncio.StreamWriter, process.stdin)
    first_line = await cast(asyncio.StreamReader, process.stdout).readline()
    return _Guard(process, lifeline, server_pid=int(first_line))


async def _wait_until_ready(node: PrivateNode) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            await _poll(node, lambda: _speaks_amqp(node.ports.amqp))
            async with httpx.AsyncClient(auth=(node.admin.user, node.admin.password), trust_env=False) as client:
                await _poll(node, lambda: _knows_administrator(client, node.admin.api_url))
    except TimeoutError as error:
        raise _failed(node, f"RabbitMQ did not answer within {START_SECONDS:.0f} s") from error


async def _poll(node: PrivateNode, answers: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the answer is yes; nothing outside the node tells when it is ready, so asking is all there is."""
    while not await answers():
        if has_ended(node.server_pid):
            raise _failed(node, "RabbitMQ ended while starting")
        await asyncio.sleep(POLL_SECONDS)


async def _speaks_amqp(port: int) -> bool:
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(AMQP_HEADER)
                return await reader.readexactly(1) == b"\x01"  # a method frame: connection.start
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


async def _knows_administrator(client: httpx.AsyncClient, api_url: str) -> bool:
    try:
        return (await client.get(f"{api_url}/api/whoami", timeout=5)).is_success
    except httpx.TransportError:
        return False


async def _stop(guard: _Guard) -> None:
    """Ask the server to stop and wait for it; then, or when it does not, the guard ends the whole group."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(guard.server_pid, signal.SIGTERM)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wait_for_exit(guard.server_pid), STOP_SECONDS)
    finally:
        guard.lifeline.close()
    await asyncio.wait_for(guard.process.wait(), STOP_SECONDS)


def _failed(node: PrivateNode, what: str) -> NodeFailed:
    logs = [node.directory / "start.log", *sorted((node.directory / "log").glob("*.log"))]
    lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
    return NodeFailed(what, where=str(node.directory), remedy="\n  ".join(["the end of its logs:", *lines[-20:]]))
