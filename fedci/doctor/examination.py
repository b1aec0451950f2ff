"""Which checks there are for which directories, and the examination that runs them.

Without directories the whole machine is examined for all roles, as `fedci demo` needs it; with directories, what their
roles do not need is a warning at most.
"""

import asyncio
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from agents.sandbox.local import Place
from fedci.doctor import bus, clocks, machine, neighbours, sandbox
from fedci.doctor.findings import Check, Finding, faulty, ok, run_checks
from fedci.doctor.roles import SETTINGS, RoleFacts, look_at_ports, look_at_secrets, open_role
from runtime.clock import Clock
from runtime.errors import FedciError

LIBRARIES_SECONDS = 60.0
PROVIDERS_SECONDS = 120.0


async def examine(
    directories: Sequence[Path], *, env: Mapping[str, str], client: httpx.AsyncClient, clock: Clock
) -> list[Finding]:
    """Everything that was found, this machine first, then directory by directory.

    `env` may name an existing RabbitMQ, which `client` asks. Takes as long as its slowest check.
    """
    opened = [await asyncio.to_thread(_open, directory) for directory in directories]
    roles = [facts for facts in opened if isinstance(facts, RoleFacts)]
    unread = [finding for finding in opened if isinstance(finding, Finding)]
    wanted = {facts.role for facts in roles} if directories else set(SETTINGS)
    places = directories or [Path()]
    checks = [
        *_machine_checks(wanted, places, env, client),
        *_sandbox_checks(roles, is_wanted="worker" in wanted),
        *_issuer_checks(roles, clock),
        *(check for facts in roles for check in role_checks(facts, clock)),
    ]
    return [*await run_checks(checks), *unread]


def role_checks(facts: RoleFacts, clock: Clock) -> Iterator[Check]:
    """What is looked at in one role's directory."""

    async def settings() -> Sequence[Finding]:
        return [ok(f"{facts.title}: settings", f"{facts.role}.toml is as it should be")]

    yield Check("settings", settings)
    yield Check(f"{facts.title}: secrets", _in_thread(look_at_secrets, facts))
    yield Check(f"{facts.title}: ports", _in_thread(look_at_ports, facts))
    for account in facts.accounts:
        look = partial(neighbours.look_at_account, facts, account, clock)
        yield Check(f"{facts.title}: account {account.sub} at {account.url}", _one(look))
    if facts.says("desk_url") and facts.says("root_key"):
        yield Check(f"{facts.title}: desk", partial(neighbours.look_at_desk, facts, clock))
    if facts.role == "desk":
        yield Check(f"{facts.title}: bus", partial(neighbours.look_at_desks_bus, facts))
    if facts.role == "controller":
        look_at_providers = partial(neighbours.look_at_providers, facts, clock)
        yield Check(f"{facts.title}: providers", look_at_providers, PROVIDERS_SECONDS)


def _machine_checks(
    wanted: Collection[str], places: Sequence[Path], env: Mapping[str, str], client: httpx.AsyncClient
) -> Iterator[Check]:
    yield Check("python", _in_thread(lambda: [machine.judge_python(sys.version_info[:3])]))
    yield Check("libraries", _in_thread(lambda: list(machine.look_at_libraries(wanted))), LIBRARIES_SECONDS)
    yield Check("git", _in_thread(lambda: [machine.judge_git(shutil.which("git"), is_wanted="controller" in wanted)]))
    # A node of our own is what the demo starts; a desk's RabbitMQ is looked at where its settings say that it is.
    yield Check("rabbitmq", partial(bus.look_at_bus, env, client, is_wanted=set(wanted) == set(SETTINGS)))
    yield Check("clock: ntp", _in_thread(lambda: [clocks.look_at_ntp()]))
    for place in places:
        yield Check(f"disk: {place}", _in_thread(lambda place=place: [machine.look_at_disk(place)]))


def _sandbox_checks(roles: Sequence[RoleFacts], *, is_wanted: bool) -> Iterator[Check]:
    """The sandbox as each worker's settings want it, or the ordinary one."""
    wishes = dict.fromkeys(facts.says("sandbox") for facts in roles if facts.role == "worker")
    for settings in wishes:
        place = Place(Path(), settings.first_uid, settings.cgroup_parent, settings.may_nest)
        look = partial(sandbox.look_at_sandbox, settings.executor, place, is_wanted=True)
        yield Check("sandbox", look, sandbox.DEADLINE_SECONDS)
    if not wishes:
        look = partial(sandbox.look_at_sandbox, "bubblewrap", is_wanted=is_wanted)
        yield Check("sandbox", look, sandbox.DEADLINE_SECONDS)


def _issuer_checks(roles: Sequence[RoleFacts], clock: Clock) -> Iterator[Check]:
    for url, ca in dict.fromkeys((url, facts.issuer_ca) for facts in roles for url in facts.issuers):
        yield Check(f"issuer {url}", partial(neighbours.look_at_issuer, url, ca, clock))


def _open(directory: Path) -> RoleFacts | Finding:
    try:
        return open_role(directory)
    except FedciError as error:
        return faulty(f"{directory}: settings", error)


def _in_thread(look: Callable[..., Sequence[Finding]], *arguments: Any) -> Callable[[], Any]:
    return partial(asyncio.to_thread, look, *arguments)


def _one(look: Callable[[], Any]) -> Callable[[], Any]:
    async def looked() -> Sequence[Finding]:
        return [await look()]

    return looked
