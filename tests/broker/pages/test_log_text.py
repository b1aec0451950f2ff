"""Hostile bytes become harmless text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.pages.log_text import PLAIN, Piece, Style, read_log

HARMLESS = re.compile("[^\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]*")


def text_of(data: bytes) -> str:
    return "".join(piece.text for piece in read_log(data).pieces)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain\n", "plain\n"),
        (b"a\r\nb", "a\nb"),
        (b"10%\r20%", "10%\n20%"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"bell\x07", "bell\u2407"),
        (b"\x1b[2J\x1b[1;1Hwiped", "wiped"),
        (b"\x1b]0;title\x07x", "x"),
        (b"\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1bP1$tx\x1b\\y", "y"),
        (b"\x1b(Bx", "x"),
        ("\u202eevil".encode(), "‹U+202E›evil"),
        (b"\x1b]0;never ended\nnext line", "\u241b]0;never ended\nnext line"),
    ],
)
def test_text_stays_and_control_is_shown_or_dropped(data: bytes, text: str) -> None:
    assert text_of(data) == text


@pytest.mark.parametrize(
    ("sequence", "classes"),
    [
        (b"\x1b[31m", "c1"),
        (b"\x1b[1;32m", "c2 b"),
        (b"\x1b[97m", "c15"),
        (b"\x1b[31;0m", ""),
        (b"\x1b[31m\x1b[m", ""),
        (b"\x1b[31;39;1;22m", ""),
        (b"\x1b[38;5;9m", "c9"),
        (b"\x1b[38;5;200m", ""),
        (b"\x1b[38;2;1;2;3;1m", "b"),
        (b"\x1b[48;5;1m", ""),
        (b"\x1b[38m", ""),
        (b"\x1b[4;7;58;99999999999m", ""),
    ],
)
def test_of_styles_the_sixteen_colours_and_bold_are_kept(sequence: bytes, classes: str) -> None:
    assert read_log(sequence + b"x").pieces == (Piece("x", classes),)


@given(st.binary())
def test_no_bytes_make_text_that_is_obeyed(data: bytes) -> None:
    for piece in read_log(data).pieces:
        assert HARMLESS.fullmatch(piece.text)
        assert re.fullmatch(r"(c(1?[0-9]))?( ?b)?", piece.classes)


@given(
    st.lists(
        st.sampled_from([b"a", b"\n", b"\r", "\u20ac".encode(), b"\x1b[31m", b"\x1b[0m", b"\x1b]0;t\x07", b"\xff"])
    )
    .map(b"".join)
    .flatmap(lambda data: st.tuples(st.just(data), st.integers(0, len(data))))
)
def test_a_log_reads_the_same_however_it_is_cut(cut: tuple[bytes, int]) -> None:
    data, at = cut
    first = read_log(data[:at], is_end=False)
    rest = read_log(data[first.used_bytes :], first.style)
    joined = "".join(piece.text for piece in (*first.pieces, *rest.pieces))
    assert joined == text_of(data)
    assert rest.style == read_log(data).style


def test_an_escape_sequence_that_never_ends_holds_nothing_up_for_ever() -> None:
    data = b"\x1b]0;" + b"x" * 5000
    assert read_log(data, is_end=False).used_bytes == len(data)


def test_a_style_goes_on_where_the_last_window_ended() -> None:
    assert read_log(b"x", Style(1, True)).pieces == (Piece("x", "c1 b"),)
    assert read_log(b"", PLAIN).pieces == ()
