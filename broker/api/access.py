"""Who may use the API: who shows the token, in a header or by whatever else was added (a page's session cookie).

The token lies in a file of mode 0600 and is compared in constant time. Every route of the API depends on
`authenticated`; a way in is a function that looks at a request and says whether it knows it.
"""

import hmac
from collections.abc import Callable

from fastapi import Request

from broker.api.answers import Refused
from schemas.refusals import Reason, Refusal

WayIn = Callable[[Request], bool]


class Access:
    """The ways in; the token's is always there, the pages add theirs."""

    def __init__(self, token: str) -> None:
        self._token = token.encode("utf-8")
        self._ways: list[WayIn] = [self._shows_token]

    def add_way(self, way: WayIn) -> None:
        self._ways.append(way)

    def is_token(self, text: str) -> bool:
        """Whether this is the token, in constant time."""
        return hmac.compare_digest(text.encode("utf-8"), self._token)

    def lets_in(self, request: Request) -> bool:
        return any(way(request) for way in self._ways)

    def _shows_token(self, request: Request) -> bool:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(text.strip())


def authenticated(request: Request) -> None:
    """A dependency of every route: refuses who is not let in."""
    access: Access = request.app.state.access
    if not access.lets_in(request):
        raise Refused(Refusal(Reason.UNAUTHENTICATED, "send the header `authorization: Bearer` with the API's token"))
