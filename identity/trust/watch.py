"""Keeps what is known of one issuer fresh: its keys and its revocations, as an `Anchor`.

Rules: only pinned URLs are called. The discovery document must name exactly the pinned issuer, and its keys must be at
the issuer's own origin unless the profile pins them elsewhere. Renewals fly one at a time, and each caller says how
often is enough (for an unknown `kid`: once a minute, so that garbage cannot make us hammer an issuer). What cannot be
read or does not verify is logged and changes nothing: the last good state stays, and `Anchor` says when it is too old.

Specifications: OpenID Connect Discovery 1.0 §3–4, RFC 8414 §3.3, RFC 7517.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import httpx

from identity.strict_json import read_object
from identity.trust.anchor import Anchor
from identity.trust.keyset import MAX_KEY_SET_BYTES, read_key_set
from identity.trust.profiles import IssuerProfile, is_same_origin
from identity.trust.revocation import MAX_LIST_BYTES, RevocationList, is_newer, read_revocation_list
from runtime.clock import Clock
from runtime.errors import FedciError, PeerFault, WorldFault
from runtime.http_client import fetch
from runtime.logging import get_logger
from schemas import limits
from schemas.refusals import Reason, Refusal

UNKNOWN_KEY_SECONDS = limits.JWKS_REFETCH_SECONDS
ON_DEMAND_SECONDS = 30.0
"""A message makes an issuer in trouble be asked no sooner after the last try than this; `run` asks more often."""
RETRY_SECONDS = 5.0
KEYS_REFRESH_SECONDS = 240.0
POLL_SECONDS = 60.0
DEADLINE_SECONDS = 10.0
_MAX_DISCOVERY_BYTES = 64 * 1024

log = get_logger(__name__)
T = TypeVar("T")


class IssuerMisbehaves(PeerFault):
    """An issuer's documents are not what they must be."""


class IssuerWatch:
    """One issuer's `anchor`, and the ways to renew it."""

    def __init__(self, profile: IssuerProfile, *, client: httpx.AsyncClient, clock: Clock) -> None:
        self.anchor = Anchor(profile)
        self.trouble: str | None = None
        """Why the last renewal failed, for status pages."""
        self._client = client
        self._clock = clock
        self._keys = _Flight(clock, self._read_keys)
        self._revocations = _Flight(clock, self._read_revocations)

    @property
    def pause_seconds(self) -> float:
        """How long to wait before the next `renew`: several polls fit into the time after which a list is stale."""
        if self.trouble is not None:
            return RETRY_SECONDS
        return min(POLL_SECONDS, self.anchor.profile.stale_after_seconds / 5)

    async def renew(self) -> None:
        """Bring keys and revocations up to date as far as they are due; never raises for the issuer's troubles."""
        self.trouble = None
        is_settled = self.anchor.keys is not None
        await self.renew_keys(at_most_every=KEYS_REFRESH_SECONDS if is_settled else 0)
        if self.anchor.profile.revocation == "list":
            await self.renew_revocations(at_most_every=0)

    async def renew_for(self, refusal: Refusal) -> bool:
        """Whether something newer was learnt that may change this refusal."""
        match refusal.reason:
            case Reason.KEY_UNKNOWN:
                return await self.renew_keys(at_most_every=UNKNOWN_KEY_SECONDS)
            case Reason.ISSUER_UNREACHABLE:
                return await self.renew_keys(at_most_every=ON_DEMAND_SECONDS)
            case Reason.REVOCATION_STALE:
                return await self.renew_revocations(at_most_every=ON_DEMAND_SECONDS)
            case _:
                return False

    async def renew_keys(self, *, at_most_every: float) -> bool:
        """Fetch the keys unless that was done within so many seconds; whether they are new."""
        return await self._keys.fly(at_most_every)

    async def renew_revocations(self, *, at_most_every: float) -> bool:
        return await self._revocations.fly(at_most_every)

    async def _read_keys(self) -> bool:
        try:
            document = await self._get(await self._find_keys(), MAX_KEY_SET_BYTES)
            keys = _reading(self.anchor.profile.url, lambda: read_key_set(document, self.anchor.profile))
        except FedciError as error:
            return self._note_trouble("issuer_keys_not_read", error.what)
        self.anchor = replace(self.anchor, keys=keys, keys_read_at=self._clock.now())
        return True

    async def _find_keys(self) -> str:
        profile = self.anchor.profile
        if profile.jwks_url is not None:
            return profile.jwks_url
        document = await self._get(profile.discovery_url, _MAX_DISCOVERY_BYTES)
        discovery = _reading(profile.discovery_url, lambda: read_object(document))
        if discovery.get("issuer") != profile.url:
            raise IssuerMisbehaves("the discovery document names another issuer", where=profile.discovery_url)
        url = discovery.get("jwks_uri")
        if not isinstance(url, str) or not _is_at_origin(url, profile.url):
            raise IssuerMisbehaves(
                "`jwks_uri` is not at the issuer's own origin",
                where=profile.discovery_url,
                remedy="Where that is meant, pin it with `jwks_url` in this issuer's settings.",
            )
        return url

    async def _read_revocations(self) -> bool:
        try:
            fresh = await self._fetch_revocations()
            if isinstance(fresh, Refusal) and fresh.reason in (Reason.KEY_UNKNOWN, Reason.ISSUER_UNREACHABLE):
                # Signed with a key that is newer than ours: look once, as for any token.
                await self.renew_for(fresh)
                fresh = await self._fetch_revocations()
        except FedciError as error:
            return self._note_trouble("issuer_revocations_not_read", error.what)
        if isinstance(fresh, Refusal):
            return self._note_trouble("issuer_revocations_refused", str(fresh))
        if not is_newer(fresh, self.anchor.revocations):
            return self._note_trouble("issuer_revocations_refused", "older than the list that is known")
        self.anchor = replace(self.anchor, revocations=fresh)
        return True

    async def _fetch_revocations(self) -> RevocationList | Refusal:
        profile, now = self.anchor.profile, self._clock.now()
        document = await self._get(profile.revocation_list_url, MAX_LIST_BYTES)
        keys = self.anchor.usable_keys(now)
        if isinstance(keys, Refusal):
            return keys
        return read_revocation_list(document, profile=profile, keys=keys, now=now)

    async def _get(self, url: str, max_bytes: int) -> bytes:
        answer = await fetch(self._client, "GET", url, max_bytes=max_bytes, deadline_seconds=DEADLINE_SECONDS)
        if answer.status != 200:
            raise WorldFault(f"answered with status {answer.status}", where=url)
        return answer.body

    def _note_trouble(self, event: str, why: str) -> bool:
        self.trouble = why
        log.warning(event, issuer=self.anchor.profile.url, why=why)
        return False


class _Flight:
    """One errand at a time; who comes while it flies shares its outcome, who comes too soon after it goes without.

    Nobody waits for an errand whose last flight failed: one issuer that hangs must not hold up what others say.
    """

    def __init__(self, clock: Clock, errand: Callable[[], Awaitable[bool]]) -> None:
        self._clock = clock
        self._errand = errand
        self._lock = asyncio.Lock()
        self._flights = 0
        self._landed_at = float("-inf")
        self._outcome = False

    async def fly(self, at_most_every: float) -> bool:
        if self._lock.locked() and self._flights and not self._outcome:
            return False
        seen = self._flights
        async with self._lock:
            if self._flights != seen:
                return self._outcome
            if self._clock.boottime() - self._landed_at < at_most_every:
                return False
            self._outcome = await self._errand()
            # Noted only now: a cancelled errand was none, and must not keep the next one waiting.
            self._landed_at = self._clock.boottime()
            self._flights += 1
            return self._outcome


def _reading(where: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except ValueError as error:
        raise IssuerMisbehaves(str(error), where=where) from error


def _is_at_origin(url: str, issuer: str) -> bool:
    try:
        return is_same_origin(url, issuer)
    except ValueError:
        return False
