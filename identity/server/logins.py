"""Who asks: an account, shown by its name and one of its API tokens (HTTP Basic, RFC 6749 §2.3.1).

An unknown name and a wrong token get the same answer. A disabled account is told so, but only to whoever has its token.
"""

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import unquote_plus

from identity.server import api_tokens
from identity.server.store import Store
from identity.server.tables import Account
from schemas.ids import is_label

_MAX_CHARACTERS = 300


@dataclass(frozen=True)
class Credentials:
    """What somebody claims to be; nothing is checked."""

    name: str
    api_token: str


@dataclass(frozen=True)
class LoggedIn:
    """An account whose API token was shown; only `log_in` makes one."""

    account: Account
    api_token: int


@dataclass(frozen=True)
class LoginRefused:
    """Why not; in the printable ASCII of RFC 6749 §5.2."""

    description: str


_WRONG = LoginRefused("the account name or its API token is wrong")


def read_credentials(header: str | None) -> Credentials | None:
    """The name and secret in an `Authorization` header; None where it is not well-formed HTTP Basic (RFC 7617)."""
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic" or len(encoded) > _MAX_CHARACTERS:
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    name, colon, secret = text.partition(":")
    # RFC 6749 §2.3.1: both are form-encoded before they are joined.
    return Credentials(unquote_plus(name), unquote_plus(secret)) if colon else None


def find_account(store: Store, credentials: Credentials | None) -> Account | None:
    """The account that is spoken of; whether its holder speaks is `log_in`'s to say."""
    if credentials is None or not is_label(credentials.name):
        return None
    return store.find_account(credentials.name)


def log_in(store: Store, account: Account | None, credentials: Credentials | None) -> LoggedIn | LoginRefused:
    if credentials is None:
        return LoginRefused("send the account name and its API token by HTTP Basic (client_secret_basic)")
    if account is None or not api_tokens.is_well_formed(credentials.api_token):
        return _WRONG
    # Every live token is compared, so that the time does not tell which one was near.
    same = [
        token.id
        for token in store.live_api_tokens(account.name)
        if api_tokens.is_same(token.digest, credentials.api_token)
    ]
    if not same:
        return _WRONG
    if account.disabled_at is not None:
        return LoginRefused("this account is disabled; ask the operator of this identity server")
    return LoggedIn(account, same[0])
