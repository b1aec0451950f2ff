"""An account at an identity server: its API token traded for ID tokens, each for one audience and bound to our key.

`POST <issuer>/token`, `client_credentials` (RFC 6749 §4.4) with the API token as the secret of HTTP Basic, and a DPoP
proof (RFC 9449) by the key that the ID token is to be bound to. The answer is read before it is used: it must be for
this account, this audience and this key, so that a mistake at the issuer shows here and not as a stranger's refusal.

A token is kept in memory only, and renewed once 80 % of its life is over; while the issuer is away it is used to
its end. Callers at the same time share one request. Verifying tokens of others is `identity.trust`'s.
"""

import asyncio
import base64
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlencode

import httpx
from joserfc import jwt
from joserfc.jwk import OKPKey
from pydantic import ValidationError

from identity.keys import SigningKey
from identity.strict_json import read_object
from identity.trust.tokens import Claims, read_bound_key, read_token
from runtime.clock import Clock
from runtime.errors import OurFault, PeerFault, WorldFault
from runtime.http_client import Fetched, fetch
from runtime.secrets import read_secret
from schemas import limits
from schemas.refusals import Refusal

RENEW_AT_LIFE_FRACTION = 0.8
RETRY_SECONDS = 10.0
DEADLINE_SECONDS = 10.0
MIN_LEFT_SECONDS = limits.CLOCK_SKEW_SECONDS
"""A token with less than this left is not handed out: it would end on its way."""
_MAX_ANSWER_BYTES = 16 * 1024
_NONCE_CHARACTERS = 500


class TokenRefused(PeerFault):
    """The issuer gives this account no token, and trying again does not help; `error` is its OAuth error code."""

    def __init__(self, what: str, *, error: str = "", where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.error = error


class IssuerAway(WorldFault):
    """The issuer does not answer, or asks to come back later."""


@dataclass(frozen=True)
class IdToken:
    """A short-lived token, worth nothing without the key that it is bound to."""

    raw: str
    iss: str
    sub: str
    aud: str
    issued_at: datetime
    expires_at: datetime

    def __repr__(self) -> str:
        return f"IdToken({self.sub} of {self.iss} for {self.aud} until {self.expires_at:%H:%M:%S})"


def read_api_token(path: Path) -> str:
    """The API token in a file of mode 0600, without white space around it; raises an `OurFault` that names the file."""
    try:
        token = read_secret(path).decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise OurFault("this is not an API token", where=str(path), remedy="Put the token there as it was shown.")
    return token


class Account:
    """`sub` at `issuer`, and the tokens that it holds at present."""

    def __init__(
        self, *, issuer: str, sub: str, api_token: str, key: SigningKey, client: httpx.AsyncClient, clock: Clock
    ) -> None:
        self.issuer = issuer
        self.sub = sub
        self.key = key
        self._url = f"{issuer.rstrip('/')}/token"
        self._basic = _basic(sub, api_token)
        self._client = client
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._nonce: str | None = None

    def __repr__(self) -> str:
        return f"Account({self.sub} of {self.issuer})"

    async def token(self, audience: str) -> IdToken:
        """A token for this audience, from memory while it is good.

        Raises `IssuerAway` (a WorldFault: try later) or `TokenRefused` (a PeerFault, with the issuer's reason).
        Cancelling one caller does not take the token from the others.
        """
        held = self._held.setdefault(audience, _Held())
        if not held.is_due(self._clock):
            return held.good(self._clock)
        async with held.lock:
            if held.is_due(self._clock):
                await self._renew(held, audience)
            return held.good(self._clock)

    def forget(self) -> None:
        """Drop all tokens held: after one was refused as revoked, ask for another before saying more."""
        self._held.clear()

    async def _renew(self, held: "_Held", audience: str) -> None:
        try:
            held.token = await self._trade(audience)
        except WorldFault:
            if not held.is_good(self._clock):
                raise
            held.retry_at = self._clock.boottime() + RETRY_SECONDS

    async def _trade(self, audience: str) -> IdToken:
        answer = await self._ask(audience)
        if _wants_nonce(answer):
            # RFC 9449 §8: the issuer chooses a nonce, and the same request is made once more with it.
            self._nonce = answer.headers.get("dpop-nonce", "")[:_NONCE_CHARACTERS]
            answer = await self._ask(audience)
        if answer.status != 200:
            raise _fault(answer, self)
        try:
            token = _read_grant(answer.body, issuer=self.issuer, sub=self.sub, audience=audience, key=self.key.public)
        except ValueError as error:
            raise TokenRefused(f"gave a token that is not what was asked for: {error}", where=self._url) from error
        self._check_clocks(token)
        return token

    async def _ask(self, audience: str) -> Fetched:
        form = {"grant_type": "client_credentials", "audience": audience}
        headers = {
            "Authorization": self._basic,
            "DPoP": dpop_proof(self.key, "POST", self._url, self._clock.now(), nonce=self._nonce),
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        try:
            return await fetch(
                self._client,
                "POST",
                self._url,
                max_bytes=_MAX_ANSWER_BYTES,
                deadline_seconds=DEADLINE_SECONDS,
                headers=headers,
                body=urlencode(form).encode("ascii"),
            )
        except WorldFault as error:
            raise IssuerAway(f"the identity server: {error.what}", where=self._url, remedy=error.remedy) from error

    def _check_clocks(self, token: IdToken) -> None:
        """A token that begins far from now shows that two clocks differ; better said here than by a stranger."""
        skew_seconds = (token.issued_at - self._clock.now()).total_seconds()
        if abs(skew_seconds) > limits.CLOCK_SKEW_SECONDS:
            raise IssuerAway(
                f"the issuer's clock is {abs(skew_seconds):.0f} s {'ahead of' if skew_seconds > 0 else 'behind'} ours",
                where=self._url,
                remedy="Set this machine's clock (NTP); at most 30 s are tolerated between any two machines.",
            )


class _Held:
    """The token for one audience, and when to ask for the next."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.token: IdToken | None = None
        self.retry_at = float("-inf")

    def is_good(self, clock: Clock) -> bool:
        return self.token is not None and self.token.expires_at - clock.now() > timedelta(seconds=MIN_LEFT_SECONDS)

    def is_due(self, clock: Clock) -> bool:
        if self.token is None or not self.is_good(clock):
            return True
        life = self.token.expires_at - self.token.issued_at
        is_old = clock.now() >= self.token.issued_at + life * RENEW_AT_LIFE_FRACTION
        return is_old and clock.boottime() >= self.retry_at

    def good(self, clock: Clock) -> IdToken:
        if self.token is None or not self.is_good(clock):
            raise IssuerAway(
                f"gave a token that ends within {MIN_LEFT_SECONDS} s",
                where="" if self.token is None else self.token.iss,
                remedy="Let the issuer's tokens live longer; the design's default is one hour.",
            )
        return self.token


def dpop_proof(key: SigningKey, method: str, url: str, now: datetime, *, nonce: str | None = None) -> str:
    """A DPoP proof (RFC 9449 §4.2): this key makes this one request now."""
    header = {"typ": "dpop+jwt", "alg": "Ed25519", "jwk": key.public_jwk()}
    claims: dict[str, object] = {
        "jti": secrets.token_urlsafe(16),
        "htm": method,
        "htu": url,
        "iat": int(now.timestamp()),
    }
    if nonce is not None:
        claims["nonce"] = nonce
    return jwt.encode(header, claims, OKPKey.import_key(key.private), algorithms=["Ed25519"])


def _basic(client_id: str, secret: str) -> str:
    """HTTP Basic as OAuth spells it: both halves form-encoded first (RFC 6749 §2.3.1)."""
    pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
    return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")


def _read_grant(body: bytes, *, issuer: str, sub: str, audience: str, key: bytes) -> IdToken:
    """The ID token in an answer; raises `ValueError` unless it is ours, for this audience, bound to this key."""
    grant = read_object(body)
    raw, kind = grant.get("access_token"), grant.get("token_type")
    if not isinstance(raw, str) or len(raw) > limits.TOKEN_BYTES:
        raise ValueError(f"no `access_token` of at most {limits.TOKEN_BYTES} characters")
    if not isinstance(kind, str) or kind.lower() != "dpop":
        raise ValueError("its `token_type` is not DPoP")
    claims = _read_own_claims(raw)
    if (claims.iss, claims.sub, claims.aud) != (issuer, sub, audience):
        raise ValueError(f"it is for {claims.sub} of {claims.iss} to {claims.aud}"[:500])
    if read_bound_key(claims) != key:
        raise ValueError("it is not bound to our key")
    return IdToken(raw, claims.iss, claims.sub, claims.aud, claims.issued_at, claims.expires_at)


def _read_own_claims(raw: str) -> Claims:
    token = read_token(raw.encode("utf-8"))
    if isinstance(token, Refusal):
        raise ValueError(token.detail)
    try:
        return Claims.model_validate(token.unverified_claims)
    except ValidationError as error:
        raise ValueError(f"{error.error_count()} of its claims are wrong") from None


def _wants_nonce(answer: Fetched) -> bool:
    return answer.status in (400, 401) and "dpop-nonce" in answer.headers and b"use_dpop_nonce" in answer.body


def _fault(answer: Fetched, account: Account) -> PeerFault | WorldFault:
    where = answer.url
    if answer.status == 429 or answer.status >= 500:
        wait = answer.headers.get("retry-after", "")[:10]
        when = f"; it asks to wait {wait} s" if wait.isdigit() else ""
        return IssuerAway(f"the identity server answered with status {answer.status}{when}", where=where)
    error, description = _read_error(answer.body)
    return TokenRefused(
        f"the identity server refused {account.sub}: {error} (status {answer.status}){description}",
        error=error,
        where=where,
        remedy=_REMEDIES.get(error, "Ask whoever runs the identity server."),
    )


_REMEDIES = {
    "invalid_client": "See that the account is enabled and its API token is the newest; ask its issuer for another.",
    "invalid_dpop_proof": "See that the issuer's URL in the settings is exactly its own, and that both clocks agree.",
    "invalid_target": "See that the audience is one that this issuer gives tokens for.",
}


def _read_error(body: bytes) -> tuple[str, str]:
    """The OAuth error and its description (RFC 6749 §5.2), as printable text of bounded length."""
    try:
        answer = read_object(body)
    except ValueError:
        return "unreadable answer", ""
    error, description = (_plain(answer.get(name)) for name in ("error", "error_description"))
    return error or "no error code", f": {description}" if description else ""


def _plain(value: object) -> str:
    return "".join(character for character in value if " " <= character <= "~")[:200] if isinstance(value, str) else ""
