"""Turns the bytes of a job's log into pieces of harmless text with a style each. Pure.

A log is hostile: the job, and so whoever wrote its sources, chooses every byte. What is kept: UTF-8 text, newlines,
tabs, and of ECMA-48 the sixteen colours and bold (SGR). All other escape sequences are dropped; control characters and
the ones that turn the direction of writing are shown, not obeyed. A lone carriage return begins a new line. Escaping
for HTML is not done here: pieces are text, and templates and the browser's script treat them as text.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

_CSI = rb"\x1b\[(?P<arguments>[0-?]*)[ -/]*(?P<final>[@-~])"
_OSC = rb"\x1b[\]PX^_][^\x07\x1b\n]{0,2000}(?:\x07|\x1b\\)"
_OTHER = rb"\x1b[ -/]*[0-OQ-WYZ`-~]"
_ESCAPE = re.compile(b"|".join((_CSI, _OSC, _OTHER)))
_UNFINISHED = re.compile(rb"(?:\r|\x1b(?:\[[0-?]{0,40}[ -/]{0,4}|[\]PX^_][^\x07\x1b\n]{0,2000}\x1b?|[ -/]{0,4})?)\Z")
_LINE_END = re.compile("\r\n?")
_DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class Style:
    """A foreground colour (0 to 15, None for the reader's own) and weight."""

    colour: int | None = None
    is_bold: bool = False

    @property
    def classes(self) -> str:
        """The style as CSS classes; empty for plain text."""
        colour = "" if self.colour is None else f"c{self.colour}"
        return f"{colour} b".strip() if self.is_bold else colour


PLAIN = Style()


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    classes: str = ""


@dataclass(frozen=True, slots=True)
class LogText:
    """What was read: its pieces, how many bytes they stand for, and the style that goes on after them."""

    pieces: tuple[Piece, ...]
    used_bytes: int
    style: Style


def read_log(data: bytes, style: Style = PLAIN, *, is_end: bool = True) -> LogText:
    """Read `data`, which begins in `style`; without `is_end` an unfinished end is left for the next time."""
    used = len(data) if is_end else _finished_length(data)
    pieces, style = _pieces(data[:used], style)
    return LogText(tuple(_joined(pieces)), used, style)


def _finished_length(data: bytes) -> int:
    """How much of `data` is read the same way whatever follows."""
    unfinished = _UNFINISHED.search(data, max(0, len(data) - 2100))
    end = unfinished.start() if unfinished else len(data)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    decoder.decode(data[max(0, end - 8) : end])
    return end - len(decoder.getstate()[0])


def _pieces(data: bytes, style: Style) -> tuple[list[Piece], Style]:
    pieces: list[Piece] = []
    position = 0
    for escape in _ESCAPE.finditer(data):
        pieces.append(Piece(_text(data[position : escape.start()]), style.classes))
        if escape["final"] == b"m":
            style = _restyled(style, escape["arguments"])
        position = escape.end()
    pieces.append(Piece(_text(data[position:]), style.classes))
    return pieces, style


def _joined(pieces: list[Piece]) -> Iterator[Piece]:
    """Neighbours of the same style as one piece; none is empty."""
    waiting = Piece("")
    for piece in pieces:
        if piece.classes == waiting.classes:
            waiting = Piece(waiting.text + piece.text, waiting.classes)
            continue
        if waiting.text:
            yield waiting
        waiting = piece
    if waiting.text:
        yield waiting


def _text(data: bytes) -> str:
    return _DANGEROUS.sub(_shown, _LINE_END.sub("\n", data.decode("utf-8", "replace")))


def _shown(match: re.Match[str]) -> str:
    """A character that is not to be obeyed: its picture if Unicode has one, else its number."""
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"‹U+{code:04X}›"


def _restyled(style: Style, arguments: bytes) -> Style:
    numbers = [int(part or b"0") if part.isdigit() or not part else -1 for part in arguments[:60].split(b";")]
    while numbers:
        number = numbers.pop(0)
        if number in (38, 48):
            colour = _extended(numbers)
            style = Style(colour, style.is_bold) if number == 38 and colour is not None else style
        else:
            style = _changed(style, number)
    return style


def _changed(style: Style, number: int) -> Style:
    match number:
        case 0:
            return PLAIN
        case 1:
            return Style(style.colour, True)
        case 22:
            return Style(style.colour, False)
        case 39:
            return Style(None, style.is_bold)
        case _ if 30 <= number <= 37:
            return Style(number - 30, style.is_bold)
        case _ if 90 <= number <= 97:
            return Style(number - 90 + 8, style.is_bold)
        case _:
            return style


def _extended(numbers: list[int]) -> int | None:
    """Take the arguments of 38 or 48 off the list; one of the sixteen colours is kept, the others have no class."""
    kind = numbers.pop(0) if numbers else -1
    taken, numbers[:] = numbers[: {5: 1, 2: 3}.get(kind, 0)], numbers[{5: 1, 2: 3}.get(kind, 0) :]
    return taken[0] if kind == 5 and taken and 0 <= taken[0] <= 15 else None
