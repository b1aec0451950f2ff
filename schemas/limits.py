"""The numbers of the contract, each with its unit and its reason.

A limit that two parties must agree on stands here; what one owner may set for themselves stands in that role's
settings, never above these.
"""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# -- Envelopes. The bus itself refuses messages above BUS_MESSAGE_BYTES, so every type stays below it.
BUS_MESSAGE_BYTES = 1 * MIB
INLINE_SOURCE_BYTES = 256 * KIB
"""A snapshot up to this size travels inside the job; a larger one goes through a store (DESIGN §8)."""
JOB_BYTES = 512 * KIB
LOG_CHUNK_BYTES = 64 * KIB
LOG_BYTES = LOG_CHUNK_BYTES + 4 * KIB
MESSAGE_BYTES = 64 * KIB
GRANT_BYTES = 256 * KIB
STATEMENT_BYTES = 256 * KIB
TOKEN_BYTES = 4 * KIB
"""Before login RabbitMQ 3.10 takes frames of 4 KiB; a token that fits there fits everywhere."""
TYPE_CHARACTERS = 64

# -- Structure of a payload.
PAYLOAD_DEPTH = 8
TEXT_CHARACTERS = 4 * KIB
SCRIPT_CHARACTERS = 64 * KIB
STEPS = 64
JOBS = 200
FILES = 500
LABELS = 32
ENV_ENTRIES = 200

# -- Time.
CLOCK_SKEW_SECONDS = 30
ID_TOKEN_SECONDS = 3600
ID_TOKEN_MAX_SECONDS = 24 * 3600
"""A longer-lived token is refused, whoever signed it: revocation must not have to reach further back."""
TICKET_SECONDS = 60
GRANT_SECONDS = 30
"""A worker starts only on a grant that comes within this time of its claim, by its own clock (DESIGN §7.2)."""
LEASE_SECONDS = 120
LEASE_HELD_FRACTION = 0.75
"""A worker holds its own lease shorter than the controller does, so that the controller's expiry is proof."""
JOB_TIMEOUT_SECONDS = 3600
JOB_TIMEOUT_MAX_SECONDS = 24 * 3600
REVOCATION_STALE_SECONDS = 300
JWKS_REFETCH_SECONDS = 60
STORE_TAB_GRACE_SECONDS = 1800

# -- One job, unless its pipeline says otherwise.
JOB_LOG_BYTES = 64 * MIB
JOB_MEMORY_BYTES = 1 * GIB
JOB_DISK_BYTES = 2 * GIB
JOB_PROCESSES = 512
JOB_ARTIFACT_BYTES = 1 * GIB

PIPELINE_BYTES = 256 * KIB
SNAPSHOT_BYTES = 512 * MIB
