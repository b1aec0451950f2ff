"""The parties that a role talks to: its issuers, its desk, the providers that a controller has pinned, RabbitMQ."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from bus.access import AdminAccess
from bus.desk_client import DeskClient
from fedci.doctor.bus import look_at_access
from fedci.doctor.clocks import judge_skew
from fedci.doctor.findings import Finding, faulty, ok, warn, wrong
from fedci.doctor.roles import AccountFacts, RoleFacts
from identity.account import Account, read_api_token
from identity.keys import SigningKey, public_from_b64url
from identity.trust import IssuerProfile, verify_statement
from runtime.clock import Clock
from runtime.errors import FedciError
from runtime.http_client import fetch, json_object, open_client
from runtime.secrets import read_secret
from schemas.ids import provider_audience, sha256_hex
from schemas.refusals import Refusal
from schemas.statements import Card

ASK_SECONDS = 10.0
_MAX_ANSWER_BYTES = 256 * 1024


async def look_at_issuer(url: str, ca: Path | None, clock: Clock) -> Sequence[Finding]:
    """An issuer's discovery document, and the clock of whoever sent it. Raises WorldFault when it is away."""
    where = IssuerProfile(url=url).discovery_url
    async with open_client(ca) as client:
        asked_at = clock.now()
        answer = await fetch(client, "GET", where, max_bytes=_MAX_ANSWER_BYTES, deadline_seconds=ASK_SECONDS)
        skew = judge_skew(url, answer.headers.get("date"), asked_at, clock.now())
    said = json_object(answer).get("issuer") if answer.status == 200 else None
    return [judge_issuer(url, answer.status, said), skew]


def judge_issuer(url: str, status: int, said: Any) -> Finding:
    """OpenID Connect Discovery 1.0 §4.3: the document names exactly the issuer that was asked."""
    name = f"issuer {url}"
    if status != 200:
        return wrong(name, f"its discovery answered {status}", "See that the URL is an issuer's, without a path.")
    if said != url:
        return wrong(name, f"calls itself {str(said)[:300]!r}", "Write the issuer's URL exactly as it does itself.")
    return ok(name, "answers, and calls itself so")


async def look_at_account(facts: RoleFacts, account: AccountFacts, clock: Clock) -> Finding:
    """Trade the API token for one ID token, bound to the role's own key, and throw it away."""
    name = f"{facts.title}: account {account.sub} at {account.url}"
    key, api_token = SigningKey.load(facts.key_file), read_api_token(account.token_file)
    async with open_client(facts.issuer_ca) as client:
        holder = Account(issuer=account.url, sub=account.sub, api_token=api_token, key=key, client=client, clock=clock)
        token = await holder.token(provider_audience(facts.says("provider") or "doctor"))
    return ok(name, f"gets ID tokens, good until {token.expires_at:%H:%M:%S} UTC")


# -- Desks and their cards


async def look_at_desk(facts: RoleFacts, clock: Clock) -> Sequence[Finding]:
    """The desk of an agent's own provider: its card under the pinned root, and the agent's place in it."""
    name, provider = f"{facts.title}: desk", facts.says("provider")
    root = public_from_b64url(facts.says("root_key"))
    card = await _read_card(facts.says("desk_url"), root, facts.desk_ca)
    found = judge_card(name, card, provider, clock.now())
    if isinstance(card, Refusal):
        return [found]
    return [found, judge_enrolment(facts, card, SigningKey.load(facts.key_file).public)]


async def look_at_provider(facts: RoleFacts, name: str, url: str, root: bytes, clock: Clock) -> Sequence[Finding]:
    """A provider that a controller has pinned."""
    return [
        judge_card(f"{facts.title}: provider {name}", await _read_card(url, root, facts.desk_ca), name, clock.now())
    ]


def judge_card(name: str, card: Card | Refusal, provider: str, now: datetime) -> Finding:
    if isinstance(card, Refusal):
        remedy = "Compare fingerprints with the provider: a changed root key is an alarm, never an update."
        return wrong(name, f"its card does not verify under the pinned root key ({card})", remedy)
    if card.provider != provider:
        return wrong(name, f"it is {card.provider}'s, not {provider}'s", "Correct the desk's URL.")
    if card.expires_at <= now:
        return wrong(name, f"its card has ended at {card.expires_at:%Y-%m-%d %H:%M} UTC", "Ask the desk's owner.")
    return ok(name, f"card {card.serial} verifies, good until {card.expires_at:%Y-%m-%d}")


def judge_enrolment(facts: RoleFacts, card: Card, key: bytes) -> Finding:
    """Whether the card lists this agent under this name, role and key."""
    name, own = f"{facts.title}: enrolment", facts.says("name")
    agent = next((agent for agent in card.agents if agent.name == own), None)
    enrol = f"At the desk: fedci desk enrol DESK {own} --role {facts.role} --key ... (the key that `init` showed)."
    if agent is None:
        return wrong(name, f"the desk knows no agent {own}", enrol)
    if (agent.role, agent.key) != (facts.role, key):
        seen = f"the desk knows {own} as a {agent.role} with the key {sha256_hex(agent.key)[:16]}, not as this one"
        return wrong(name, seen, enrol)
    return ok(name, f"the desk knows {own}")


async def _read_card(url: str, root: bytes, ca: Path | None) -> Card | Refusal:
    async with open_client(ca) as client:
        stated = verify_statement(await DeskClient(url, client).card(), Card, key=root)
    return stated if isinstance(stated, Refusal) else stated.message


# -- What only one role has


async def look_at_desks_bus(facts: RoleFacts) -> Sequence[Finding]:
    """The RabbitMQ behind a desk, with the desk's own password. Raises WorldFault when it cannot be reached."""
    bus = facts.says("bus")
    access = AdminAccess(
        api_url=bus.api_url.rstrip("/"),
        user=bus.admin_user,
        password=read_secret(facts.directory / bus.admin_password_file).decode("utf-8"),
        amqp_host=bus.host,
        amqp_port=bus.port,
        amqp_tls=bus.tls,
    )
    async with open_client(facts.directory / bus.ca_file if bus.ca_file else None) as client:
        return await look_at_access(f"{facts.title}: bus", access, client)


async def look_at_providers(facts: RoleFacts, clock: Clock) -> Sequence[Finding]:
    """Every provider that a controller has pinned, asked one after the other."""
    from broker.store.providers import providers
    from runtime.database import Database

    name, place = f"{facts.title}: providers", _database_of(facts)
    if isinstance(place, Path) and not place.exists():
        return [warn(name, "no database yet", "Start the controller once, then: fedci controller provider add URL")]
    database = Database.open(place)
    try:
        async with database.read() as session:
            pinned = [(row.name, row.url, row.root_key, row.alarm) for row in await providers(session)]
    finally:
        await database.close()
    if not pinned:
        return [warn(name, "none is pinned", "fedci controller provider add URL")]
    found: list[Finding] = []
    for provider, url, root, alarm in pinned:
        if alarm:
            found.append(wrong(f"{facts.title}: provider {provider}", f"alarm: {alarm}", "See the controller's page."))
        found += await _asked(facts, provider, url, root, clock)
    return found


async def _asked(facts: RoleFacts, provider: str, url: str, root: bytes, clock: Clock) -> Sequence[Finding]:
    try:
        return await look_at_provider(facts, provider, url, root, clock)
    except FedciError as error:
        return [faulty(f"{facts.title}: provider {provider}", error)]


def _database_of(facts: RoleFacts) -> Path | str:
    from broker.settings import ControllerSettings
    from broker.setup import database_of

    settings = facts.settings
    if not isinstance(settings, ControllerSettings):
        raise TypeError(f"a {facts.role} has no providers")
    return database_of(facts.directory, settings)
