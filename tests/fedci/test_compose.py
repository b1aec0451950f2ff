"""compose.yaml means what it says, read by a real compose implementation, without an engine.

`podman-compose config` resolves anchors, variables and defaults; of the engine it asks only the version. It is lenient
about what it does not know, so keys, volumes and dependencies are checked here. The commands are compared with those
that the demo starts as processes: what its end-to-end test shows of them holds here too.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from fedci.cli import SUB_COMMANDS
from fedci.federation import places, standing

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "identity": "issuers",
    "desk": "desks",
    "ledger": "ledgers",
    "worker": "workers",
    "store": "stores",
    "controller": "controllers",
}
COUNTS = {"identity": 2, "desk": 3, "ledger": 3, "worker": 2, "store": 1, "controller": 2}
KEYS = {
    *("build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image", "init", "network_mode"),
    *("restart", "security_opt", "stop_grace_period", "user", "volumes", "working_dir"),
}
Services = dict[str, dict[str, Any]]


def parsed(engine: Path, file: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What the parser says of a compose file; `engine` is a directory for a stand-in that only tells its version."""
    podman = engine / "podman"
    podman.write_text("#!/bin/sh\necho podman version 5.0.0\n")
    podman.chmod(0o755)
    command = [sys.executable, "-m", "podman_compose", "--podman-path", str(podman), "-f", str(file), "config"]
    environment = {"PATH": os.defpath, "HOME": str(engine), **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=engine)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Services:
    answer = parsed(tmp_path_factory.mktemp("engine"), ROOT / "compose.yaml")
    assert answer.returncode == 0, answer.stderr
    found: Services = yaml.safe_load(answer.stdout)["services"]
    return found


@pytest.fixture(scope="module")
def roles(services: Services) -> Services:
    """The services that are roles of fedci, and stay."""
    return {name: service for name, service in services.items() if name not in ("rabbitmq", "prepare")}


def test_every_key_is_one_of_the_compose_specification(services: Services) -> None:
    for name, service in services.items():
        assert set(service) <= KEYS, name
        assert set(service.get("healthcheck", {})) <= {"test", "interval", "timeout", "retries", "start_period"}


def test_every_volume_is_declared(roles: Services) -> None:
    declared = yaml.safe_load((ROOT / "compose.yaml").read_text())["volumes"]
    for service in roles.values():
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= set(declared)


def test_every_person_of_the_founding_scenario_is_there(roles: Services) -> None:
    counted = {role: sum(service["command"][0] == role for service in roles.values()) for role in COUNTS}
    assert counted == COUNTS
    assert len(roles) == sum(COUNTS.values())


def test_every_service_runs_a_command_that_fedci_has(roles: Services, services: Services) -> None:
    for service in roles.values():
        command, verb, directory = service["command"]
        assert command in SUB_COMMANDS
        assert verb == ("run" if command == "worker" else "serve")
        assert directory.startswith(f"/federation/{KINDS[command]}/")
    assert services["prepare"]["command"] == ["demo", "--prepare", "/federation"]
    assert "demo" in SUB_COMMANDS


def test_no_two_services_share_a_data_directory(roles: Services) -> None:
    directories = [service["command"][2] for service in roles.values()]
    assert len(set(directories)) == len(directories)


def test_the_commands_and_directories_are_those_that_the_demo_starts(roles: Services) -> None:
    at = places.Places(Path("/federation"), {})
    started = [*standing.issuer_roles(at), *standing.desk_roles(at), *standing.other_roles(at)]
    assert {tuple(service["command"]) for service in roles.values()} == {
        (role.command, role.verb, str(role.directory)) for role in started
    }


def test_every_service_that_stays_has_a_health_check(services: Services) -> None:
    lacking = [name for name, service in services.items() if not service.get("healthcheck", {}).get("test")]
    assert lacking == ["prepare"]


def test_each_health_check_asks_the_port_that_its_role_was_given(roles: Services, tmp_path: Path) -> None:
    given = places.choose(tmp_path, fixed=True)
    for service in roles.values():
        command, _, directory = service["command"]
        person = directory.rpartition("/")[2]
        if command == "worker":
            assert service["healthcheck"]["test"][-1] == f"{directory}/worker.ready"
        else:
            asked = urlsplit(service["environment"]["HEALTH_URL"])
            assert asked.netloc == given.listen(KINDS[command], person)
            assert asked.path == "/healthz"


def test_everyone_waits_until_the_directories_are_prepared(services: Services) -> None:
    def waits_for(name: str) -> set[str]:
        first = set(services[name].get("depends_on", {}))
        return first | {further for each in first for further in waits_for(each)}

    for name in set(services) - {"prepare"}:
        assert "prepare" in waits_for(name)
        assert name not in waits_for(name)


def test_plaintext_stays_on_the_loopback_that_all_services_share(roles: Services) -> None:
    assert {service["network_mode"] for service in roles.values()} == {"service:rabbitmq"}


def test_no_port_is_published(services: Services) -> None:
    assert [name for name, service in services.items() if service.get("ports")] == []


def test_no_secret_stands_in_an_environment_or_an_argument(services: Services) -> None:
    suspicious = re.compile(r"pass|secret|token|cookie|credential|://[^/@]*@", re.IGNORECASE)
    for service in services.values():
        for text in (*service.get("command", ()), *service.get("environment", {}), *_values(service)):
            assert not suspicious.search(text), text


def test_no_service_runs_as_root_or_privileged(services: Services) -> None:
    for service in services.values():
        assert service["user"] == "1000:1000"
        assert not service.get("privileged")
        assert not service.get("cap_add")


def test_only_workers_leave_the_engines_default_confinement(services: Services) -> None:
    loosened = {name for name, service in services.items() if service.get("security_opt")}
    assert loosened == {"alice-worker", "cecilia-worker"}


def test_a_directory_of_this_machine_can_take_the_volumes_place(tmp_path: Path) -> None:
    answer = parsed(tmp_path, ROOT / "compose.yaml", FEDCI_FEDERATION="/srv/fedci", FEDCI_USER="1234:1234")
    service = yaml.safe_load(answer.stdout)["services"]["dinah"]
    assert service["volumes"] == ["/srv/fedci:/federation"]
    assert service["user"] == "1234:1234"


def test_the_image_is_built_from_the_lock_with_hashes_and_is_not_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "pip install --require-hashes -r" in text
    assert re.search(r"^USER fedci$", text, re.MULTILINE)


def _values(service: dict[str, Any]) -> list[str]:
    return [str(value) for value in service.get("environment", {}).values()]
