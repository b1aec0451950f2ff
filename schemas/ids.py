"""Names and identifiers: one grammar for all of them.

An identifier that a machine makes is one letter that tells its kind and 26 characters of base32-lower (RFC 4648 §6,
without padding): a `t`enant is derived from a principal, all the others are 128 random bits. A name that a person
chooses is a label of a DNS name, so that it may stand in a queue name, a URL path and a file name without escaping.
Labels never contain a dot, so that a queue name made of several parts has one reading.
"""

import base64
import hashlib
import re
import secrets
from typing import Annotated

from pydantic import StringConstraints

_BASE32 = "[a-z2-7]{26}"
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"

TenantId = Annotated[str, StringConstraints(pattern=f"^t{_BASE32}$")]
AttemptId = Annotated[str, StringConstraints(pattern=f"^a{_BASE32}$")]
ClaimId = Annotated[str, StringConstraints(pattern=f"^c{_BASE32}$")]
RunId = Annotated[str, StringConstraints(pattern=f"^r{_BASE32}$")]
MessageId = Annotated[str, StringConstraints(pattern=f"^m{_BASE32}$")]
TabId = Annotated[str, StringConstraints(pattern=f"^b{_BASE32}$")]

Label = Annotated[str, StringConstraints(pattern=f"^{_LABEL}$")]
"""A pool, worker, project, job, step, artifact or toolchain: 1 to 40 of a–z, 0–9 and inner hyphens."""

ProviderName = Annotated[str, StringConstraints(pattern=rf"^{_LABEL}(?:\.{_LABEL})*$", max_length=100)]
"""A provider: named like a DNS name, at most 100 characters."""

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
"""A SHA-256 digest in lower-case hexadecimal."""


def _random(kind: str) -> str:
    return kind + _base32(secrets.token_bytes(16))


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode("ascii").lower().rstrip("=")


def new_attempt_id() -> str:
    """Mint an attempt: 128 random bits, never used twice (DESIGN §2)."""
    return _random("a")


def new_claim_id() -> str:
    return _random("c")


def new_run_id() -> str:
    return _random("r")


def new_message_id() -> str:
    return _random("m")


def new_tab_id() -> str:
    return _random("b")


def tenant_id(iss: str, sub: str) -> str:
    """The tenant id of the principal `(iss, sub)`: `t` and 26 characters of base32-lower(SHA-256(iss LF sub)).

    An issuer is a URL and holds no line feed, so no two principals give the same input.
    """
    if "\n" in iss:
        raise ValueError("an issuer URL holds no line feed")
    return "t" + _base32(hashlib.sha256(f"{iss}\n{sub}".encode()).digest())[:26]


def provider_audience(provider: str) -> str:
    return f"fedci:provider:{provider}"


def store_audience(provider: str) -> str:
    return f"fedci:store:{provider}"


def controller_audience(tenant: str) -> str:
    return f"fedci:controller:{tenant}"


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


_LABEL_PATTERN = re.compile(f"^{_LABEL}$")


def is_label(text: str) -> bool:
    return _LABEL_PATTERN.fullmatch(text) is not None
