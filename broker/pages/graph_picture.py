"""Lays out the graph of a run for a drawing: columns by what a job needs, lines from need to job. Pure.

A job stands one column to the right of the furthest of its needs. Within a column jobs are ordered by where their
needs stand, so that few lines cross. The drawing repeats what the table below it says, for those who see it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BOX_WIDTH = 192
BOX_HEIGHT = 44
_GAP_X = 52
_GAP_Y = 16
_MARGIN = 2
NAME_CHARACTERS = 20


@dataclass(frozen=True, slots=True)
class Box:
    name: str
    x: int
    y: int

    @property
    def short_name(self) -> str:
        return self.name if len(self.name) <= NAME_CHARACTERS else f"{self.name[: NAME_CHARACTERS - 1]}…"


@dataclass(frozen=True, slots=True)
class Line:
    """From a need to the job that waits for it; `path` is the `d` of an SVG path."""

    need: str
    job: str
    path: str


@dataclass(frozen=True, slots=True)
class Picture:
    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


def draw(needs: Mapping[str, Sequence[str]]) -> Picture:
    """Lay out jobs, given what each needs, in the order of the pipeline."""
    columns = _columns(needs)
    rows = max((len(column) for column in columns), default=0)
    boxes: dict[str, Box] = {}
    for index, column in enumerate(columns):
        top = (rows - len(column)) * (BOX_HEIGHT + _GAP_Y) // 2
        ordered = sorted(column, key=lambda name: _middle(needs[name], boxes))
        for row, name in enumerate(ordered):
            y = _MARGIN + top + row * (BOX_HEIGHT + _GAP_Y)
            boxes[name] = Box(name, _MARGIN + index * (BOX_WIDTH + _GAP_X), y)
    lines = tuple(_line(boxes[need], boxes[name]) for name in needs for need in needs[name] if need in boxes)
    width = len(columns) * (BOX_WIDTH + _GAP_X) - _GAP_X + 2 * _MARGIN
    height = rows * (BOX_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN
    return Picture(width, height, tuple(boxes[name] for name in needs), lines)


def _columns(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    depth: dict[str, int] = {}
    for _ in needs:
        for name in needs:
            depth[name] = max((depth.get(need, 0) + 1 for need in needs[name] if need in needs), default=0)
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in needs:
        columns[depth[name]].append(name)
    return [column for column in columns if column]


def _middle(needs: Sequence[str], boxes: Mapping[str, Box]) -> float:
    heights = [boxes[need].y for need in needs if need in boxes]
    return sum(heights) / len(heights) if heights else 0


def _line(need: Box, job: Box) -> Line:
    start_x, start_y = need.x + BOX_WIDTH, need.y + BOX_HEIGHT // 2
    end_x, end_y = job.x, job.y + BOX_HEIGHT // 2
    bend = _GAP_X // 2
    path = f"M{start_x} {start_y}C{start_x + bend} {start_y} {end_x - bend} {end_y} {end_x} {end_y}"
    return Line(need.name, job.name, path)
