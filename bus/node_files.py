"""What a private RabbitMQ node reads from its directory: configuration, ports, administrator, cookie.

Writes small files and builds the node's environment; starts nothing. Everything the node owns lies under one
directory, so that removing the directory removes the node. Ports and administrator are remembered there: a node
started again on its directory keeps its data, its address and its password as long as the ports are still free.

Rules: every listener is bound to 127.0.0.1; the administrator's password is stored in a file of mode 0600 and reaches
the node only as a salted hash (RabbitMQ's `rabbit_password_hashing_sha256`); no user `guest`; nothing in arguments.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from bus.processes import MARK
from schemas import limits

ADMINISTRATOR = "fedci-admin"
LOOPBACK = "127.0.0.1"
HEARTBEAT_SECONDS = 10
# Below Linux's range for outgoing connections, so that none of those takes a port between our look and the listen.
PORT_RANGE = range(20000, 32000)

CONFIGURATION = f"""\
listeners.tcp.1 = {LOOPBACK}:{{ports.amqp}}
management.tcp.ip = {LOOPBACK}
management.tcp.port = {{ports.management}}
load_definitions = definitions.json
loopback_users.{ADMINISTRATOR} = true
heartbeat = {HEARTBEAT_SECONDS}
max_message_size = {limits.BUS_MESSAGE_BYTES}
log.file = node.log
log.file.level = info
log.console = false
raft.wal_max_size_bytes = 67108864
"""


@dataclass(frozen=True)
class NodePorts:
    """The four loopback ports of a node."""

    amqp: int
    management: int
    distribution: int
    epmd: int

    def all_free(self) -> bool:
        """Whether nothing listens on any of them right now."""
        return all(_is_free(port) for port in asdict(self).values())


def choose_ports() -> NodePorts:
    """Four different ports that are free now; somebody else may still be quicker, so a start is tried again."""
    chosen: set[int] = set()
    while len(chosen) < 4:
        port = PORT_RANGE[secrets.randbelow(len(PORT_RANGE))]
        if _is_free(port):
            chosen.add(port)
    return NodePorts(*chosen)


def remembered_ports(directory: Path) -> NodePorts | None:
    """The ports of this directory's last start when they are still free."""
    file = directory / "ports.json"
    if not file.exists():
        return None
    ports = NodePorts(**json.loads(file.read_text()))
    return ports if ports.all_free() else None


def write_node_files(directory: Path, ports: NodePorts) -> str:
    """Write all that the node reads and return the administrator's password."""
    for name in ("home", "data", "log"):
        (directory / name).mkdir(exist_ok=True)
    password = _remembered_secret(directory / "admin.password")
    _remembered_secret(directory / "home" / ".erlang.cookie", mode=0o400)
    (directory / "ports.json").write_text(json.dumps(asdict(ports)))
    (directory / "rabbitmq.conf").write_text(CONFIGURATION.format(ports=ports))
    (directory / "advanced.config").write_text("[{kernel, [{inet_dist_use_interface, {127,0,0,1}}]}].\n")
    (directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
    (directory / "rabbitmq-env.conf").write_text("")
    _write_private(directory / "definitions.json", json.dumps(_definitions(password)))
    return password


def node_environment(directory: Path, ports: NodePorts, search_path: str) -> dict[str, str]:
    """The whole environment of the node: nothing of ours (tokens, addresses) is passed on to it."""
    return {
        MARK: str(directory),
        "PATH": search_path,
        "HOME": str(directory / "home"),
        "LANG": "C.UTF-8",
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_EPMD_PORT": str(ports.epmd),
        "RABBITMQ_NODENAME": "fedci@localhost",
        "RABBITMQ_DIST_PORT": str(ports.distribution),
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
        # Makes the script become the Erlang VM instead of staying its parent: one process to signal and to wait for.
        "RABBITMQ_ALLOW_INPUT": "true",
        # One application never answers the stop and would hold it up for 5 s; the data is safe without its answer.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel shutdown_timeout 1000",
    }


def _definitions(password: str) -> dict[str, object]:
    rights = {"user": ADMINISTRATOR, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    user = {
        "name": ADMINISTRATOR,
        "password_hash": _password_hash(password),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": ["administrator"],
    }
    return {"users": [user], "vhosts": [{"name": "/"}], "permissions": [rights]}


def _password_hash(password: str) -> str:
    """RabbitMQ's salted SHA-256: base64(salt ‖ SHA-256(salt ‖ password)), salt of four bytes (guide "Passwords")."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _remembered_secret(file: Path, mode: int = 0o600) -> str:
    if not file.exists():
        _write_private(file, secrets.token_urlsafe(32), mode)
    return file.read_text()


def _write_private(file: Path, text: str, mode: int = 0o600) -> None:
    """Replace `file` in one step; it has its final mode before it has any content."""
    unfinished = file.with_name(file.name + ".new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as out:
        out.write(text)
    unfinished.replace(file)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
