"""Every row of the import table is enforced: what the table does not allow breaks a contract of pyproject.toml.

The contracts are the ones that `lint-imports` reads. Each pair of houses is put to them as a graph with one import, so
a contract that is missing, misspelt or too wide fails here although no code breaks it yet.
"""

import re
import tomllib
from importlib.metadata import packages_distributions
from itertools import permutations
from pathlib import Path

import pytest
from grimp import ImportGraph
from importlinter.application.use_cases import read_user_options
from importlinter.configuration import configure
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.independence import IndependenceContract
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).parents[2]
PYPROJECT = CHECKOUT / "pyproject.toml"
CONTRACT_TYPES = {"forbidden": ForbiddenContract, "independence": IndependenceContract}

SHARED = {"schemas", "runtime", "bus", "identity.trust"}
AGENTS = {"agents.desk", "agents.worker", "agents.store", "agents.ledger"}
HOUSES = SHARED | {"identity.server", "broker", "agents.sandbox"} | AGENTS
MAY_IMPORT: dict[str, set[str]] = {
    "schemas": set(),
    "runtime": {"schemas"},
    "bus": {"schemas", "runtime"},
    "identity.trust": {"schemas", "runtime"},
    "identity.server": {"schemas", "runtime", "identity.trust"},
    "broker": SHARED,
    "agents.desk": SHARED,
    "agents.worker": SHARED | {"agents.sandbox"},
    "agents.store": SHARED,
    "agents.ledger": SHARED,
    "agents.sandbox": SHARED,
    "fedci": HOUSES,
    "tests": HOUSES | {"fedci"},
}
# The table says nothing about the inside of a house; that no way leads through it to the issuer is a test of its own.
SAME_HOUSE = {("identity.trust", "identity.server")}
ALLOWED = sorted((importer, imported) for importer, others in MAY_IMPORT.items() for imported in others)
REFUSED = sorted(set(permutations(MAY_IMPORT, 2)) - set(ALLOWED) - SAME_HOUSE)


def broken_contracts(*imports: tuple[str, str]) -> list[str]:
    """Names of the contracts that a code base with just these imports would break."""
    configure()
    options = read_user_options(str(PYPROJECT))
    broken = []
    for contract in options.contracts_options:
        kind = CONTRACT_TYPES[contract["type"]]
        check = kind(contract["name"], options.session_options, contract).check(graph_of(imports), verbose=False)
        if not check.kept:
            broken.append(contract["name"])
    return broken


def graph_of(imports: tuple[tuple[str, str], ...]) -> ImportGraph:
    graph = ImportGraph()
    for house in MAY_IMPORT:
        graph.add_module(house.partition(".")[0])
        graph.add_module(house)
        graph.add_module(f"{house}.inside")
    for importer, imported in imports:
        graph.add_import(importer=f"{importer}.inside", imported=f"{imported}.inside")
    return graph


@pytest.mark.parametrize(("importer", "imported"), REFUSED)
def test_what_the_table_does_not_allow_breaks_a_contract(importer: str, imported: str) -> None:
    assert broken_contracts((importer, imported))


@pytest.mark.parametrize(("importer", "imported"), ALLOWED)
def test_what_the_table_allows_breaks_none(importer: str, imported: str) -> None:
    assert broken_contracts((importer, imported)) == []


def test_a_way_round_through_an_allowed_house_is_refused_too() -> None:
    way_round = [("broker", "identity.trust"), ("identity.trust", "identity.server")]

    assert "the controller verifies tokens, it never issues them" in broken_contracts(*way_round)


def test_every_package_of_the_checkout_is_under_the_contracts() -> None:
    packages = {file.parent.name for file in CHECKOUT.glob("*/__init__.py")}

    assert packages == {house.partition(".")[0] for house in MAY_IMPORT}
    assert packages == set(read_user_options(str(PYPROJECT)).session_options["root_packages"])


def test_every_agent_of_the_checkout_is_in_the_table() -> None:
    agents = {f"agents.{file.parent.name}" for file in (CHECKOUT / "agents").glob("*/__init__.py")}

    assert agents == AGENTS | {"agents.sandbox"}


def test_the_wheel_ships_the_houses_and_not_the_tests() -> None:
    wheel = tomllib.loads(PYPROJECT.read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert set(wheel["packages"]) == {house.partition(".")[0] for house in MAY_IMPORT} - {"tests"}


def test_no_locked_dependency_ships_a_name_of_ours() -> None:
    lines = (CHECKOUT / "requirements.lock").read_text().splitlines()
    locked = [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"[a-z0-9]", line)]
    here = {normal(entry.name) for entry in locked if entry.marker is None or entry.marker.evaluate()}
    shipped = {name: {normal(owner) for owner in owners} & here for name, owners in packages_distributions().items()}

    assert here == set().union(*shipped.values()), "the environment is not the locked one"
    assert {name: shipped[name] for name in shipped if name in {house.partition(".")[0] for house in HOUSES}} == {}


def normal(name: str) -> str:
    """A distribution's name as the lock spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
