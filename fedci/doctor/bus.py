"""RabbitMQ: the programs for a node of our own, or the one that the environment or a desk's settings name."""

import asyncio
import base64
import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from bus.access import AMQP_VARIABLE, API_VARIABLE, AdminAccess
from bus.node import SEARCH_PATH
from fedci.doctor.findings import Finding, ok, warn, wrong
from runtime.http_client import fetch, json_object

MIN_RABBITMQ = (3, 10)
MIN_ERLANG = 23
INSTALL = f"Install rabbitmq-server, or name an existing RabbitMQ by {AMQP_VARIABLE} and {API_VARIABLE}."
_MAX_ANSWER_BYTES = 4 * 2**20
CONNECT_SECONDS = 5.0


async def look_at_bus(env: Mapping[str, str], client: httpx.AsyncClient, *, is_wanted: bool) -> Sequence[Finding]:
    """The RabbitMQ that the environment names, else the programs of this machine.

    Raises AccessError where the environment's description cannot be used.
    """
    access = AdminAccess.from_environment(env)
    if access is not None:
        return await look_at_access("rabbitmq", access, client)
    return list(look_at_programs(SEARCH_PATH, is_wanted=is_wanted))


def look_at_programs(search_path: str, *, is_wanted: bool) -> Iterator[Finding]:
    """The programs of a node of our own. None is run: `rabbitmqctl version` would leave an `epmd` behind."""
    server, erl = (shutil.which(name, path=search_path) for name in ("rabbitmq-server", "erl"))
    yield judge_program("rabbitmq", server and _rabbitmq_version(Path(server).resolve()), is_wanted=is_wanted)
    yield judge_program("erlang", erl and _erlang_version(Path(erl).resolve()), is_wanted=is_wanted)


async def look_at_access(name: str, access: AdminAccess, client: httpx.AsyncClient) -> Sequence[Finding]:
    """A RabbitMQ in operation: its management API with the administrator's password, and its AMQP port.

    Raises WorldFault when the API cannot be reached.
    """
    secret = base64.b64encode(f"{access.user}:{access.password}".encode()).decode("ascii")
    answer = await fetch(
        client,
        "GET",
        f"{access.api_url}/api/overview",
        max_bytes=_MAX_ANSWER_BYTES,
        deadline_seconds=CONNECT_SECONDS,
        headers={"authorization": f"Basic {secret}"},
    )
    overview = json_object(answer) if answer.status == 200 else {}
    return [
        judge_overview(name, access, answer.status, overview),
        judge_port(f"{name}: amqp", access.amqp_host, access.amqp_port, await _is_open(access)),
    ]


def judge_program(name: str, answer: str | None, *, is_wanted: bool) -> Finding:
    """`answer` is what its installation says of its version, None where there is no program."""
    if answer is None:
        return (wrong if is_wanted else warn)(name, "not found", INSTALL)
    version = read_version(answer)
    if not version:
        return warn(name, "found, but its installation does not tell its version", "See that it works.")
    least = (MIN_ERLANG,) if name == "erlang" else MIN_RABBITMQ
    seen = ".".join(map(str, version))
    if version < least:
        return wrong(name, seen, f"Install version {'.'.join(map(str, least))} or newer.")
    return ok(name, seen)


def judge_overview(name: str, access: AdminAccess, status: int, overview: Mapping[str, Any]) -> Finding:
    if status == 401:
        return wrong(name, f"{access.user} is refused at {access.api_url}", "Correct the user or its password.")
    if status != 200:
        return wrong(name, f"{access.api_url} answered {status}", f"See that {API_VARIABLE} names a management API.")
    version = str(overview.get("rabbitmq_version", "of no version"))
    if read_version(version) < MIN_RABBITMQ:
        return wrong(name, f"RabbitMQ {version}", "Use RabbitMQ 3.10 or newer: quorum queues and streams are needed.")
    return ok(name, f"RabbitMQ {version} at {access.api_url}")


def judge_port(name: str, host: str, port: int, is_open: bool) -> Finding:
    if is_open:
        return ok(name, f"{host}:{port} takes connections")
    return wrong(name, f"nothing takes connections at {host}:{port}", "See RabbitMQ's listeners and any firewall.")


def read_version(text: str) -> tuple[int, ...]:
    """The first version number in a text; empty where there is none."""
    found = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _rabbitmq_version(server: Path) -> str:
    """From the name of the directory that the script is in (`rabbitmq_server-3.10.8/sbin`), or of RabbitMQ's plugin."""
    home = server.parent.parent
    names = [home.name, *(plugin.name for plugin in home.glob("plugins/rabbit-*"))]
    return next((name.partition("-")[2] for name in names if name.startswith(("rabbitmq_server-", "rabbit-"))), "")


def _erlang_version(erl: Path) -> str:
    """From `releases/start_erl.data`, which says `<erts version> <OTP release>`."""
    try:
        words = (erl.parent.parent / "releases" / "start_erl.data").read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return ""
    return words[1] if len(words) == 2 else ""


async def _is_open(access: AdminAccess) -> bool:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(access.amqp_host, access.amqp_port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
