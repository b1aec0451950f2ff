"""All that is known of one pinned issuer at one moment: the looked-up values that a decision is made with."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from identity.trust.keyset import IssuerKey
from identity.trust.profiles import IssuerProfile
from identity.trust.revocation import RevocationList
from schemas.refusals import Reason, Refusal

KEYS_MAX_AGE_SECONDS = 24 * 3600
"""Through an outage of its issuer a key set is used for so long, and no longer."""


@dataclass(frozen=True)
class Anchor:
    """An issuer's profile with its keys and revocations as last read; `None` where they never were."""

    profile: IssuerProfile
    keys: Mapping[str, IssuerKey] | None = None
    keys_read_at: datetime | None = None
    revocations: RevocationList | None = None

    def usable_keys(self, now: datetime) -> Mapping[str, IssuerKey] | Refusal:
        if self.keys is None or self.keys_read_at is None:
            return Refusal(Reason.ISSUER_UNREACHABLE, f"the keys of {self.profile.url} could not be read yet")
        age_seconds = (now - self.keys_read_at).total_seconds()
        if age_seconds > KEYS_MAX_AGE_SECONDS:
            return Refusal(
                Reason.ISSUER_UNREACHABLE,
                f"the keys of {self.profile.url} were last read {age_seconds:.0f} s ago",
            )
        return self.keys
