"""What stands in a log line, and what never does."""

import json
import logging
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.logging import MAX_VALUE_CHARS, REDACTED, EventLogger, _BoundedQueueHandler, get_logger, log_to, redact


class Colour(StrEnum):
    RED = "red"


LOGGER = get_logger("runtime.test")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_an_event_with_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with log_to(path, role="desk"):
        LOGGER.bind(attempt="a1").info("job_claimed", slot=2, at_least=datetime(2026, 1, 1, tzinfo=UTC), c=Colour.RED)
    (line,) = lines(path)
    assert line.pop("at").endswith("+00:00")
    assert line == {
        "level": "info",
        "role": "desk",
        "logger": "runtime.test",
        "event": "job_claimed",
        "attempt": "a1",
        "slot": 2,
        "at_least": "2026-01-01T00:00:00+00:00",
        "c": "red",
    }


def test_lines_go_to_stderr_without_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    with log_to(None, role="desk"):
        LOGGER.warning("odd")
    assert json.loads(capfd.readouterr().err)["event"] == "odd"


def test_below_the_level_nothing_is_written(tmp_path: Path) -> None:
    with log_to(tmp_path / "log", role="desk", level="WARNING"):
        LOGGER.info("chatter")
    assert lines(tmp_path / "log") == []


def test_a_librarys_message_has_the_same_shape_and_no_password(tmp_path: Path) -> None:
    with log_to(tmp_path / "log", role="desk"):
        logging.getLogger("aio_pika").warning("lost %s", "amqp://bob:hunter2@h/")
    (line,) = lines(tmp_path / "log")
    assert (line["event"], line["message"]) == ("library_message", "lost amqp://***@h/")


def test_a_traceback_is_a_field_of_one_line(tmp_path: Path) -> None:
    with log_to(tmp_path / "log", role="desk"):
        try:
            raise RuntimeError("two\nlines at amqp://bob:hunter2@h/")
        except RuntimeError:
            LOGGER.exception("crashed")
    (line,) = lines(tmp_path / "log")
    assert "RuntimeError: two\nlines" in line["traceback"]
    assert "hunter2" not in line["traceback"]


def test_a_field_cannot_take_the_place_of_a_fixed_one(tmp_path: Path) -> None:
    with log_to(tmp_path / "log", role="desk"):
        LOGGER.info("real", role="fake")
    (line,) = lines(tmp_path / "log")
    assert (line["role"], line["field_role"]) == ("desk", "fake")


def test_dropped_lines_are_counted_and_none_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.logging.QUEUE_LINES", 2)
    handler = _BoundedQueueHandler("desk")
    for number in range(5):
        handler.handle(logging.makeLogRecord({"msg": "flood", "event_fields": {"number": number}}))
    kept = [json.loads(handler.lines.get_nowait().getMessage()) for _ in range(2)]
    assert [line["number"] for line in kept] == [0, 1]
    handler.handle(logging.makeLogRecord({"msg": "later", "event_fields": {}}))
    told, later = (json.loads(handler.lines.get_nowait().getMessage()) for _ in range(2))
    assert (told["event"], told["count"], later["event"]) == ("log_lines_dropped", 3, "later")


def test_a_flood_still_ends_when_the_log_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.logging.QUEUE_LINES", 1)
    with log_to(tmp_path / "log", role="desk"):
        for number in range(200):
            LOGGER.info("flood", number=number)
    assert lines(tmp_path / "log")


@pytest.mark.parametrize("name", ["token", "api_token", "Authorization", "client_secret", "PASSWORD", "set-cookie"])
def test_fields_named_like_a_secret_are_blotted_out_at_any_depth(name: str) -> None:
    assert redact(name, "hunter2") == REDACTED
    assert redact("peers", [{"headers": {name: ["hunter2"]}}]) == [{"headers": {name: REDACTED}}]


def test_long_values_are_cut() -> None:
    assert len(redact("body", "x" * 10**6)) < MAX_VALUE_CHARS + 50
    assert len(redact("body", b"x" * 10**6)) < MAX_VALUE_CHARS + 50


def test_an_endless_structure_ends() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert "..." in json.dumps(redact("loop", loop))


@given(st.recursive(st.one_of(st.none(), st.text(), st.binary(), st.floats(), st.uuids()), st.lists, max_leaves=5))
def test_anything_becomes_one_line(value: object) -> None:
    assert "\n" not in json.dumps(redact("value", value))


def test_a_logger_without_a_target_is_harmless() -> None:
    assert isinstance(LOGGER, EventLogger)
    LOGGER.debug("nowhere")
