"""The signed list of what this issuer has taken back, as verifiers poll it (`identity.trust.revocation` reads it).

A JWT: `iss`, `iat`, `exp` (good for five minutes), `jtis` = pairs of a token's id and its end, `subjects` = pairs of a
subject and an instant; of the tokens that were issued up to that instant none is good. What has ended anyway is left
out, so the list stays short. It is signed anew when its content or the signing key changes, and at least every half
minute: a verifier counts its age from `iat`. The same text is served in between, so that an ETag saves the transfer.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from identity.server.jwts import sign
from identity.server.key_files import KeyFiles
from identity.server.signing_keys import active_key
from identity.server.store import Store
from schemas import limits
from schemas.ids import sha256_hex

REVOCATIONS_TYPE = "fedci-revocations+jwt"
FRESH_SECONDS = 300
_RESIGN = timedelta(seconds=30)
_LONGEST_TOKEN = timedelta(seconds=limits.ID_TOKEN_MAX_SECONDS)

Pairs = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Revoked:
    """What is taken back, and the key that will say so."""

    jtis: Pairs
    subjects: Pairs
    kid: str


@dataclass(frozen=True)
class SignedList:
    revoked: Revoked
    signed_at: datetime
    text: str

    @property
    def etag(self) -> str:
        return f'"{sha256_hex(self.text.encode("ascii"))[:32]}"'


class RevocationLists:
    """Signs the list when it has to be signed."""

    def __init__(self, iss: str, files: KeyFiles) -> None:
        self._iss = iss
        self._files = files
        self._last: SignedList | None = None

    def current(self, store: Store, now: datetime) -> SignedList:
        revoked = _read(store, active_key(store, self._files).thumbprint, now)
        last = self._last
        if last is None or last.revoked != revoked or not timedelta(0) <= now - last.signed_at < _RESIGN:
            last = self._last = SignedList(revoked, now, self._sign(revoked, now))
        return last

    def _sign(self, revoked: Revoked, now: datetime) -> str:
        seconds = int(now.timestamp())
        claims: dict[str, Any] = {
            "iss": self._iss,
            "iat": seconds,
            "exp": seconds + FRESH_SECONDS,
            "jtis": revoked.jtis,
            "subjects": revoked.subjects,
        }
        return sign(claims, self._files.load(revoked.kid), typ=REVOCATIONS_TYPE)


def _read(store: Store, kid: str, now: datetime) -> Revoked:
    return Revoked(
        jtis=_pairs(store.revoked_tokens(now)),
        # A token issued in the second of the revocation can live on for the longest life that there is.
        subjects=_pairs(store.revoked_subjects(now - _LONGEST_TOKEN)),
        kid=kid,
    )


def _pairs(rows: list[tuple[str, datetime]]) -> Pairs:
    return tuple((name, int(at.timestamp())) for name, at in rows)
