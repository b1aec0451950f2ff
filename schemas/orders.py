"""Orders: what a controller tells a worker (DESIGN §5–§7).

Every order carries the ID token of its controller, addressed to the provider, and names the same principal, audience
and token hash in its payload. The worker answers to the tenant that it computed from the verified principal, never to
anything in here.
"""

from collections.abc import Hashable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas import limits
from schemas.ids import AttemptId, ClaimId, Label, MessageId, ProviderName, RunId, Sha256
from schemas.refusals import Reason
from schemas.wire import (
    Audience,
    Count,
    Instant,
    IssuerUrl,
    Kind,
    Message,
    Part,
    Script,
    Subject,
    Text,
    WorkspacePath,
)

EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]
PoolLabel = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*(?:=[A-Za-z0-9._+-]+)?$", max_length=100)]
"""`name` or `name=value`, as `os=linux`, `arch=x86_64`, `board=risc-v-k1`."""


class Order(Message):
    """What all orders say: who speaks, to whom, with which token, from when until when."""

    KIND = Kind.ORDER
    CARRIES_TOKEN = True

    iss: IssuerUrl
    sub: Subject
    aud: Audience
    ath: Sha256
    issued_at: Instant
    expires_at: Instant


class Step(Part):
    """One shell script; its steps share a workspace and a jail."""

    name: Text
    run: Script


class Resources(Part):
    """The size that a job reserves, and that is billed by wall second."""

    cores: Annotated[int, Field(ge=1, le=1024)] = 1
    memory_bytes: Annotated[int, Field(ge=16 * limits.MIB)] = limits.JOB_MEMORY_BYTES
    disk_bytes: Annotated[int, Field(ge=limits.MIB)] = limits.JOB_DISK_BYTES
    processes: Annotated[int, Field(ge=8, le=100_000)] = limits.JOB_PROCESSES


class Source(Part):
    """The snapshot to build: an uncompressed tar, inline or a blob in the store that the job names."""

    digest: Sha256
    size_bytes: Annotated[int, Field(ge=0, le=limits.SNAPSHOT_BYTES)]
    revision: Text
    inline: Annotated[bytes, Field(max_length=limits.INLINE_SOURCE_BYTES)] | None = None


class InputFile(Part):
    """A file that an earlier job made, put at `path` in the workspace before the first step."""

    path: WorkspacePath
    digest: Sha256
    size_bytes: Count


class OutputArtifact(Part):
    """What to keep: a name, and the paths or globs of its files in the workspace; each must match."""

    name: Label
    paths: Annotated[tuple[WorkspacePath, ...], Field(min_length=1, max_length=50)]


class Job(Order):
    """Run this once, if you can and trust me. It is only an offer: nothing starts before the `Grant`."""

    TYPE: ClassVar[str] = "fedci.job/1"
    MAX_BYTES: ClassVar[int] = limits.JOB_BYTES

    attempt: AttemptId
    number: Annotated[int, Field(ge=1)]
    project: Label
    run: RunId
    name: Label
    pool: Label
    labels: Annotated[tuple[PoolLabel, ...], Field(max_length=limits.LABELS)] = ()
    toolchains: Annotated[tuple[Label, ...], Field(max_length=8)] = ()
    network: bool = False
    resources: Resources = Resources()
    timeout_seconds: Annotated[int, Field(ge=1, le=limits.JOB_TIMEOUT_MAX_SECONDS)] = limits.JOB_TIMEOUT_SECONDS
    log_bytes: Annotated[int, Field(ge=1024, le=limits.GIB)] = limits.JOB_LOG_BYTES
    artifact_bytes: Annotated[int, Field(ge=0)] = limits.JOB_ARTIFACT_BYTES
    env: Annotated[dict[EnvName, Text], Field(max_length=limits.ENV_ENTRIES)] = Field(default_factory=dict)
    secrets: Annotated[tuple[EnvName, ...], Field(max_length=50)] = ()
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=limits.STEPS)]
    source: Source
    inputs: Annotated[tuple[InputFile, ...], Field(max_length=limits.FILES)] = ()
    artifacts: Annotated[tuple[OutputArtifact, ...], Field(max_length=50)] = ()
    store: ProviderName | None = None
    rate_card: Sha256

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.attempt)


class Grant(Order):
    """Start now: this claim of this attempt and no other. Carries what the job needs, sealed to the claim's key."""

    TYPE: ClassVar[str] = "fedci.grant/1"
    MAX_BYTES: ClassVar[int] = limits.GRANT_BYTES

    attempt: AttemptId
    claim: ClaimId
    lease_seconds: Annotated[int, Field(ge=1, le=3600)] = limits.LEASE_SECONDS
    sealed: Annotated[bytes, Field(max_length=limits.GRANT_BYTES // 2)]

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.claim)


class GrantSecrets(Part):
    """What `Grant.sealed` holds, as one msgpack map: values for `Job.secrets`, and the ticket for `Job.store`."""

    secrets: dict[EnvName, Annotated[str, Field(max_length=32 * limits.KIB)]] = Field(default_factory=dict)
    store_ticket: bytes | None = None


class StandDown(Order):
    """Do not start: somebody else has the attempt, or nobody wants it any more."""

    TYPE: ClassVar[str] = "fedci.stand-down/1"

    attempt: AttemptId
    claim: ClaimId
    reason: Annotated[Reason, Field(strict=False)]

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.claim)


class Cancel(Order):
    """Stop the job and report how far it came."""

    TYPE: ClassVar[str] = "fedci.cancel/1"

    id: MessageId
    attempt: AttemptId
    claim: ClaimId
    cause: Literal["user", "superseded", "orphan"]

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.id)


class Resend(Order):
    """Send again what did not arrive: the log from one offset up to another, and the reports of these numbers."""

    TYPE: ClassVar[str] = "fedci.resend/1"

    id: MessageId
    attempt: AttemptId
    claim: ClaimId
    log_from: Count
    log_to: Count
    sequences: Annotated[tuple[Count, ...], Field(max_length=1000)] = ()

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.id)


class Settled(Order):
    """All of this claim is stored here, log included: forget it."""

    TYPE: ClassVar[str] = "fedci.settled/1"

    id: MessageId
    attempt: AttemptId
    claim: ClaimId

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.id)
