"""How values are written for people: times, durations, sizes, money. Pure.

Times are UTC. A duration has at most two units, a size one; a thing that is not there is an en dash.
"""

from datetime import datetime
from decimal import Decimal

NOTHING = "–"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(seconds: float | None) -> str:
    """`4.2 s`, `2 min 05 s`, `3 h 07 min`, `2 d 04 h`."""
    if seconds is None:
        return NOTHING
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller_size:02d} {smaller}"
    return f"{whole} s"


def between(start: datetime | None, end: datetime | None) -> str:
    return NOTHING if start is None or end is None else duration((end - start).total_seconds())


def age(at: datetime | None, now: datetime) -> str:
    """`just now`, `5 min ago`, `3 h ago`; a date from a week on."""
    if at is None:
        return NOTHING
    seconds = (now - at).total_seconds()
    if seconds < 10:
        return "just now"
    if seconds >= 7 * 86400:
        return f"{at:%Y-%m-%d}"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"


def instant(at: datetime | None) -> str:
    return NOTHING if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def size(count: int | None) -> str:
    """`17 B`, `4.2 KiB`."""
    if count is None:
        return NOTHING
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def number(value: Decimal | int) -> str:
    """A quantity without needless zeros, its thousands apart."""
    text = f"{value:,f}" if isinstance(value, Decimal) else f"{value:,}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace(",", "\u202f")


def short(digest: str) -> str:
    """The beginning of a digest or commit id; other revisions as they are."""
    is_hex = len(digest) >= 40 and all(character in "0123456789abcdef" for character in digest[:40])
    return digest[:10] + digest[40:] if is_hex and len(digest) != 64 else digest[:12] if is_hex else digest
