"""The desk's hand at RabbitMQ: which users there are, and exactly what each of them may do (DESIGN §6).

A user's name tells the provider, the holder and the holder's epoch, so a user once removed never comes back. Its
password derives from that name and the desk's own secret: it is never stored, and asking again gives the same one.
What was applied is remembered, so that nothing is told to RabbitMQ twice; `reconcile` compares with what is there.
"""

import base64
import hashlib
import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from agents.desk.store import OpenSession
from bus.provisioner import Provisioner
from bus.topology import Rights
from runtime.logging import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Credentials:
    user: str
    password: str


class BusUsers:
    """The session users of one provider on its RabbitMQ. Its caller serialises all changes."""

    def __init__(
        self, provider: str, provisioner: Provisioner, secret: bytes, *, connections: int, channels: int
    ) -> None:
        self._prefix = f"{provider}:"
        self._provisioner = provisioner
        self._secret = secret
        self._connections = connections
        self._channels = channels
        self._applied: dict[str, Rights] = {}

    def credentials(self, session: OpenSession) -> Credentials:
        user = self._name(session)
        digest = hmac.digest(self._secret, user.encode("utf-8"), hashlib.sha256)
        return Credentials(user, base64.urlsafe_b64encode(digest).decode("ascii").rstrip("="))

    async def apply(self, session: OpenSession, rights: Rights) -> None:
        """See that the session's user exists and may do exactly this.

        Raises WorldFault when RabbitMQ's management cannot be reached.
        """
        user = self._name(session)
        if self._applied.get(user) == rights:
            return
        if user in self._applied:
            await self._provisioner.update_rights(user, rights)
        else:
            password = self.credentials(session).password
            await self._provisioner.create_session_user(
                user, password, rights, max_connections=self._connections, max_channels=self._channels
            )
        self._applied[user] = rights

    async def remove(self, session: OpenSession) -> None:
        """Remove the session's user, which closes all its connections; already gone is fine."""
        await self._remove(self._name(session))

    async def reconcile(self, wanted: Mapping[OpenSession, Rights]) -> None:
        """Make RabbitMQ's users those of the open sessions: strangers are removed, lost ones made again."""
        present = set(await self._provisioner.list_session_users(self._prefix))
        names = {self._name(session) for session in wanted}
        for user in sorted(present - names):
            _log.warning("bus_user_removed", user=user, why="it has no session")
            await self._remove(user)
        self._forget(names - present)
        for session, rights in wanted.items():
            await self.apply(session, rights)

    def _forget(self, users: Collection[str]) -> None:
        for user in users:
            if self._applied.pop(user, None) is not None:
                _log.warning("bus_user_lost", user=user)

    async def _remove(self, user: str) -> None:
        await self._provisioner.remove_user(user)
        self._applied.pop(user, None)

    def _name(self, session: OpenSession) -> str:
        return f"{self._prefix}{session.holder}:{session.epoch}"
