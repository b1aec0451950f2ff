"""One request to an OAuth 2.0 endpoint, run through Authlib's core inside one database transaction.

Authlib brings the flow and its error answers (RFC 6749 §5); this module brings the request, the login, and what every
failure costs: it is counted by the brake on failures and written to the audit log, unless the brake already holds the
caller, so that nobody can fill the disk by failing. An `Authorization` lives for one request and one transaction.

Nothing here reads the query string: parameters of a POST are those of its body (RFC 6749 §3.2).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from authlib.oauth2 import AuthorizationServer, OAuth2Error, OAuth2Request
from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.errors import InvalidClientError, InvalidScopeError, UnsupportedGrantTypeError
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload

from identity.server.failures import Caller, FailureBrake
from identity.server.key_files import KeyFiles
from identity.server.logins import Credentials, LoggedIn, LoginRefused, find_account, log_in
from identity.server.settings import IdentitySettings
from identity.server.store import Store
from runtime.clock import Clock


@dataclass(frozen=True)
class Issuer:
    """What all requests share."""

    settings: IdentitySettings
    files: KeyFiles
    brake: FailureBrake
    clock: Clock

    def url(self, path: str) -> str:
        """The public URL of one of our paths."""
        return self.settings.issuer + path


@dataclass(frozen=True)
class PostedForm:
    """A request as it came: nothing in it is believed."""

    path: str
    form: Mapping[str, str]
    credentials: Credentials | None
    proofs: Sequence[str]
    address: str


@dataclass(frozen=True)
class Answer:
    """What goes back; `error` is the OAuth error code, for counting."""

    status: int
    body: Any
    headers: Sequence[tuple[str, str]] = field(default=())

    @property
    def error(self) -> str | None:
        return self.body.get("error") if isinstance(self.body, dict) else None


class SlowDown(OAuth2Error):  # type: ignore[misc]  # Authlib is untyped
    """Too many failures; the code is that of RFC 8628 §3.5, which registered it for token endpoints."""

    error = "slow_down"
    status_code = 429

    def __init__(self, wait_seconds: float) -> None:
        self._wait = str(math.ceil(wait_seconds))
        super().__init__(f"too many failures of this account from this address; try again in {self._wait} s")

    def get_headers(self) -> list[tuple[str, str]]:
        return [*super().get_headers(), ("Retry-After", self._wait)]


class UnknownGrant(UnsupportedGrantTypeError):  # type: ignore[misc]
    """Authlib's own says nothing in the answer, and repeats what was sent in the log."""

    description = "the only grant_type here is client_credentials"

    def get_error_description(self) -> str:
        return self.description


class Request(OAuth2Request):  # type: ignore[misc]
    """Authlib's view of a posted form."""

    def __init__(self, url: str, posted: PostedForm) -> None:
        # The public URL: Authlib refuses plaintext, and what stands before us may end TLS.
        super().__init__("POST", url)
        self.payload = BasicOAuth2Payload(dict(posted.form))
        self.posted = posted

    @property
    def form(self) -> Mapping[str, str]:
        return self.posted.form


class Client(ClientMixin):  # type: ignore[misc]
    """An account that has logged in, as Authlib's endpoints want it."""

    def __init__(self, login: LoggedIn) -> None:
        self.login = login

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002  # theirs
        return method == "client_secret_basic"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"

    def __repr__(self) -> str:
        return f"Client({self.login.account.name})"


class Authorization(AuthorizationServer):  # type: ignore[misc]
    """Authlib's authorization server for one request, over one transaction's `Store`."""

    def __init__(self, issuer: Issuer, store: Store, now: datetime) -> None:
        super().__init__()
        self.issuer = issuer
        self.store = store
        self.now = now
        self.register_client_auth_method("client_secret_basic", self._log_in)

    def query_client(self, client_id: str) -> None:
        """Never asked: `_log_in` finds the account and checks its secret in one go."""
        raise NotImplementedError(client_id)

    def create_oauth2_request(self, request: PostedForm | Request) -> Request:
        return request if isinstance(request, Request) else Request(self.issuer.url(request.path), request)

    def handle_response(self, status: int, body: Any, headers: Sequence[tuple[str, str]]) -> Answer:
        return Answer(status, body, headers)

    def handle_error_response(self, request: Request, error: OAuth2Error) -> Answer:
        self._count_failure(request.posted, error)
        answer: Answer = super().handle_error_response(request, error)
        return answer

    def get_token_grant(self, request: Request) -> Any:
        try:
            return super().get_token_grant(request)
        except UnsupportedGrantTypeError as error:
            raise UnknownGrant(None) from error

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Authlib's hook for frameworks; what is worth noting goes to the audit log where it happens."""

    def validate_requested_scope(self, scope: str | None) -> None:
        if scope:
            raise InvalidScopeError("this issuer has no scopes: leave scope out, and name the audience")

    def audit(self, event: str, request: Request, **detail: object) -> None:
        account = request.client.login.account.name
        self.store.audit(event, at=self.now, actor=f"http {request.posted.address}", account=account, **detail)

    def _log_in(self, _query_client: object, request: Request) -> Client:
        posted = request.posted
        account = find_account(self.store, posted.credentials)
        wait_seconds = self.issuer.brake.wait_seconds(self._caller(posted), self.issuer.clock.boottime())
        if wait_seconds > 0:
            raise SlowDown(wait_seconds)
        login = log_in(self.store, account, posted.credentials)
        if isinstance(login, LoginRefused):
            # RFC 6749 §5.2: 401 with WWW-Authenticate, for the client tried HTTP authentication or should have.
            raise InvalidClientError(description=login.description, status_code=401)
        return Client(login)

    def _caller(self, posted: PostedForm) -> Caller:
        account = find_account(self.store, posted.credentials)
        return Caller(account.name if account else "", posted.address)

    def _count_failure(self, posted: PostedForm, error: OAuth2Error) -> None:
        caller, seconds = self._caller(posted), self.issuer.clock.boottime()
        if self.issuer.brake.wait_seconds(caller, seconds) > 0:
            return
        self.issuer.brake.count_failure(caller, seconds)
        self.store.audit(
            "request-refused",
            at=self.now,
            actor=f"http {posted.address}",
            account=caller.account or None,
            path=posted.path,
            error=error.error,
            description=error.get_error_description(),
        )
