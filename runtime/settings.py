"""A role's settings: one TOML file, read once, into one frozen model.

Rules: types are strict (a string is no number), unknown keys are errors with the nearest known key as a hint, and all
problems are told at once, each with its dotted key and what was expected. Values are never repeated in a message, for
they may be secrets. The environment is not read here; `init` writes the commented file.

TOML is handed to pydantic as JSON, because strict JSON input still knows paths, enumerations, decimals and tuples.
TOML: https://toml.io/en/v1.0.0.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from runtime.addresses import Listen, check_amqp_url, check_http_url
from runtime.errors import OurFault

__all__ = ["AmqpUrl", "HttpUrl", "Listen", "Settings", "SettingsError", "TlsFiles", "load"]

HttpUrl = Annotated[str, AfterValidator(check_http_url)]
AmqpUrl = Annotated[str, AfterValidator(check_amqp_url)]
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_JSON_TYPES = {dict: "a table", list: "an array", str: "a string", bool: "true or false", int: "a number"}


class Settings(BaseModel):
    """Base of every settings model and of every table inside one."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class TlsFiles(Settings):
    """A certificate chain and its private key, in PEM files."""

    certificate: Path
    key: Path


class SettingsError(OurFault):
    """The settings file cannot be used; the message lists every problem."""


SettingsT = TypeVar("SettingsT", bound=Settings)


def load(path: Path, model: type[SettingsT]) -> SettingsT:
    """Return the settings in the TOML file at `path`; raises SettingsError with every problem in it."""
    document = _parse(path, _read(path))
    try:
        return model.model_validate_json(json.dumps(document, default=_as_json))
    except ValidationError as error:
        problems = [_describe(problem, model) for problem in error.errors(include_url=False)]
        raise SettingsError(
            "\n  ".join([f"{len(problems)} problem(s) in the settings", *problems]),
            where=str(path),
            remedy="Correct the file and start again.",
        ) from None  # the cause would repeat the values


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingsError(
            "there is no such settings file",
            where=str(path),
            remedy="Make the directory with the role's `init` command, or name another directory.",
        ) from error
    except OSError as error:
        raise SettingsError(
            f"cannot read the settings ({error.strerror})", where=str(path), remedy="See who owns the file."
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"not UTF-8 text at byte {error.start}", where=str(path), remedy="Save the file as UTF-8."
        ) from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = _TOML_PLACE.search(message)
        line, column = (place[1], place[2]) if place and place[1] else (str(len(text.splitlines()) or 1), "1")
        raise SettingsError(
            f"not valid TOML: {_TOML_PLACE.sub('', message)}",
            where=f"{path}:{line}:{column}",
            remedy='Correct the line: a setting is written `key = value`, text in "quotes".',
        ) from None


def _as_json(value: object) -> str:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _describe(problem: Any, model: type[BaseModel]) -> str:
    location = problem["loc"]
    key = _dotted(location) or "(the whole file)"
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key{_hint(location, model)}"
    if problem["type"] == "missing":
        return f"{key}: missing; this setting has no default"
    expected = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    found = "" if problem["type"] == "value_error" else _found(problem["input"])
    return f"{key}: {expected}{found}"


def _found(value: object) -> str:
    return f", found {_JSON_TYPES[type(value)]}" if type(value) in _JSON_TYPES else ""


def _dotted(location: Iterable[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _hint(location: tuple[str | int, ...], model: type[BaseModel]) -> str:
    known = sorted(_keys_at(location[:-1], model))
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; known here: {', '.join(known)}" if known else ""


def _keys_at(location: tuple[str | int, ...], model: type[BaseModel]) -> set[str]:
    """Return the keys that the table at `location` may have, following the annotations of the models."""
    tables = [model]
    for part in location:
        inner = [field.annotation for table in tables for name, field in _fields(table) if name == part]
        # A part that is no field is a key of a mapping, a list index or a union's tag: still the same models.
        tables = [found for annotation in inner for found in _models_in(annotation)] or tables
    return {name for table in tables for name, _ in _fields(table)}


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        yield field.alias or name, field


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
