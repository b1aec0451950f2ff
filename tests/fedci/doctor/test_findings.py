"""Checks are run side by side, each with a deadline; none hides what the others found."""

import asyncio
import json
from collections.abc import Sequence
from io import StringIO

from rich.console import Console

from fedci.doctor import screen
from fedci.doctor.findings import Check, Finding, Level, ok, run_checks, warn, wrong
from runtime.errors import OurFault

ALL = [ok("python", "3.11"), warn("clock", "off\nby much", "Set it."), wrong("disk", "full", "Free some.")]


async def fine() -> Sequence[Finding]:
    return [ok("fine", "yes")]


async def test_a_check_without_an_answer_is_wrong_after_its_deadline_and_the_others_answer() -> None:
    async def endless() -> Sequence[Finding]:
        await asyncio.Event().wait()
        raise AssertionError("never")

    late, other = await run_checks([Check("late", endless, deadline_seconds=0.01), Check("fine", fine)])
    assert (late.name, late.level) == ("late", Level.WRONG)
    assert "no answer within 0.01 s" in late.seen
    assert other == ok("fine", "yes")


async def test_our_own_error_is_told_with_its_place_and_remedy() -> None:
    async def refused() -> Sequence[Finding]:
        raise OurFault("cannot be used", where="desk.toml", remedy="Correct it.")

    assert await run_checks([Check("settings", refused)]) == [
        wrong("settings", "desk.toml: cannot be used", "Correct it.")
    ]


async def test_a_check_that_breaks_says_so_and_hides_nothing() -> None:
    async def broken() -> Sequence[Finding]:
        raise ZeroDivisionError("oh")

    found, other = await run_checks([Check("odd", broken), Check("fine", fine)])
    assert found.level is Level.WRONG
    assert "ZeroDivisionError" in found.seen
    assert other.level is Level.OK


async def test_checks_run_side_by_side() -> None:
    both = asyncio.Barrier(2)

    async def meet() -> Sequence[Finding]:
        await both.wait()
        return []

    assert await run_checks([Check("one", meet), Check("other", meet)]) == []


def test_plain_lines_show_remedies_only_where_something_is_to_be_done() -> None:
    out = StringIO()
    screen.show(ALL, Console(file=out, force_terminal=False))
    assert out.getvalue() == (
        "ok     python: 3.11\n"
        "warn   clock: off\n          by much\n"
        "       -> Set it.\n"
        "wrong  disk: full\n"
        "       -> Free some.\n"
        "1 ok, 1 warn, 1 wrong\n"
    )


def test_a_terminal_gets_a_table_in_which_nothing_is_taken_for_markup() -> None:
    out = StringIO()
    screen.show([warn("odd", "[red]x[/red]", "[link]")], Console(file=out, force_terminal=True, width=100))
    assert "[red]x[/red]" in out.getvalue()
    assert "how to mend it" in out.getvalue()


def test_json_has_the_four_facts_of_each() -> None:
    assert json.loads(screen.as_json(ALL))[2] == {
        "name": "disk",
        "level": "wrong",
        "seen": "full",
        "remedy": "Free some.",
    }
