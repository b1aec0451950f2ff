"""Which issuers are believed, and how each one's tokens are read: configuration, never something a token says.

An operator lists issuers as `[[issuers]]` tables. The profile pins the issuer's URL, the algorithms, the `typ` of its
tokens, the claim that names the subject, how a token is bound to its holder's key, how revocation is learnt, and how
stale that knowledge may be (DESIGN §4). Only asymmetric algorithms can be listed: neither `none` nor an HMAC, which
would turn a public key into a shared secret (RFC 8725 §3.1–3.2).
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from runtime.settings import HttpUrl, Settings
from schemas import limits

ID_TOKEN_TYPE = "fedci-id+jwt"  # noqa: S105 - a media type
REVOCATIONS_TYPE = "fedci-revocations+jwt"

SHORT_LIVED_SECONDS = 900
"""Without revocation, a token's end is the only one that it has; it must be near."""

Algorithm = Literal["Ed25519", "ES256", "ES384", "RS256", "PS256"]


class IssuerProfile(Settings):
    """One `[[issuers]]` table."""

    url: Annotated[HttpUrl, Field(max_length=300)]
    """The issuer, exactly as it stands in `iss`; its documents are fetched from below this URL."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("Ed25519",)
    typ: Annotated[str, Field(min_length=1, max_length=100)] = ID_TOKEN_TYPE
    subject_claim: Annotated[str, Field(pattern=r"^[A-Za-z0-9_:/.-]{1,100}$")] = "sub"
    binding: Literal["cnf-jwk"] = "cnf-jwk"
    """How a token names its holder's key: an Ed25519 JWK in `cnf` (RFC 7800 §3.2)."""
    revocation: Literal["list", "none-short-lived"] = "list"
    stale_after_seconds: Annotated[int, Field(ge=10, le=24 * 3600)] = limits.REVOCATION_STALE_SECONDS
    max_token_seconds: Annotated[int, Field(ge=1, le=limits.ID_TOKEN_MAX_SECONDS)] | None = None
    jwks_url: HttpUrl | None = None
    """Pins where the keys are, for an issuer that keeps them at another origin; then no discovery is read."""
    revocations_url: HttpUrl | None = None

    @model_validator(mode="after")
    def _check_lifetime(self) -> Self:
        if self.revocation == "none-short-lived" and self.lifetime_cap_seconds > SHORT_LIVED_SECONDS:
            raise ValueError(
                f"without revocation tokens may live at most {SHORT_LIVED_SECONDS} s; lower max_token_seconds, "
                'or set revocation = "list"'
            )
        return self

    @property
    def lifetime_cap_seconds(self) -> int:
        """Longer-lived tokens are refused."""
        if self.max_token_seconds is not None:
            return self.max_token_seconds
        return SHORT_LIVED_SECONDS if self.revocation == "none-short-lived" else limits.ID_TOKEN_MAX_SECONDS

    @property
    def discovery_url(self) -> str:
        """OpenID Connect Discovery 1.0 §4: appended to the issuer, its path kept."""
        return f"{self.url.rstrip('/')}/.well-known/openid-configuration"

    @property
    def revocation_list_url(self) -> str:
        return self.revocations_url or f"{self.url.rstrip('/')}/revocations"


def by_issuer(profiles: Iterable[IssuerProfile]) -> Mapping[str, IssuerProfile]:
    """The profiles by `iss`; raises `ValueError` where one issuer is listed twice."""
    found: dict[str, IssuerProfile] = {}
    for profile in profiles:
        if profile.url in found:
            raise ValueError(f"the issuer {profile.url} is listed twice")
        found[profile.url] = profile
    return found


def is_same_origin(one: str, other: str) -> bool:
    """Whether two URLs have the same scheme, host and port (RFC 6454 §4)."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port
