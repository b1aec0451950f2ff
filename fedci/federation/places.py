"""Where everything of a one-machine federation is: directories and ports.

    DIR/rabbitmq               the private node
    DIR/issuers/<person>       DIR/desks/<person>    DIR/ledgers/<person>
    DIR/workers/<person>       DIR/stores/<person>   DIR/controllers/<person>

Ports are chosen once, when the federation is founded, and kept in `federation.json`: issuers are named by their URLs,
so they must stay. Unless asked for otherwise they are free ones; `compose.yaml` asks for fixed ones.
"""

import json
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fedci.federation.cast import CUSTOMERS, ISSUERS, PROVIDERS

FILE = "federation.json"
FIRST_FIXED_PORT = 18400
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Places:
    """The directories and ports of one federation."""

    directory: Path
    ports: dict[str, int]

    @property
    def rabbitmq(self) -> Path:
        return self.directory / "rabbitmq"

    @property
    def keys(self) -> Path:
        return self.directory / "keys"

    def of(self, kind: str, person: str) -> Path:
        """The data directory of a role: `kind` is issuers, desks, ledgers, workers, stores or controllers."""
        return self.directory / kind / person

    def listen(self, kind: str, person: str) -> str:
        return f"{HOST}:{self.ports[f'{kind}/{person}']}"

    def url(self, kind: str, person: str) -> str:
        return f"http://{self.listen(kind, person)}"


def names() -> list[str]:
    """Every role that listens, as `kind/person`."""
    listening = [f"issuers/{person}" for person in ISSUERS]
    for provider in PROVIDERS:
        listening += [f"desks/{provider.person}", f"ledgers/{provider.person}", f"{provider.lends}s/{provider.person}"]
    return [*listening, *(f"controllers/{customer.person}" for customer in CUSTOMERS)]


def choose(directory: Path, *, fixed: bool = False) -> Places:
    """The places of the federation in `directory`: those it was founded with, or new ones."""
    file = directory / FILE
    if file.exists():
        return Places(directory, json.loads(file.read_text(encoding="utf-8"))["ports"])
    wanted = names()
    numbers = range(FIRST_FIXED_PORT, FIRST_FIXED_PORT + len(wanted)) if fixed else free_ports(len(wanted))
    return Places(directory, dict(zip(wanted, numbers, strict=True)))


def remember(places: Places) -> None:
    """Keep the ports; written last, so that a directory with this file is a whole federation."""
    (places.directory / FILE).write_text(json.dumps({"ports": places.ports}, indent=2), encoding="utf-8")


def is_founded(directory: Path) -> bool:
    return (directory / FILE).exists()


def free_ports(count: int) -> list[int]:
    """So many different free ports; held all at once, so that none is given out twice."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
