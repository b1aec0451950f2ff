"""What an issuer has taken back, and how old that knowledge is (DESIGN §4).

An issuer publishes a signed list: a JWT with `typ` `fedci-revocations+jwt`, signed by a key of its JWK Set, with `iss`,
`iat`, `exp`, `jtis` (pairs of a token's id and its end) and `subjects` (pairs of a subject and an instant: of tokens
issued up to then none is good any more). A list counts from its `iat`: older than the profile's `stale_after_seconds`
it settles nothing, and new work is refused. An older list never replaces a newer one, so that nobody on the way can
bring back what was revoked.

Pure; polling is in `watch`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from identity.trust.keyset import IssuerKey
from identity.trust.profiles import REVOCATIONS_TYPE, IssuerProfile
from identity.trust.tokens import NumericDate, check_signature, read_token
from schemas import limits
from schemas.refusals import Reason, Refusal

MAX_LIST_BYTES = 4 * limits.MIB
_TokenId = Annotated[str, Field(min_length=1, max_length=200)]
_Subject = Annotated[str, Field(min_length=1, max_length=200)]


@dataclass(frozen=True)
class RevocationList:
    """Which tokens and subjects one issuer has revoked, as of `issued_at`."""

    issued_at: datetime
    expires_at: datetime
    token_ids: frozenset[str]
    subjects: Mapping[str, datetime]

    def revokes(self, *, sub: str, token_id: str, issued_at: datetime) -> bool:
        """Whether this token is taken back; a token issued in the very second of a revocation is."""
        revoked_before = self.subjects.get(sub)
        return token_id in self.token_ids or (revoked_before is not None and issued_at <= revoked_before)


class _Claims(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    iss: str
    iat: NumericDate
    exp: NumericDate
    jtis: list[tuple[_TokenId, NumericDate]]
    subjects: list[tuple[_Subject, NumericDate]]


def read_revocation_list(
    document: bytes, *, profile: IssuerProfile, keys: Mapping[str, IssuerKey], now: datetime
) -> RevocationList | Refusal:
    """Verify a signed revocation list with the issuer's keys and take it apart."""
    if len(document) > MAX_LIST_BYTES:
        return Refusal(Reason.TOO_LARGE, f"a revocation list of over {MAX_LIST_BYTES} bytes")
    token = read_token(document)
    if isinstance(token, Refusal):
        return token
    key = check_signature(token, typ=REVOCATIONS_TYPE, algorithms=profile.algorithms, keys=keys)
    if isinstance(key, Refusal):
        return key
    try:
        claims = _Claims.model_validate_json(token.payload)
    except ValidationError as error:
        return Refusal(Reason.CLAIMS_MALFORMED, f"the revocation list: {error.error_count()} field(s) are wrong")
    if claims.iss != profile.url:
        return Refusal(Reason.ISSUER_UNTRUSTED, "the revocation list names another issuer")
    return _check_times(_as_list(claims), now)


def check_revocation(
    revocations: RevocationList | None,
    profile: IssuerProfile,
    now: datetime,
    *,
    sub: str,
    token_id: str,
    issued_at: datetime,
) -> Refusal | None:
    """Why this token must not be used for new work, if it must not."""
    if profile.revocation == "none-short-lived":
        return None
    if revocations is None:
        return Refusal(Reason.REVOCATION_STALE, f"the revocation list of {profile.url} was never read")
    # Known to be revoked is known, however old the list is.
    if revocations.revokes(sub=sub, token_id=token_id, issued_at=issued_at):
        return Refusal(Reason.REVOKED, "the issuer has revoked this token or its account")
    age_seconds = (now - revocations.issued_at).total_seconds()
    if age_seconds > profile.stale_after_seconds or now > revocations.expires_at:
        return Refusal(
            Reason.REVOCATION_STALE,
            f"the revocation list of {profile.url} is {age_seconds:.0f} s old, "
            f"at most {profile.stale_after_seconds} s are accepted for new work",
        )
    return None


def is_newer(fresh: RevocationList, present: RevocationList | None) -> bool:
    return present is None or fresh.issued_at >= present.issued_at


def _as_list(claims: _Claims) -> RevocationList:
    return RevocationList(
        issued_at=datetime.fromtimestamp(claims.iat, UTC),
        expires_at=datetime.fromtimestamp(claims.exp, UTC),
        token_ids=frozenset(token_id for token_id, _ in claims.jtis),
        subjects={sub: datetime.fromtimestamp(before, UTC) for sub, before in claims.subjects},
    )


def _check_times(fresh: RevocationList, now: datetime) -> RevocationList | Refusal:
    ahead_seconds = (fresh.issued_at - now).total_seconds()
    if ahead_seconds > limits.CLOCK_SKEW_SECONDS:
        return Refusal(Reason.TOKEN_NOT_YET_VALID, f"the revocation list is dated {ahead_seconds:.0f} s ahead")
    return fresh
