"""Reports: what a provider's agents tell a controller (DESIGN §5–§7).

`Claim` and `Refused` carry the worker's ID token, addressed to the controller. All that follows is signed by the key
that the accepted claim recorded, and numbered within the claim.
"""

from collections.abc import Hashable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas import limits
from schemas.ends import EndReason
from schemas.ids import AttemptId, ClaimId, Label, ProviderName, Sha256
from schemas.refusals import Reason
from schemas.wire import (
    Audience,
    Count,
    Instant,
    IssuerUrl,
    Kind,
    Message,
    Number,
    Part,
    PublicKey,
    Subject,
    Text,
    WorkspacePath,
)


class Report(Message):
    """What all reports say: to whom, from which provider's agent, made when."""

    KIND = Kind.REPORT
    CARRIES_TOKEN = False

    aud: Audience
    provider: ProviderName
    agent: Label
    made_at: Instant


class Introduced(Report):
    """A report with an ID token: the first that this agent says about an attempt."""

    CARRIES_TOKEN = True

    iss: IssuerUrl
    sub: Subject
    ath: Sha256


class Claim(Introduced):
    """I can run this attempt now; seal the grant to `grant_key`. The delivery is acknowledged after this."""

    TYPE: ClassVar[str] = "fedci.claim/1"

    attempt: AttemptId
    claim: ClaimId
    grant_key: PublicKey

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.claim)


class Refused(Introduced):
    """I do not take this. `final` speaks for the provider, `here` for this worker alone.

    `subject` is the SHA-256 of the refused envelope; `attempt` is what that envelope could be read to be about, and
    nothing where it could not be read.
    """

    TYPE: ClassVar[str] = "fedci.refused/1"

    subject: Sha256
    attempt: AttemptId | None
    reason: Annotated[Reason, Field(strict=False)]
    scope: Literal["final", "here"]
    detail: Text

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE, self.agent, self.subject)


class ClaimReport(Report):
    """A report about a claim: numbered from 0 within it, whatever its type; logs are numbered by their offset."""

    attempt: AttemptId
    claim: ClaimId
    sequence: Count

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        return (self.TYPE if self.TYPE == Log.TYPE else "report", self.claim, self.sequence)


class Used(Part):
    """What a job used so far. `cpu_seconds` and `memory_peak_bytes` are estimates unless a cgroup counted them."""

    wall_seconds: Number
    cpu_seconds: Number
    memory_peak_bytes: Count
    is_estimate: bool


class Log(ClaimReport):
    """Bytes of the job's output; `sequence` is the offset of the first of them in the whole log."""

    TYPE: ClassVar[str] = "fedci.log/1"
    MAX_BYTES: ClassVar[int] = limits.LOG_BYTES

    data: Annotated[bytes, Field(min_length=1, max_length=limits.LOG_CHUNK_BYTES)]

    @property
    def offset(self) -> int:
        return self.sequence


class Heartbeat(ClaimReport):
    """The job runs, and this is how far it is. `step` counts from 0."""

    TYPE: ClassVar[str] = "fedci.heartbeat/1"

    step: Count
    log_bytes: Count
    used: Used


class StepResult(Part):
    name: Text
    exit_code: Annotated[int, Field(ge=0, le=255)] | None
    seconds: Number


class ArtifactFile(Part):
    """A file that the job made and the store holds, `artifact` being the name that the pipeline gave it."""

    artifact: Label
    path: WorkspacePath
    digest: Sha256
    size_bytes: Count


class Finished(ClaimReport):
    """The job is over and nothing of it lives any more."""

    TYPE: ClassVar[str] = "fedci.finished/1"
    MAX_BYTES: ClassVar[int] = limits.GRANT_BYTES

    reason: Annotated[EndReason, Field(strict=False)]
    detail: Text
    started_at: Instant
    ended_at: Instant
    steps: Annotated[tuple[StepResult, ...], Field(max_length=limits.STEPS)]
    log_bytes: Count
    log_sha256: Sha256
    artifacts: Annotated[tuple[ArtifactFile, ...], Field(max_length=limits.FILES)] = ()
    used: Used


class Released(ClaimReport):
    """I claimed it and shall not start it: no grant came in time, or I was told to stand down or to stop."""

    TYPE: ClassVar[str] = "fedci.released/1"

    reason: Annotated[Reason, Field(strict=False)]
