"""Projects and their secrets: added, listed, set; a secret's value never comes back out of here but into a grant."""

from collections.abc import Collection

from broker.bells import Bells
from broker.store import projects as project_store
from broker.tables import ProjectRow, SecretRow
from broker.vault import Vault
from runtime.clock import Clock
from runtime.database import Database
from schemas.refusals import Reason, Refusal


class Projects:
    """The projects of this controller."""

    def __init__(self, *, database: Database, vault: Vault, bells: Bells, clock: Clock) -> None:
        self._database = database
        self._vault = vault
        self._bells = bells
        self._clock = clock

    async def add(self, name: str, providers: Collection[str]) -> ProjectRow | Refusal:
        async with self._database.write() as session:
            row = await project_store.add_project(session, name, providers, self._clock.now())
        return row or Refusal(Reason.CONFLICT, f"there is a project {name} already")

    async def all(self) -> list[ProjectRow]:
        async with self._database.read() as session:
            return await project_store.projects(session)

    async def set_secret(self, project: str, name: str, value: str) -> Refusal | None:
        """Keep a secret, encrypted; jobs that wait for it go on."""
        box = self._vault.seal(project, name, value)
        async with self._database.write() as session:
            if await project_store.project(session, project) is None:
                return _unknown(project)
            await project_store.put_secret(session, project, name, box, self._clock.now())
        self._bells.offers_changed()
        return None

    async def remove_secret(self, project: str, name: str) -> Refusal | None:
        async with self._database.write() as session:
            is_removed = await project_store.remove_secret(session, project, name)
        return None if is_removed else Refusal(Reason.NOT_FOUND, f"{project} has no secret {name}")

    async def secrets(self, project: str) -> list[SecretRow] | Refusal:
        """The names of a project's secrets and when they were set."""
        async with self._database.read() as session:
            if await project_store.project(session, project) is None:
                return _unknown(project)
            return await project_store.secrets(session, project)


def _unknown(project: str) -> Refusal:
    return Refusal(Reason.NOT_FOUND, f"there is no project {project}")
