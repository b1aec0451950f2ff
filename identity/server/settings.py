"""`identity.toml`: what the operator of an identity server decides.

The issuer's URL is the identity of the server: it stands in every token, and verifiers pin it. It has no path, because
OpenID Connect and RFC 8414 §3.1 put their documents at different places below one, and a prefix is the wrong place for
somebody else's.
"""

import json
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from runtime.settings import HttpUrl, Listen, Settings, TlsFiles
from schemas import limits

SETTINGS_FILE = "identity.toml"
DATABASE_FILE = "identity.sqlite"
KEYS_DIRECTORY = "keys"

KeyPolicy = Literal["remember", "any"]


def _check_issuer(url: str) -> str:
    parts = urlsplit(url)
    if parts.path or url != url.lower():
        raise ValueError("expected a lower-case URL without path, like https://id.example.org or https://host:8443")
    return url


class IdentitySettings(Settings):
    """The whole file."""

    issuer: Annotated[HttpUrl, AfterValidator(_check_issuer), Field(max_length=200)]
    listen: Listen
    tls: TlsFiles | None = None
    id_token_seconds: Annotated[int, Field(ge=60, le=limits.ID_TOKEN_MAX_SECONDS)] = limits.ID_TOKEN_SECONDS
    key_policy: KeyPolicy = "remember"
    jwks_max_age_seconds: Annotated[int, Field(ge=10, le=24 * 3600)] = 300
    rotate_keys_after_days: Annotated[int, Field(ge=0, le=3650)] = 90
    failed_logins: Annotated[int, Field(ge=1, le=1000)] = 10
    failed_login_pause_seconds: Annotated[int, Field(ge=1, le=3600)] = 6


def new_settings_text(issuer: str, listen: str) -> str:
    """The commented file that `init` writes; it is loaded, and so checked, right after."""
    return _TEMPLATE.format(issuer=json.dumps(issuer), listen=json.dumps(listen))


_TEMPLATE = """\
# Settings of a fedci identity server. Restart it after a change; keys and accounts need no restart.

# The public URL: it stands in every token, and others pin it. Changing it makes a new issuer: nobody knows the old
# accounts under it. https, or http to this machine itself (127.0.0.1, localhost).
issuer = {issuer}

# Where to listen. Any other address than this machine's own needs [tls] below, or a TLS proxy in front of 127.0.0.1.
listen = {listen}

# How long an ID token is good, in seconds, 60 to 86400. Holders fetch a new one by themselves.
id_token_seconds = 3600

# "remember": the first key that an account proves is its key; another one is refused until
# `fedci identity account rekey`. "any": every key that is proven is accepted, and a change goes to the audit log.
key_policy = "remember"

# How long verifiers may keep the key set, in seconds. A next key is published at least this long before it signs.
jwks_max_age_seconds = 300

# The signing key is changed by itself after so many days; 0: only by `fedci identity key rotate`.
rotate_keys_after_days = 90

# So many failures are free for one account from one address; after them one try each so many seconds.
failed_logins = 10
failed_login_pause_seconds = 6

# [tls]
# certificate = "/etc/ssl/id.example.org.pem"
# key = "/etc/ssl/private/id.example.org.key"
"""
