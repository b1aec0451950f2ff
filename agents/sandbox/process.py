"""The `process` executor's plan: no isolation at all, for the owner's own jobs, chosen by name in the configuration.

The job runs as the worker's user and can read what the worker can read. Everything else of the seam holds: limits as
far as cgroups allow, lease, kill of the whole tree, log, outcome. Never offer it to strangers.
"""

from agents.sandbox.executor import JobSpec
from agents.sandbox.orders import Plan, mapped_path
from agents.sandbox.rooms import Rooms


def make_plan(spec: JobSpec, rooms: Rooms) -> Plan:
    """Returns how to run `spec`: toolchains are used where they lie, as nothing is mounted."""
    return Plan(
        command=("/bin/sh",),
        jail_arguments=(),
        seccomp=b"",
        workspace=str(rooms.workspace),
        home=str(rooms.home),
        temporary=str(rooms.temporary),
        steps=str(rooms.steps),
        path=tuple(mapped_path(spec, entry) for entry in spec.path),
    )
