"""Making a desk's data directory, and what its owner does to it from the command line.

Everything that the owner does is written into the database that `serve` reads at every request: nothing needs a
restart. The root key is made here; it is the provider's name to the world, so a copy of it belongs in a safe place.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

from agents.desk import store
from agents.desk.policy import Standing
from agents.desk.sessions import set_standing
from agents.desk.settings import FILE, DeskSettings
from agents.desk.tables import TenantRow
from identity.keys import SigningKey, fingerprint, public_from_b64url
from runtime.clock import Clock, SystemClock
from runtime.database import Database
from runtime.errors import OurFault
from runtime.migrations import upgrade
from runtime.secrets import write_secret
from runtime.settings import load
from schemas.statements import Agent, AgentAccount
from schemas.tickets import AgentRole

DATABASE = "desk.sqlite"
ROOT_KEY = "root.key"
AGENT_KEY = "agent.key"
USERS_SECRET = "users.secret"  # noqa: S105 - a file's name
MIGRATIONS = "agents.desk.migrations"


@dataclass(frozen=True, slots=True)
class NewDesk:
    """What `init` has to tell: the key under which this provider is pinned, and its fingerprint."""

    root_key: bytes
    agent_key: bytes

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.root_key)


async def init(directory: Path, settings_text: str, *, bus_password: bytes) -> NewDesk:
    """Make a desk in `directory`: keys, settings, database; the desk itself is its first agent.

    Raises OurFault (also as SettingsError) when something is there already or the settings cannot be used.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (directory / FILE).exists():
        raise OurFault("there is a desk here already", where=str(directory), remedy="Use another directory.")
    (directory / FILE).write_text(settings_text, encoding="utf-8")
    settings = load(directory / FILE, DeskSettings)
    root, own = SigningKey.generate(), SigningKey.generate()
    root.save(directory / ROOT_KEY)
    own.save(directory / AGENT_KEY)
    write_secret(directory / USERS_SECRET, secrets.token_bytes(32))
    write_secret(directory / settings.bus.admin_password_file, bus_password)
    await enrol(directory, itself(settings, own))
    return NewDesk(root.public, own.public)


def itself(settings: DeskSettings, key: SigningKey) -> Agent:
    """The desk as an agent on its own card, with the accounts that the settings name now."""
    accounts = tuple(AgentAccount(iss=account.url, sub=account.sub) for account in settings.accounts)
    return Agent(name=settings.name, role="desk", key=key.public, accounts=accounts)


async def enrol(directory: Path, agent: Agent) -> None:
    """Enrol an agent, or give a known one its new key; the card shows it from the next request on."""
    async with _Opened(directory) as desk, desk.database.write() as session:
        await store.enrol(session, agent, desk.clock.now())
        store.audit(session, desk.clock.now(), "agent-enrolled", agent.name, f"{agent.role}, {agent.key.hex()[:16]}")


async def remove_agent(directory: Path, name: str) -> bool:
    async with _Opened(directory) as desk, desk.database.write() as session:
        is_known = await store.remove_agent(session, name)
        store.audit(session, desk.clock.now(), "agent-removed", name)
        return is_known


async def list_agents(directory: Path) -> tuple[Agent, ...]:
    async with _Opened(directory) as desk, desk.database.read() as session:
        return await store.agents(session)


async def list_tenants(directory: Path) -> list[TenantRow]:
    async with _Opened(directory) as desk, desk.database.read() as session:
        return await store.tenants(session)


async def judge(directory: Path, tenant: str, standing: Standing) -> bool:
    """What the owner says of a tenant; False where the desk has never met it."""
    async with _Opened(directory) as desk:
        return await set_standing(desk.database, tenant, standing, desk.clock.now())


def agent(name: str, role: AgentRole, key: str, accounts: list[str]) -> Agent:
    """Read an enrolment as it is typed: the key in base64url, accounts as `ISSUER=SUBJECT`.

    Raises ValueError with what was expected.
    """
    pairs = [account.rpartition("=") for account in accounts]
    if not all(issuer and subject for issuer, _, subject in pairs):
        raise ValueError("an account is written ISSUER=SUBJECT, as https://id.example=alice")
    return Agent(
        name=name,
        role=role,
        key=public_from_b64url(key),
        accounts=tuple(AgentAccount(iss=iss, sub=sub) for iss, _, sub in pairs),
    )


class _Opened:
    """The desk's database, brought up to date and opened for one command."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / DATABASE
        self.clock: Clock = SystemClock()
        self.database: Database

    async def __aenter__(self) -> "_Opened":
        if not (self._path.parent / FILE).exists():
            raise OurFault("there is no desk here", where=str(self._path.parent), remedy="Make one: fedci desk init")
        await upgrade(self._path, MIGRATIONS)
        self.database = Database.open(self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.database.close()
