"""Why a sandbox was ended before its job was through, and how politely each cause kills.

The first cause wins and is never replaced: what is billable follows from whose doing it was (DESIGN §7, §9).
Imported by the warden, so it imports nothing but `enum`.
"""

from enum import StrEnum


class Cause(StrEnum):
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"
    WALL_TIMEOUT = "wall-timeout"
    LEASE_LOST = "lease-lost"
    WORKER_GONE = "worker-gone"
    WARDEN_LOST = "warden-lost"
    LOG_FLOOD = "log-flood"
    OUT_OF_MEMORY = "out-of-memory"
    WORKSPACE_FULL = "workspace-full"
    START_FAILED = "start-failed"


# These ask first (SIGTERM), wait for the grace, then kill. The others kill at once: a job that breaks a limit has no
# claim to more of it, and after a lost lease another worker may already run the same job.
POLITE = frozenset({Cause.CANCELLED, Cause.SHUTDOWN, Cause.WALL_TIMEOUT})
