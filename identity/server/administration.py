"""What the operator does: accounts, API tokens, keys. Each act is one transaction with its line in the audit log.

The command line runs these on the same database as a serving process, which reads it anew for every request: no restart
is needed. What cannot be done is `NotDone`, with the next step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from identity.keys import thumbprint
from identity.server import api_tokens, signing_keys
from identity.server.key_files import KeyFiles
from identity.server.store import Store
from identity.server.tables import Account, ApiToken
from runtime.errors import OurFault
from schemas.ids import is_label


class NotDone(OurFault):
    """The operator asked for something that cannot be done as things are."""


@dataclass(frozen=True)
class Operator:
    """Who acts, and when."""

    actor: str
    now: datetime


@dataclass(frozen=True)
class AccountView:
    """One line of the list of accounts."""

    name: str
    is_disabled: bool
    created_at: datetime
    api_tokens: int
    key: str | None


@dataclass(frozen=True)
class NewApiToken:
    """An API token, this once; `number` names it from now on."""

    number: int
    token: str

    def __repr__(self) -> str:
        return f"NewApiToken({self.number})"


def add_account(store: Store, by: Operator, name: str) -> None:
    if not is_label(name):
        raise NotDone(
            f"{name!r} is no account name", remedy="Use 1 to 40 of a-z, 0-9 and hyphens, no hyphen at either end."
        )
    if store.find_account(name) is not None:
        raise NotDone(f"there is an account {name} already", remedy="Choose another name; names are never reused.")
    store.add_account(name, by.now)
    store.audit("account-added", at=by.now, actor=by.actor, account=name)


def list_accounts(store: Store) -> Sequence[AccountView]:
    counts = store.count_live_api_tokens()
    return [
        AccountView(
            name=account.name,
            is_disabled=account.disabled_at is not None,
            created_at=account.created_at,
            api_tokens=counts.get(account.name, 0),
            key=thumbprint(account.key) if account.key else None,
        )
        for account in store.accounts()
    ]


def disable_account(store: Store, by: Operator, name: str) -> None:
    """No more logins, and every ID token issued so far is taken back."""
    account = _account(store, name)
    account.disabled_at = account.disabled_at or by.now
    _revoke_tokens(account, by.now)
    store.audit("account-disabled", at=by.now, actor=by.actor, account=name)


def enable_account(store: Store, by: Operator, name: str) -> None:
    """Logins again; ID tokens that were taken back stay so."""
    _account(store, name).disabled_at = None
    store.audit("account-enabled", at=by.now, actor=by.actor, account=name)


def rekey_account(store: Store, by: Operator, name: str) -> None:
    """Forget the account's key; the next one that it proves is remembered, and tokens bound to the old one end."""
    account = _account(store, name)
    old = thumbprint(account.key) if account.key else None
    account.key = account.key_since = None
    _revoke_tokens(account, by.now)
    store.audit("account-rekeyed", at=by.now, actor=by.actor, account=name, old_key=old)


def issue_api_token(store: Store, by: Operator, name: str) -> NewApiToken:
    """A further API token of an account; only its digest is kept."""
    token = api_tokens.mint()
    row = store.add_api_token(_account(store, name), api_tokens.digest(token), by.now)
    store.audit("api-token-issued", at=by.now, actor=by.actor, account=name, number=row.id)
    return NewApiToken(row.id, token)


def list_api_tokens(store: Store, name: str) -> Sequence[ApiToken]:
    """The account's live API tokens."""
    return store.live_api_tokens(_account(store, name).name)


def revoke_api_token(store: Store, by: Operator, number: int) -> int:
    """End one API token, and take back the ID tokens that were got with it; says how many those are."""
    row = store.find_api_token(number)
    if row is None:
        raise NotDone(f"there is no API token {number}", remedy="See `fedci identity token list`.")
    row.revoked_at = row.revoked_at or by.now
    taken_back = store.revoke_issued_by(number, by.now)
    store.audit(
        "api-token-revoked", at=by.now, actor=by.actor, account=row.account, number=number, id_tokens=taken_back
    )
    return taken_back


def rotate_keys(store: Store, by: Operator, files: KeyFiles, *, jwks_max_age_seconds: int, emergency: bool) -> str:
    """See `signing_keys.rotate`; the caller removes the private half of the key whose `kid` this returns."""
    old = signing_keys.rotate(store, files, by.now, jwks_max_age_seconds=jwks_max_age_seconds, emergency=emergency)
    store.audit("key-compromised" if emergency else "key-rotated", at=by.now, actor=by.actor, kid=old)
    return old


def _account(store: Store, name: str) -> Account:
    account = store.find_account(name)
    if account is None:
        raise NotDone(f"there is no account {name!r}", remedy="See `fedci identity account list`, or add it first.")
    return account


def _revoke_tokens(account: Account, now: datetime) -> None:
    # Whole seconds, as in a token's `iat`: what was issued in this very second is taken back too.
    account.revoked_at = now.replace(microsecond=0)
