"""The client credentials grant (RFC 6749 §4.4) whose token is for one audience and bound to a proven key.

After Authlib's own checks (grant type, client): `audience` (as in RFC 8693 §2.1; a bad one is `invalid_target`), the
proof of the key (RFC 9449 §5, `invalid_dpop_proof`), that the proof is new, and the owner's policy on keys (another key
than the remembered one: `unauthorized_client`). The token is signed, recorded and written to the audit log in the same
transaction as these checks.
"""

from datetime import datetime, timedelta
from typing import Any

from authlib.oauth2.rfc6749 import ClientCredentialsGrant, OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidRequestError, UnauthorizedClientError

from identity.keys import thumbprint
from identity.server.authorization import Authorization, Request
from identity.server.claims import AUDIENCE_GRAMMAR, ID_TOKEN_TYPE, IdTokenFacts, is_audience, new_jti
from identity.server.jwts import sign
from identity.server.proofs import Proof, ProofRefused, check_proof
from identity.server.signing_keys import active_key
from identity.server.tables import Account

_SECOND = timedelta(seconds=1)


class BoundClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]  # Authlib is untyped
    """Issues ID tokens; see the module."""

    server: Authorization
    request: Request

    def validate_token_request(self) -> None:
        super().validate_token_request()
        self._audience = _read_audience(self.request.form)
        self._proof = self._check_proof()
        self._check_key(self.request.client.login.account, self._proof.key)

    def generate_token(self, **_: Any) -> dict[str, Any]:
        """Sign a token; Authlib passes scope and refresh token, which do not exist here."""
        account, key = self.request.client.login.account, active_key(self.server.store, self.server.issuer.files)
        facts = self._facts(account)
        self.server.store.add_issued_token(facts, kid=key.thumbprint, api_token=self.request.client.login.api_token)
        self.server.audit("token-issued", self.request, jti=facts.jti, aud=facts.aud, key=thumbprint(facts.holder_key))
        return {
            "access_token": sign(facts.claims(), key, typ=ID_TOKEN_TYPE),
            "token_type": "DPoP",
            "expires_in": self.server.issuer.settings.id_token_seconds,
        }

    def save_token(self, token: dict[str, Any]) -> None:
        """Nothing is left to do: `generate_token` recorded what it signed, before it signed."""

    def _check_proof(self) -> Proof:
        posted = self.request.posted
        url = self.server.issuer.url(posted.path)
        proof = check_proof(posted.proofs, method="POST", url=url, now=self.server.now)
        if isinstance(proof, ProofRefused):
            raise _invalid_proof(proof.description)
        if not self.server.store.use_proof(proof):
            raise _invalid_proof("this DPoP proof was used before: make a fresh one with a new jti for each request")
        return proof

    def _check_key(self, account: Account, key: bytes) -> None:
        """The owner's policy: one account, one key, unless every proven key is welcome."""
        if account.key == key:
            return
        if account.key is not None and self.server.issuer.settings.key_policy == "remember":
            raise UnauthorizedClientError(
                f"this account is bound to the key {thumbprint(account.key)}: use that one, or ask the operator of "
                "this identity server for account rekey"
            )
        event = "key-remembered" if account.key is None else "key-changed"
        self.server.audit(event, self.request, key=thumbprint(key))
        account.key, account.key_since = key, self.server.now

    def _facts(self, account: Account) -> IdTokenFacts:
        issued_at = _issue_time(account, self.server.now)
        settings = self.server.issuer.settings
        return IdTokenFacts(
            iss=settings.issuer,
            sub=account.name,
            aud=self._audience,
            issued_at=issued_at,
            expires_at=issued_at + timedelta(seconds=settings.id_token_seconds),
            jti=new_jti(),
            holder_key=self._proof.key,
        )


def _read_audience(form: Any) -> str:
    audience = form.get("audience")
    if not audience:
        raise InvalidRequestError(f"the form field audience is missing: {AUDIENCE_GRAMMAR}")
    if not is_audience(audience):
        raise OAuth2Error(f"the audience is not well-formed: {AUDIENCE_GRAMMAR}", error="invalid_target")
    return str(audience)


def _issue_time(account: Account, now: datetime) -> datetime:
    """Whole seconds; after a revocation of all tokens at least the next second, for those of its own are revoked."""
    issued_at = now.replace(microsecond=0)
    return issued_at if account.revoked_at is None else max(issued_at, account.revoked_at + _SECOND)


def _invalid_proof(description: str) -> OAuth2Error:
    return OAuth2Error(description, error="invalid_dpop_proof")
