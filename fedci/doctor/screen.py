"""Findings for people (a table on a terminal, plain lines elsewhere) and for machines (JSON)."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedci.doctor.findings import Finding, Level

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.WRONG: "bold red"}


def as_json(findings: Sequence[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False)


def show(findings: Sequence[Finding], console: Console) -> None:
    if console.is_terminal:
        console.print(table(findings))
        console.print(summary(findings))
        return
    for line in lines(findings):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def table(findings: Sequence[Finding]) -> Table:
    made = Table("", "what", "seen", "how to mend it", show_lines=False)
    for finding in findings:
        # Text, not markup: what was seen came from files and other machines.
        level = Text(finding.level, style=_STYLES[finding.level])
        made.add_row(level, Text(finding.name), Text(finding.seen), Text(finding.remedy))
    return made


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{finding.level:<5}  {finding.name}: {_indented(finding.seen)}"
        if finding.remedy and finding.level is not Level.OK:
            yield f"       -> {_indented(finding.remedy)}"
    yield summary(findings)


def summary(findings: Sequence[Finding]) -> str:
    counted = Counter(finding.level for finding in findings)
    return ", ".join(f"{counted[level]} {level}" for level in Level)


def _indented(text: str) -> str:
    return text.strip().replace("\n", "\n          ")
