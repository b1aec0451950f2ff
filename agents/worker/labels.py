"""What this machine is, in labels that jobs may ask for: `os=linux`, `arch=x86_64`, `cores=4`, `memory-gib=7`.

Found labels state facts, so the owner's own labels may add to them but not contradict them.
"""

import os
import platform
from dataclasses import dataclass

from runtime.errors import OurFault
from schemas import limits

_FOUND_NAMES = frozenset({"os", "arch", "cores", "memory-gib"})


@dataclass(frozen=True, slots=True)
class Machine:
    system: str
    architecture: str
    cores: int
    memory_bytes: int


def this_machine() -> Machine:
    """Ask the operating system; cores are those that this process may use."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(platform.system().lower(), platform.machine(), len(os.sched_getaffinity(0)), memory_bytes)


def labels_of(machine: Machine, own: tuple[str, ...]) -> tuple[str, ...]:
    """The machine's labels and the owner's; raises OurFault where the owner's repeat what is found by itself."""
    repeated = sorted(label for label in own if label.partition("=")[0] in _FOUND_NAMES)
    if repeated:
        raise OurFault(
            f"these labels are found by the worker itself: {', '.join(repeated)}",
            where="labels",
            remedy="Remove them from the settings.",
        )
    found = (
        f"os={machine.system}",
        f"arch={machine.architecture}",
        f"cores={machine.cores}",
        f"memory-gib={machine.memory_bytes // limits.GIB}",
    )
    return found + own
