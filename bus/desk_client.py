"""Asks a provider's desk: for its card, and for a session at its bus (DESIGN §6).

It carries bytes and reads answers; it neither signs the ticket nor believes the card: `identity.trust` does. A desk is
a stranger: its answers are bounded in size and time, and nothing in them is followed.
"""

import httpx
from pydantic import ValidationError

from runtime.errors import PeerFault, WorldFault
from runtime.http_client import Fetched, fetch
from schemas import limits
from schemas.refusals import Refusal
from schemas.sessions import RefusalBody, SessionGranted

ENVELOPE_TYPE = "application/msgpack"
MAX_SESSION_BYTES = 4 * limits.MIB
"""Room for a few ten thousand tenants, pools and workers."""
DEADLINE_SECONDS = 15.0


class DeskClient:
    """One desk, at a URL that a person pinned. The client is `runtime.http_client`'s and stays its maker's."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self._url = url.rstrip("/")
        self._client = client

    @property
    def url(self) -> str:
        return self._url

    async def card(self) -> bytes:
        """The provider's card, as an envelope that nobody has checked.

        Raises WorldFault when the desk cannot be reached or is out of order, PeerFault when it answers nonsense.
        """
        answer = await self._get("/card")
        if answer.status != 200:
            raise _unexpected(answer)
        return answer.body

    async def statement(self, digest: str) -> bytes | Refusal:
        """A card or rate card that the desk once signed, by the SHA-256 of its envelope; nobody has checked it.

        Raises as `card` does.
        """
        answer = await self._get(f"/statements/{digest}")
        if answer.status == 404:
            return _refusal(answer)
        if answer.status != 200:
            raise _unexpected(answer)
        return answer.body

    async def _get(self, path: str) -> Fetched:
        return await fetch(
            self._client,
            "GET",
            self._url + path,
            max_bytes=limits.STATEMENT_BYTES,
            deadline_seconds=DEADLINE_SECONDS,
        )

    async def session(
        self, ticket: bytes, known_revision: int | None = None, wait_seconds: int = 0
    ) -> SessionGranted | Refusal:
        """Open a session or extend it, or learn why not.

        With `known_revision` the desk holds its answer for up to `wait_seconds` until the facts are others (agents
        only). A ticket is good for one call, also when the answer got lost. Raises as `card` does.
        """
        query = "" if known_revision is None else f"?known={known_revision}&wait={wait_seconds}"
        answer = await fetch(
            self._client,
            "POST",
            f"{self._url}/session{query}",
            max_bytes=MAX_SESSION_BYTES,
            deadline_seconds=DEADLINE_SECONDS + wait_seconds,
            headers={"content-type": ENVELOPE_TYPE},
            body=ticket,
        )
        if answer.status == 200:
            return _granted(answer)
        if 400 <= answer.status < 500:
            return _refusal(answer)
        raise _unexpected(answer)


def _granted(answer: Fetched) -> SessionGranted:
    try:
        return SessionGranted.model_validate_json(answer.body)
    except ValidationError as error:
        # The cause would repeat the password.
        where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise PeerFault(f"the desk's session cannot be read (at {where or 'the start'})", where=answer.url) from None


def _refusal(answer: Fetched) -> Refusal:
    try:
        body = RefusalBody.model_validate_json(answer.body)
    except ValidationError as error:
        raise PeerFault(
            f"answered {answer.status} without a reason that is known here",
            where=answer.url,
            remedy="See that the address is a desk's, and that it speaks this version.",
        ) from error
    return Refusal(body.reason, body.detail[:1000])


def _unexpected(answer: Fetched) -> PeerFault | WorldFault:
    family = WorldFault if answer.status >= 500 else PeerFault
    return family(f"the desk answered {answer.status}", where=answer.url, remedy="Ask whoever runs it.")
