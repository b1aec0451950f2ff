"""API tokens: the long-lived secret that an account trades for ID tokens (DESIGN §2).

`fedci_` and 256 random bits in base64url; the prefix lets secret scanners find a leaked one. Shown once, kept as its
SHA-256. A slow, salted hash would be the rule for passwords, which people choose and others guess; of 2^256 equally
likely values nobody finds one by trying, whatever a try costs, so a fast hash is right and the login stays cheap
(NIST SP 800-63B §5.1.2.2 asks salt and stretching of look-up secrets below 112 bits only).
"""

import hashlib
import hmac
import re
import secrets

_PATTERN = re.compile(r"fedci_[A-Za-z0-9_-]{43}")
_RANDOM_BYTES = 32


def mint() -> str:
    return f"fedci_{secrets.token_urlsafe(_RANDOM_BYTES)}"


def digest(token: str) -> bytes:
    """What is stored: SHA-256 of the token's text."""
    return hashlib.sha256(token.encode("utf-8")).digest()


def is_well_formed(token: str) -> bool:
    return _PATTERN.fullmatch(token) is not None


def is_same(stored: bytes, presented: str) -> bool:
    """Whether `presented` is the token of the stored digest, in a time that tells nothing of either."""
    return hmac.compare_digest(stored, digest(presented))
