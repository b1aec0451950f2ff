"""The life of the issuer's keys: published, then signing, then kept for verification; and what others read of them.

`next` is in the key set at least `jwks_max_age_seconds` before it signs, so that no verifier meets a key it has not
seen. `retired` stays in the key set until the last token that it signed has ended. `compromised` leaves it at once, and
with it every token that it signed. Former keys are listed for ever with their dates: an old statement is judged by the
key of its time (DESIGN §4).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from identity.keys import SigningKey, public_jwk
from identity.server.key_files import KeyFiles
from identity.server.store import Store
from identity.server.tables import IssuerKey, KeyState
from runtime.errors import OurFault
from schemas import limits
from schemas.wire import to_milliseconds

_SKEW = timedelta(seconds=limits.CLOCK_SKEW_SECONDS)


class TooEarly(OurFault):
    """The next key is not known long enough to sign."""


def create_first_keys(store: Store, files: KeyFiles, now: datetime) -> None:
    """Give a new issuer its active and its next key."""
    if store.key_in(KeyState.ACTIVE) is None:
        store.add_key(files.create().public, KeyState.ACTIVE, now)
    if store.key_in(KeyState.NEXT) is None:
        store.add_key(files.create().public, KeyState.NEXT, now)


def active_key(store: Store, files: KeyFiles) -> SigningKey:
    """The key that signs now."""
    return files.load(_only(store, KeyState.ACTIVE).kid)


def load_keys(store: Store, files: KeyFiles) -> None:
    """See that the keys that sign now and next are there; raises `OurFault` where one is not."""
    for state in (KeyState.ACTIVE, KeyState.NEXT):
        files.load(_only(store, state).kid)


def ready_at(next_key: IssuerKey, jwks_max_age_seconds: int) -> datetime:
    """When every verifier that keeps a key set as long as it may has seen this key."""
    return next_key.published_at + timedelta(seconds=jwks_max_age_seconds)


def is_rotation_due(store: Store, now: datetime, *, after_days: int, jwks_max_age_seconds: int) -> bool:
    since = _only(store, KeyState.ACTIVE).active_from
    is_old = after_days > 0 and since is not None and now >= since + timedelta(days=after_days)
    return is_old and now >= ready_at(_only(store, KeyState.NEXT), jwks_max_age_seconds)


def rotate(store: Store, files: KeyFiles, now: datetime, *, jwks_max_age_seconds: int, emergency: bool) -> str:
    """Let the next key sign, publish a new next one, retire the active one; returns the old `kid`.

    In an emergency the old key is `compromised`. Raises `TooEarly` where verifiers may not know the next key yet. The
    caller removes the old private half once the transaction is durable.
    """
    old, successor = _only(store, KeyState.ACTIVE), _only(store, KeyState.NEXT)
    if not emergency and now < (ready := ready_at(successor, jwks_max_age_seconds)):
        raise TooEarly(
            f"the next key was published at {successor.published_at:%H:%M:%S} UTC and verifiers may keep an older key "
            f"set for {jwks_max_age_seconds} s",
            remedy=f"Run it again after {ready:%Y-%m-%d %H:%M:%S} UTC; if the active key was stolen, use --emergency.",
        )
    _end(store, old, now, KeyState.COMPROMISED if emergency else KeyState.RETIRED)
    successor.state, successor.active_from = KeyState.ACTIVE, now
    store.flush()
    store.add_key(files.create().public, KeyState.NEXT, now)
    return old.kid


def key_set(keys: Sequence[IssuerKey]) -> dict[str, Any]:
    """A JWK Set (RFC 7517 §5)."""
    return {"keys": [_as_jwk(key) for key in keys]}


def former_keys(keys: Sequence[IssuerKey]) -> dict[str, Any]:
    """Every key that once signed: its JWK, and from when until when it did, in milliseconds since 1970."""
    return {"keys": [_as_jwk(key) | _dates(key) for key in keys]}


def _end(store: Store, key: IssuerKey, now: datetime, state: KeyState) -> None:
    last_end = store.last_end_of_tokens_signed_by(key.kid) or now
    key.state, key.active_until = state, now
    key.published_until = now if state is KeyState.COMPROMISED else max(last_end, now) + _SKEW
    # At most one key is active, in the database too: the old one steps down first.
    store.flush()


def _as_jwk(key: IssuerKey) -> dict[str, Any]:
    return {**public_jwk(key.public), "kid": key.kid, "alg": "Ed25519", "use": "sig"}


def _dates(key: IssuerKey) -> dict[str, Any]:
    return {
        "active_from": key.active_from and to_milliseconds(key.active_from),
        "active_until": key.active_until and to_milliseconds(key.active_until),
        "compromised": key.state == KeyState.COMPROMISED,
    }


def _only(store: Store, state: KeyState) -> IssuerKey:
    key = store.key_in(state)
    if key is None:
        raise OurFault(
            f"the database names no {state} key", remedy="Restore the data directory from your backup, as a whole."
        )
    return key
