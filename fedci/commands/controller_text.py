"""Text on a terminal: what comes from providers and jobs is shown, never obeyed."""

from collections.abc import Sequence

import typer


def harmless(data: bytes) -> str:
    """Text without escape sequences and control characters."""
    from broker.pages.log_text import read_log

    return "".join(piece.text for piece in read_log(data).pieces)


def say(text: str, *, err: bool = False) -> None:
    """Print text that may hold what strangers wrote."""
    typer.echo(harmless(text.encode("utf-8", "replace")), err=err)


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as aligned columns, for people and for `awk` alike."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))] if rows else []
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
