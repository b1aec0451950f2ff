"""YAML for people: plain values, and the line and column that each of them stands at.

A reader of untrusted text: no tags but the plain ones, no merge keys, aliases only within a budget of nodes, and every
key once. Booleans are `true` and `false` alone; `yes`, `on` and the like stay text (as in YAML 1.2), so that a job may
be called `on`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]
NODES = 20_000
DEPTH = 12


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a text; both count from 1, as editors do."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a text, and where; `path` is the dotted path of the value, empty for the whole text."""

    mark: Mark
    path: str
    message: str

    def __str__(self) -> str:
        where = f"line {self.mark.line}, column {self.mark.column}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


@dataclass(frozen=True, slots=True)
class MarkedValue:
    """A YAML document as plain values (arrays are tuples), and the marks of its values and of its keys."""

    value: Any
    marks: dict[Path, Mark]
    key_marks: dict[Path, Mark]

    def mark_of(self, path: Path) -> Mark:
        """The mark of the value at `path`, or of its nearest parent that stands in the text."""
        while path not in self.marks and path:
            path = path[:-1]
        return self.marks.get(path, Mark(1, 1))


class _Unreadable(Exception):
    """Carries a problem out of the recursion to the one place that returns it."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


def read(text: bytes, is_text: Callable[[Path], bool]) -> MarkedValue | Problem:
    """Read one YAML document; where `is_text(path)` holds, a scalar is taken as it is written (`3.10` stays `3.10`)."""
    try:
        node = yaml.compose(text.decode("utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        return Problem(Mark(1, 1), "", f"the file is not UTF-8 text (byte {error.start})")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return Problem(_mark(mark), "", f"not YAML: {error.problem or error.context}")
    except (yaml.YAMLError, RecursionError) as error:
        return Problem(Mark(1, 1), "", f"not YAML: {error}"[:300])
    if node is None:
        return Problem(Mark(1, 1), "", "the file is empty")
    try:
        return _Reader(is_text).read(node)
    except _Unreadable as unreadable:
        return unreadable.problem


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1) if mark is not None else Mark(1, 1)


def dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


class _Reader:
    """One pass over the nodes of one document."""

    def __init__(self, is_text: Callable[[Path], bool]) -> None:
        self._is_text = is_text
        self._left = NODES
        self._marks: dict[Path, Mark] = {}
        self._key_marks: dict[Path, Mark] = {}

    def read(self, node: yaml.Node) -> MarkedValue:
        return MarkedValue(self._value(node, ()), self._marks, self._key_marks)

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._left -= 1
        if self._left < 0 or len(path) > DEPTH:
            raise _Unreadable(Problem(_mark(node.start_mark), dotted(path), "nested or repeated beyond measure"))
        self._marks[path] = _mark(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return tuple(self._value(item, (*path, index)) for index, item in enumerate(node.value))
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key in result:
                first = self._key_marks[(*path, key)].line
                message = f"`{key}` stands twice; the first one is in line {first}"
                raise _Unreadable(Problem(_mark(key_node.start_mark), dotted((*path, key)), message))
            self._key_marks[(*path, key)] = _mark(key_node.start_mark)
            result[key] = self._value(value_node, (*path, key))
        return result

    def _key(self, node: yaml.Node, path: Path) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise _Unreadable(Problem(_mark(node.start_mark), dotted(path), "a key is plain text"))
        if node.tag == "tag:yaml.org,2002:merge":
            raise _Unreadable(Problem(_mark(node.start_mark), dotted(path), "merge keys (`<<`) are not read here"))
        return str(node.value)

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        if node.tag.removeprefix("tag:yaml.org,2002:") not in _PLAIN_TAGS:
            raise _Unreadable(Problem(_mark(node.start_mark), dotted(path), f"the tag {node.tag} has no meaning here"))
        text = str(node.value)
        is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return text if not is_plain or self._is_text(path) else _plain(text)


_PLAIN_TAGS = frozenset({"str", "int", "float", "bool", "null", "timestamp", "value"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


def _plain(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _INTEGER.fullmatch(text) else text
