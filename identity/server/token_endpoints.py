"""Revocation (RFC 7009) and introspection (RFC 7662) of ID tokens, on Authlib's endpoints.

A holder revokes its own tokens. Any account may introspect a token that it was shown: whoever holds the text could read
its claims anyway, and learns only whether it is still good. A text that is no live token of this issuer is no error for
either (RFC 7009 §2.2, RFC 7662 §2.2).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from authlib.oauth2.rfc6749.errors import InvalidGrantError, InvalidRequestError
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint

from identity.server.authorization import Authorization, Client, Request
from identity.server.claims import ID_TOKEN_TYPE, IdTokenFacts
from identity.server.jwts import take_apart
from identity.server.store import Store
from identity.server.tables import IssuedToken, KeyState
from schemas import limits


@dataclass(frozen=True)
class KnownToken:
    """A token that this issuer signed and remembers, with what Authlib asks of it."""

    row: IssuedToken
    is_taken_back: bool
    now: datetime

    def check_client(self, client: Client) -> bool:
        return client.login.account.name == self.row.sub

    def is_expired(self) -> bool:
        return self.row.expires_at <= self.now

    def is_revoked(self) -> bool:
        return self.is_taken_back


def find_token(store: Store, text: str, now: datetime) -> KnownToken | None:
    """The token behind this text, if one of our keys signed it."""
    token = take_apart(text, max_characters=limits.TOKEN_BYTES)
    if token is None or token.unverified_header.get("typ") != ID_TOKEN_TYPE:
        return None
    kid = str(token.unverified_header.get("kid"))
    # JSON can spell half a surrogate pair, which no database takes.
    key = store.find_key(kid) if kid.isascii() else None
    if key is None or not token.is_signed_by(key.public):
        return None
    row = store.find_issued_token(str(token.unverified_claims.get("jti")))
    if row is None:
        return None
    account = store.find_account(row.sub)
    is_cut_off = account is None or (account.revoked_at is not None and row.issued_at <= account.revoked_at)
    return KnownToken(row, is_cut_off or row.revoked_at is not None or key.state == KeyState.COMPROMISED, now)


def _read_token(request: Request, server: Authorization) -> KnownToken | None:
    # RFC 7009 §2.1, RFC 7662 §2.1: `token_type_hint` may be ignored; there is one type of token here.
    if "token" not in request.form:
        raise InvalidRequestError("the form field token is missing")
    return find_token(server.store, request.form["token"], server.now)


class Revocation(RevocationEndpoint):  # type: ignore[misc]  # Authlib is untyped
    server: Authorization

    def authenticate_token(self, request: Request, client: Client) -> KnownToken | None:
        token = _read_token(request, self.server)
        if token is not None and not token.check_client(client):
            raise InvalidGrantError("this token is another account's: its holder revokes it")
        return token

    def revoke_token(self, token: KnownToken, request: Request) -> None:
        if token.row.revoked_at is None:
            token.row.revoked_at = self.server.now
            self.server.audit("token-revoked", request, jti=token.row.jti)


class Introspection(IntrospectionEndpoint):  # type: ignore[misc]
    server: Authorization

    def authenticate_token(self, request: Request, client: Client) -> KnownToken | None:  # noqa: ARG002  # theirs
        return _read_token(request, self.server)

    def introspect_token(self, token: KnownToken) -> dict[str, Any]:
        row = token.row
        facts = IdTokenFacts(
            iss=self.server.issuer.settings.issuer,
            sub=row.sub,
            aud=row.aud,
            issued_at=row.issued_at,
            expires_at=row.expires_at,
            jti=row.jti,
            holder_key=row.holder_key,
        )
        return {"active": True, "client_id": row.sub, "token_type": "DPoP", **facts.claims()}
