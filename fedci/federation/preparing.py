"""Everybody's directory, made and not started: what `compose.yaml` mounts.

The same founding as in the demo, with fixed ports, and with the files of a RabbitMQ that somebody else will start. A
directory that was prepared before is left as it is.
"""

from pathlib import Path

from bus.access import AdminAccess
from bus.node_files import ADMINISTRATOR, LOOPBACK, NodePorts, write_node_files
from fedci.federation import founding, places

BUS_PORTS = NodePorts(amqp=18390, management=18391, distribution=18392, epmd=18393)


async def prepare(directory: Path, toolchain: Path) -> None:
    """Found a federation in `directory` for roles that are started by something else."""
    if places.is_founded(directory):
        return
    at = places.choose(directory, fixed=True)
    at.rabbitmq.mkdir(parents=True, exist_ok=True, mode=0o700)
    password = write_node_files(at.rabbitmq, BUS_PORTS)
    access = AdminAccess(f"http://{LOOPBACK}:{BUS_PORTS.management}", ADMINISTRATOR, password, LOOPBACK, BUS_PORTS.amqp)
    await founding.found(at, access, toolchain)
