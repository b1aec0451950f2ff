"""The documents tell the truth where it can be checked: links, commands, messages, dependencies, pipelines, names in
the code.
"""

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement

from fedci.cli import SUB_COMMANDS
from schemas.pipeline import Pipeline, PipelineJob, PipelineResources, PipelineStep, parse_pipeline
from schemas.registry import BY_TYPE
from schemas.wire import Part

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").glob("*.md")])
DOCS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
HOUSES = ("schemas", "runtime", "bus", "identity", "broker", "agents", "fedci")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")


# -- Links


def anchors_of(page: Path) -> set[str]:
    """The anchors that a heading gets on GitHub: lower case, punctuation dropped, spaces to hyphens."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            dead.append(link)
    assert dead == []


# -- Commands


def fenced_commands(text: str) -> Iterator[str]:
    """Lines of shell blocks that call fedci, without what is piped into them and what follows."""
    for language, block in FENCE.findall(text):
        if language == "sh":
            yield from (part for line in block.splitlines() for part in re.split(r"[|;]", line) if "fedci " in part)


def inline_commands(text: str) -> Iterator[str]:
    yield from (code for code in CODE.findall(FENCE.sub("", text)) if code.startswith("fedci "))


def words_of(command: str) -> list[str]:
    words = shlex.split(command.partition(" < ")[0], comments=True)
    return words[words.index("fedci") + 1 :] if "fedci" in words else []


COMMANDS = sorted(
    {command.strip() for text in DOCS.values() for command in [*fenced_commands(text), *inline_commands(text)]}
)


def wrong_in(words: list[str]) -> str | None:
    """The first word that the command line does not know; arguments and placeholders are not looked at."""
    name, *rest = words
    if name.startswith(("-", "<", "…")) or name.isupper():
        return None
    if name not in SUB_COMMANDS:
        return name
    command = typer.main.get_command(importlib.import_module(SUB_COMMANDS[name].module).app)
    while rest and (children := getattr(command, "commands", None)) and not rest[0].startswith("-"):
        if rest[0] not in children:
            return rest[0] if rest[0].isascii() and not rest[0].isupper() else None
        command = children[rest.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    return next((word for word in rest if word.startswith("--") and word.partition("=")[0] not in known), None)


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_in_the_documents_exists_with_its_options(command: str) -> None:
    words = words_of(command)
    assert not words or wrong_in(words) is None, f"not known: {wrong_in(words)}"


@pytest.mark.parametrize("command", ["fedci guess", "fedci desk guess DIR", "fedci desk enrol DIR w1 --guess 1"])
def test_a_command_that_does_not_exist_is_found(command: str) -> None:
    assert wrong_in(words_of(command)) is not None


# -- Tables


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_message_table_lists_exactly_the_messages_that_are_spoken() -> None:
    listed = [row[0].strip("`") for row in rows(DOCS["protocol.md"], "Messages")]
    assert sorted(listed) == sorted(BY_TYPE)


def test_the_message_table_says_which_carry_a_token() -> None:
    for row in rows(DOCS["protocol.md"], "Messages"):
        assert (row[2] == "yes") == BY_TYPE[row[0].strip("`")].CARRIES_TOKEN, row[0]


def test_the_readmes_kinds_list_exactly_the_messages_that_are_spoken() -> None:
    listed = {name.strip() for row in rows(DOCS["README.md"], "Messages") for name in row[2].split(",")}
    assert listed == {name.removeprefix("fedci.").partition("/")[0] for name in BY_TYPE}


def test_the_import_table_names_every_house() -> None:
    assert tuple(LINK.sub(r"\1", row[0]).strip("/") for row in rows(DOCS["README.md"], "Houses")) == HOUSES


def test_every_direct_dependency_has_its_line() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [
        *project["project"]["dependencies"],
        *(line for extra in project["project"]["optional-dependencies"].values() for line in extra),
        *project["dependency-groups"]["dev"],
    ]
    names = {Requirement(line).name for line in wanted} - {"fedci"}
    cells = re.findall(r"^\| ([a-z0-9, -]+) \|", DOCS["dependencies.md"], re.MULTILINE)
    told = {name.strip() for cell in cells for name in cell.split(",")} - {"package"}
    assert told == names


def test_the_pipeline_table_lists_exactly_the_keys_of_a_pipeline() -> None:
    listed = {
        (key.strip("`"), place)
        for key, places, *_ in rows(DOCS["pipelines.md"], "Keys")
        for place in places.split(", ")
    }
    models: dict[str, type[Part]] = {
        "top": Pipeline,
        "job": PipelineJob,
        "step": PipelineStep,
        "resources": PipelineResources,
    }
    assert listed == {(key, place) for place, model in models.items() for key in model.model_fields}


@pytest.mark.parametrize("name", DOCS)
def test_every_pipeline_in_the_documents_can_be_run(name: str) -> None:
    blocks = [block for language, block in FENCE.findall(DOCS[name]) if language == "yaml" and "\njobs:" in block]
    wrong = [parse_pipeline(block.encode("utf-8")) for block in blocks]
    assert [problem for problem in wrong if not isinstance(problem, Pipeline)] == []


# -- Names in the code


def is_in_the_code(name: str) -> bool:
    """Whether a dotted name is a module of ours, or something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[count:]:
            found = getattr(found, attribute, None)
        return found is not None
    return False


def test_every_file_and_name_of_the_architecture_exists() -> None:
    spans = CODE.findall(DOCS["architecture.md"])
    files = [span for span in spans if span.startswith(tuple(f"{house}/" for house in HOUSES))]
    names = [name for row in rows(DOCS["architecture.md"], "The path of a job") for name in CODE.findall(row[1])]
    assert len(files) > 80
    assert len(names) > 30
    assert [file for file in files if not (CHECKOUT / file).exists()] == []
    assert [name for name in names if not is_in_the_code(name)] == []


def test_every_table_of_the_databases_is_listed() -> None:
    told = {table for row in rows(DOCS["architecture.md"], "Databases") for table in row[2].split(", ")}
    sources = [
        *CHECKOUT.glob("*/tables.py"),
        *CHECKOUT.glob("*/*/tables.py"),
        *CHECKOUT.glob("agents/worker/journal/file.py"),
    ]
    there = {
        name
        for source in sources
        for name in re.findall(r'__tablename__ = "(\w+)"|CREATE TABLE (\w+)', source.read_text(encoding="utf-8"))
        for name in name
        if name
    }
    assert told == there
