"""Who is logged in with a browser: an API token is traded for a random cookie (DESIGN §11).

Rules:
1. The cookie is 256 random bits; only its SHA-256 is kept, and only in memory: a restart logs everybody out.
2. A login ends 12 hours after it began, or with a logout. It carries a token of its own for forms (CSRF).
3. Wrong tokens are counted by address and altogether; who guesses waits, also when the next guess is right.
"""

import hmac
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from runtime.clock import Clock
from schemas.ids import sha256_hex
from schemas.refusals import Reason, Refusal

LOGIN_SECONDS = 12 * 3600
MAX_LOGINS = 1000
GUESS_SECONDS = 60
GUESSES_BY_ADDRESS = 10
GUESSES = 200
MAX_ADDRESSES = 10_000


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody who is in; `form_token` must come back with every form."""

    form_token: str
    ends_at: float

    def owns_form(self, token: str) -> bool:
        return hmac.compare_digest(self.form_token.encode(), token.encode())


class Logins:
    """The browsers that are logged in."""

    def __init__(self, is_token: Callable[[str], bool], clock: Clock) -> None:
        self._is_token = is_token
        self._clock = clock
        self._logins: OrderedDict[str, Login] = OrderedDict()
        self._guesses = Guesses(clock)

    def enter(self, token: str, address: str) -> str | Refusal:
        """Trade the API token for a cookie."""
        if self._guesses.are_too_many(address):
            return Refusal(Reason.RATE_LIMITED, "too many wrong tokens; wait a minute and try again")
        if not self._is_token(token):
            self._guesses.note(address)
            return Refusal(Reason.UNAUTHENTICATED, "this is not the API token of this controller")
        cookie = secrets.token_urlsafe(32)
        self._logins[_name(cookie)] = Login(secrets.token_urlsafe(32), self._clock.boottime() + LOGIN_SECONDS)
        if len(self._logins) > MAX_LOGINS:
            self._logins.popitem(last=False)
        return cookie

    def find(self, cookie: str | None) -> Login | None:
        """The login of this cookie, while it lasts."""
        login = self._logins.get(_name(cookie)) if cookie else None
        return login if login is not None and login.ends_at > self._clock.boottime() else None

    def leave(self, cookie: str) -> None:
        self._logins.pop(_name(cookie), None)


class Guesses:
    """Counts wrong tokens of the last minute, in bounded memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._all: deque[float] = deque(maxlen=GUESSES)
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()

    def note(self, address: str) -> None:
        now = self._clock.boottime()
        self._all.append(now)
        self._by_address.setdefault(address, deque(maxlen=GUESSES_BY_ADDRESS)).append(now)
        self._by_address.move_to_end(address)
        if len(self._by_address) > MAX_ADDRESSES:
            self._by_address.popitem(last=False)

    def are_too_many(self, address: str) -> bool:
        return self._is_full(self._all) or self._is_full(self._by_address.get(address, deque(maxlen=1)))

    def _is_full(self, times: deque[float]) -> bool:
        return len(times) == times.maxlen and self._clock.boottime() - times[0] < GUESS_SECONDS


def _name(cookie: str) -> str:
    return sha256_hex(cookie.encode("utf-8", "surrogatepass"))
