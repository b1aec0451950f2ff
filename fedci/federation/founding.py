"""Makes everyone's data directory: what each of these people would type, done by the functions behind the commands.

The order is the order of trust: issuers first, then accounts at them, then the desks that trust them, then the agents
that are enrolled at the desks, then the controllers. Every API token goes straight into a file of mode 0600 of the one
who is to hold it. Settings are the very text that `init` writes, with the owner's lines added.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agents.desk import setup as desk_setup
from agents.ledger import setup as ledger_setup
from agents.store import setup as store_setup
from agents.worker import setup as worker_setup
from broker import setup as controller_setup
from bus.access import AdminAccess
from fedci.commands import desk as desk_command
from fedci.commands import ledger as ledger_command
from fedci.commands import store as store_command
from fedci.commands import worker as worker_command
from fedci.federation.cast import CURRENCY, CUSTOMERS, DECIMALS, ISSUERS, PROVIDERS, Customer, Provider
from fedci.federation.places import Places, remember
from identity.keys import b64url
from identity.server import administration, wiring
from identity.server.administration import Operator
from identity.server.store import Store, write
from runtime.clock import SystemClock
from runtime.secrets import write_secret
from schemas.statements import Agent, AgentAccount
from schemas.tickets import AgentRole

ACTOR = "fedci demo"


@dataclass(frozen=True, slots=True)
class ApiTokens:
    """API tokens as they were shown, once: by issuer's person and account."""

    of: dict[tuple[str, str], str]


async def found(places: Places, access: AdminAccess, toolchain: Path) -> None:
    """Found a whole federation; `toolchain` is the directory that hardware owners offer as `python`.

    Raises OurFault where a part of it is there already.
    """
    await found_members(places, await found_issuers(places), access, toolchain)
    remember(places)


async def found_members(places: Places, tokens: ApiTokens, access: AdminAccess, toolchain: Path) -> None:
    """Everybody but the issuers."""
    for provider in PROVIDERS:
        await found_provider(places, provider, tokens, access, toolchain)
    for customer in CUSTOMERS:
        await found_controller(places, customer, tokens)


async def found_issuers(places: Places) -> ApiTokens:
    """The two identity servers, with an account for each provider and for their own customers."""
    tokens: dict[tuple[str, str], str] = {}
    for issuer in ISSUERS:
        directory, clock = places.of("issuers", issuer), SystemClock()
        url, listen = places.url("issuers", issuer), places.listen("issuers", issuer)
        await wiring.initialise(directory, issuer=url, listen=listen, clock=clock)
        async with wiring.opened(directory) as house:
            made = await write(house.database, partial(_open_accounts, issuer, Operator(ACTOR, clock.now())))
        tokens.update({(issuer, account): token for account, token in made.items()})
    return ApiTokens(tokens)


def _open_accounts(issuer: str, by: Operator, store: Store) -> dict[str, str]:
    made: dict[str, str] = {}
    for account in accounts_at(issuer):
        administration.add_account(store, by, account)
        made[account] = administration.issue_api_token(store, by, account).token
    return made


def accounts_at(issuer: str) -> list[str]:
    """One account for each daemon that speaks to controllers, since one account is bound to one key."""
    daemons = [f"{provider.person}-{role}" for provider in PROVIDERS for role in ("desk", provider.agent)]
    return [*daemons, *(customer.person for customer in CUSTOMERS if customer.issuer == issuer)]


async def found_provider(
    places: Places, provider: Provider, tokens: ApiTokens, access: AdminAccess, toolchain: Path
) -> None:
    """A provider's desk, ledger, and worker or store, enrolled at the desk."""
    root_key = await _found_desk(places, provider, tokens, access)
    await _enrol(places, provider, "ledger", "ledger", await _found_ledger(places, provider, root_key))
    if provider.lends == "worker":
        key = _found_worker(places, provider, tokens, root_key, toolchain)
    else:
        key = _found_store(places, provider, root_key)
    await _enrol(places, provider, provider.agent, provider.lends, key)


async def _found_desk(places: Places, provider: Provider, tokens: ApiTokens, access: AdminAccess) -> str:
    directory = places.of("desks", provider.person)
    directory.mkdir(parents=True, mode=0o700)
    account = f"{provider.person}-desk"
    text = desk_command.SETTINGS.format(
        provider=provider.name,
        listen=places.listen("desks", provider.person),
        url=places.url("desks", provider.person),
        amqp_host=access.amqp_host,
        amqp_port=access.amqp_port,
        vhost=provider.name,
        api_url=access.api_url,
        admin_user=access.user,
    )
    top = f'currency = "{CURRENCY}"\ndecimals = {DECIMALS}\n'
    if provider.lends == "store":
        top += f'store_url = "{places.url("stores", provider.person)}"\n'
    text = text.replace("\n[bus]", f"{top}\n[bus]", 1)
    text += "".join(issuer_table(places, issuer, 'welcome = "admit"') for issuer in ISSUERS)
    text += "".join(account_table(places, issuer, account) for issuer in ISSUERS)
    text += "".join(_rate_table(provider))
    for issuer in ISSUERS:
        hold_token(directory, issuer, tokens.of[issuer, account])
    made = await desk_setup.init(directory, text, bus_password=access.password.encode("utf-8"))
    return b64url(made.root_key)


async def _found_ledger(places: Places, provider: Provider, root_key: str) -> bytes:
    text = ledger_command.SETTINGS.format(
        provider=provider.name,
        name="ledger",
        desk_url=places.url("desks", provider.person),
        root_key=root_key,
        listen=places.listen("ledgers", provider.person),
    )
    text += "".join(issuer_table(places, issuer) for issuer in ISSUERS)
    return await ledger_setup.init(places.of("ledgers", provider.person), text)


def _found_worker(places: Places, provider: Provider, tokens: ApiTokens, root_key: str, toolchain: Path) -> bytes:
    directory, account = places.of("workers", provider.person), f"{provider.person}-{provider.agent}"
    directory.mkdir(parents=True, mode=0o700)
    text = worker_command.SETTINGS.format(
        provider=provider.name,
        name=provider.agent,
        pool=provider.pool,
        labels=json.dumps(provider.labels),
        slots=provider.slots,
        desk_url=places.url("desks", provider.person),
        root_key=root_key,
        executor="bubblewrap",
    )
    text += "".join(issuer_table(places, issuer) for issuer in ISSUERS)
    text += "".join(account_table(places, issuer, account) for issuer in ISSUERS)
    text += "".join(_store_table(places, other) for other in PROVIDERS if other.lends == "store")
    text += _toolchain_table(toolchain)
    for issuer in ISSUERS:
        hold_token(directory, issuer, tokens.of[issuer, account])
    return worker_setup.init(directory, text)


def _found_store(places: Places, provider: Provider, root_key: str) -> bytes:
    text = store_command.SETTINGS.format(
        provider=provider.name,
        name=provider.agent,
        desk_url=places.url("desks", provider.person),
        root_key=root_key,
        listen=places.listen("stores", provider.person),
    )
    text += "".join(issuer_table(places, issuer) for issuer in ISSUERS)
    return store_setup.init(places.of("stores", provider.person), text)


async def _enrol(places: Places, provider: Provider, name: str, role: AgentRole, key: bytes) -> None:
    accounts = tuple(
        AgentAccount(iss=places.url("issuers", issuer), sub=f"{provider.person}-{name}")
        for issuer in ISSUERS
        if role == "worker"
    )
    await desk_setup.enrol(places.of("desks", provider.person), Agent(name=name, role=role, key=key, accounts=accounts))


async def found_controller(places: Places, customer: Customer, tokens: ApiTokens) -> None:
    """A customer's controller: it trusts her own issuer and nobody else's."""
    await controller_setup.init(
        places.of("controllers", customer.person),
        issuer=places.url("issuers", customer.issuer),
        account=customer.person,
        issuer_token=tokens.of[customer.issuer, customer.person],
        listen=places.listen("controllers", customer.person),
    )


def issuer_table(places: Places, issuer: str, *lines: str) -> str:
    """An `[[issuers]]` table that trusts this issuer."""
    return "\n".join(["", "[[issuers]]", f'url = "{places.url("issuers", issuer)}"', *lines, ""])


def account_table(places: Places, issuer: str, account: str) -> str:
    """An `[[accounts]]` table for an account whose API token `hold_token` has put beside the settings."""
    lines = [f'url = "{places.url("issuers", issuer)}"', f'sub = "{account}"', f'api_token_file = "{issuer}.token"']
    return "\n".join(["", "[[accounts]]", *lines, ""])


def hold_token(directory: Path, issuer: str, token: str) -> None:
    write_secret(directory / f"{issuer}.token", token.encode("ascii"))


def _rate_table(provider: Provider) -> Iterable[str]:
    for rate in provider.rates:
        lines = [f'{name} = "{getattr(rate, name)}"' for name in ("meter", "unit", "price", "per", "increment")]
        yield "\n".join(["", "[[rates]]", *lines, ""])


def _store_table(places: Places, provider: Provider) -> str:
    lines = [f'name = "{provider.name}"', f'url = "{places.url("stores", provider.person)}"']
    return "\n".join(["", "[[stores]]", *lines, ""])


def _toolchain_table(environment: Path) -> str:
    """A virtual environment as the toolchain `python`: at its own place, because its scripts name that place."""
    lines = [
        'name = "python"',
        f'description = "CPython {sys.version_info.major}.{sys.version_info.minor} with the locked libraries"',
        f"path = {json.dumps(str(environment))}",
        f"target = {json.dumps(str(environment))}",
        f"mounts = {json.dumps([str(path) for path in _interpreter_outside(environment)])}",
    ]
    return "\n".join(["", "[[toolchains]]", *lines, ""])


def _interpreter_outside(environment: Path) -> list[Path]:
    """Where the environment's interpreter lies, unless every sandbox shows that anyway."""
    base = Path(os.path.realpath(environment / "bin" / "python")).parents[1]
    return [] if base.is_relative_to("/usr") or base.is_relative_to(environment) else [base]


def clear(directory: Path) -> None:
    """Remove what an earlier demo left in a directory that is one of ours."""
    if (directory / "federation.json").exists() or (directory / "issuers").exists():
        shutil.rmtree(directory)
