"""A private node keeps to itself while it runs and leaves nothing behind when it, or its parent, is gone."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
import pytest_asyncio

from bus.node import NodeFailed, NodeInUse, NodeMissing, PrivateNode
from bus.processes import marked_processes, wait_for_exit
from tests.broker_node import fresh_vhost, management_client

CHECKOUT = Path(__file__).parents[2]
RUN_FOR_EVER = """
import asyncio, sys
from pathlib import Path
from bus.node import PrivateNode

async def main() -> None:
    async with PrivateNode.start(Path(sys.argv[1])) as node:
        print(node.server_pid, flush=True)
        await node.ended()

asyncio.run(main())
"""


@pytest_asyncio.fixture(scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrivateNode]:
    directory = tmp_path_factory.mktemp("a node") / "with spaces"
    async with PrivateNode.start(directory) as running:
        yield running


@asynccontextmanager
async def node_of_another_process(directory: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A parent with its node, as the demo would be; and the process id of the node's server."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN_FOR_EVER, str(directory), cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    try:
        async with asyncio.timeout(60):
            yield parent, int(await parent.stdout.readline())
    finally:
        if parent.returncode is None:
            parent.kill()
        await parent.wait()


async def nothing_is_left_in(directory: Path) -> None:
    async with asyncio.timeout(10):
        while pids := marked_processes(directory.resolve()):
            await asyncio.gather(*(wait_for_exit(pid) for pid in pids))


def listening_addresses(pids: list[int]) -> set[tuple[str, int]]:
    """Where processes listen on TCP: (host, port), from the kernel's tables."""
    inodes = {inode for pid in pids for inode in socket_inodes(pid)}
    rows = [
        (family, line.split())
        for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6"))
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    listening = [(family, row[1]) for family, row in rows if row[3] == "0A" and row[9] in inodes]
    return {(host_of(family, local), int(local.rpartition(":")[2], 16)) for family, local in listening}


def host_of(family: socket.AddressFamily, local: str) -> str:
    words = bytes.fromhex(local.rpartition(":")[0])
    swapped = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
    return socket.inet_ntop(family, swapped)


def socket_inodes(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink())
        if target.startswith("socket:["):
            yield target.removeprefix("socket:[").removesuffix("]")


async def test_a_node_listens_on_its_four_ports_of_the_loopback_interface_only(node: PrivateNode) -> None:
    ports = node.ports
    addresses = listening_addresses(marked_processes(node.directory))

    # epmd listens on ::1 as well wherever the kernel has IPv6, whatever address it is given; that is loopback too.
    assert addresses - {("::1", ports.epmd)} == {
        ("127.0.0.1", port) for port in (ports.amqp, ports.management, ports.distribution, ports.epmd)
    }


async def test_its_only_user_is_the_administrator(node: PrivateNode) -> None:
    async with management_client(node.admin) as client:
        users = (await client.get("/api/users")).json()

    assert [user["name"] for user in users] == ["fedci-admin"]


async def test_no_process_argument_shows_the_password(node: PrivateNode) -> None:
    arguments = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in marked_processes(node.directory)]

    assert not [line for line in arguments if node.admin.password.encode() in line]


async def test_secrets_on_disk_are_for_their_owner_only(node: PrivateNode) -> None:
    secret_files = [node.directory / name for name in ("admin.password", "definitions.json", "home/.erlang.cookie")]

    assert [file.stat().st_mode & 0o077 for file in secret_files] == [0, 0, 0]


async def test_a_wrong_password_is_refused(node: PrivateNode) -> None:
    with pytest.raises(aio_pika.exceptions.AMQPError):
        await aio_pika.connect(node.admin.amqp_url("/", password="guessed"), timeout=10)


async def test_a_message_over_four_mebibytes_closes_the_channel(node: PrivateNode) -> None:
    async with (
        fresh_vhost(node.admin) as vhost,
        await aio_pika.connect(node.admin.amqp_url(vhost), timeout=10) as connection,
    ):
        channel = await connection.channel()
        queue = await channel.declare_queue("large", exclusive=True)
        too_large = aio_pika.Message(bytes(4 * 1024 * 1024 + 1))

        with pytest.raises(aio_pika.exceptions.ChannelPreconditionFailed):
            await channel.default_exchange.publish(too_large, queue.name, timeout=10)


async def test_a_second_node_in_the_same_directory_is_refused(node: PrivateNode) -> None:
    with pytest.raises(NodeInUse, match="already runs"):
        async with PrivateNode.start(node.directory):
            pass


async def test_a_stopped_node_leaves_no_process_and_starts_again_with_its_data(tmp_path: Path) -> None:
    async with PrivateNode.start(tmp_path) as first, management_client(first.admin) as client:
        (await client.put("/api/vhosts/kept")).raise_for_status()
    assert marked_processes(tmp_path) == []

    async with PrivateNode.start(tmp_path) as second, management_client(second.admin) as client:
        names = {vhost["name"] for vhost in (await client.get("/api/vhosts")).json()}

    assert "kept" in names
    assert (second.ports, second.admin) == (first.ports, first.admin)


async def test_a_node_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    async with node_of_another_process(tmp_path) as (parent, _):
        parent.kill()
        await nothing_is_left_in(tmp_path)


async def test_a_parent_learns_that_its_node_was_killed(tmp_path: Path) -> None:
    async with node_of_another_process(tmp_path) as (parent, server_pid):
        os.kill(server_pid, signal.SIGKILL)

        assert await parent.wait() == 0
    assert marked_processes(tmp_path) == []


async def test_a_start_ends_what_an_earlier_one_left_when_even_the_guard_was_killed(tmp_path: Path) -> None:
    async with node_of_another_process(tmp_path) as (parent, server_pid):
        guard = os.getpgid(server_pid)
        os.kill(guard, signal.SIGKILL)
        parent.kill()
        await wait_for_exit(guard)
        await parent.wait()
    assert server_pid in marked_processes(tmp_path)

    async with PrivateNode.start(tmp_path) as node:
        assert server_pid not in marked_processes(tmp_path)
        assert node.server_pid in marked_processes(tmp_path)


async def test_a_node_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fedci@localhost").write_text("a file where the database directory belongs")

    with pytest.raises(NodeFailed, match="the end of its logs"):
        async with PrivateNode.start(tmp_path):
            pass
    assert marked_processes(tmp_path) == []


async def test_a_machine_without_rabbitmq_is_told_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(NodeMissing, match="apt-get install rabbitmq-server"):
        async with PrivateNode.start(tmp_path, search_path=str(tmp_path)):
            pass
