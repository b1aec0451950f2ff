"""Log lines: one JSON object each, a fixed event name plus fields, to stderr or to a file.

Rules: the event name never varies (`job_claimed`, not a sentence), so the story of one job is one filter away; what
varies are fields. Fields named like a secret are blotted out at any depth, and so are user and password of URLs. Long
values are cut, because peers choose them. A line is made by the caller and written by a thread of its own, so a slow
disk does not hold up the event loop; when the queue is full, lines are dropped and counted.

Records of libraries come out in the same shape, as event `library_message`, from level WARNING on.
"""

import json
import logging
import logging.handlers
import queue
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from runtime.addresses import without_userinfo

MAX_VALUE_CHARS = 4000
MAX_DEPTH = 6
QUEUE_LINES = 10_000
REDACTED = "***"
_SECRET_NAMES = ("token", "secret", "password", "passwd", "authorization", "cookie", "private_key", "api_key")


class EventLogger:
    """A logger whose messages are an event name and fields; `bind` fixes fields such as the attempt."""

    def __init__(self, logger: logging.Logger, bound: Mapping[str, object]) -> None:
        self._logger = logger
        self._bound = bound

    def bind(self, **fields: object) -> "EventLogger":
        """Return a logger that adds `fields` to every line."""
        return EventLogger(self._logger, {**self._bound, **fields})

    def debug(self, event: str, /, **fields: object) -> None:
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        self._emit(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """Log an error with the traceback of the exception being handled."""
        self._emit(logging.ERROR, event, fields, with_traceback=True)

    def _emit(self, level: int, event: str, fields: Mapping[str, object], *, with_traceback: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            extra = {"event_fields": {**self._bound, **fields}}
            self._logger.log(level, event, extra=extra, exc_info=with_traceback)


def get_logger(name: str) -> EventLogger:
    """Return the logger of a module; call it with `__name__`."""
    return EventLogger(logging.getLogger(name), {})


@contextmanager
def log_to(target: Path | None, *, role: str, level: str = "INFO") -> Iterator[None]:
    """Write the process's log lines to the file `target` (appending), or to stderr; flush them all at the end."""
    writer = logging.FileHandler(target, encoding="utf-8") if target else logging.StreamHandler(sys.stderr)
    handler = _BoundedQueueHandler(role)
    listener = _PatientListener(handler.lines, writer)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    listener.start()
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        listener.stop()
        writer.close()


class _BoundedQueueHandler(logging.handlers.QueueHandler):
    def __init__(self, role: str) -> None:
        self.lines: queue.Queue[Any] = queue.Queue(QUEUE_LINES)
        super().__init__(self.lines)
        self.setFormatter(JsonLines(role))
        self.addFilter(_is_ours_or_alarming)
        self._dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self._dropped:
                self.lines.put_nowait(self.prepare(_dropped_record(self._dropped)))
                self._dropped = 0
            self.lines.put_nowait(record)
        except queue.Full:
            self._dropped += 1


class _PatientListener(logging.handlers.QueueListener):
    def __init__(self, lines: queue.Queue[Any], writer: logging.Handler) -> None:
        super().__init__(lines, writer)
        self._lines = lines

    def enqueue_sentinel(self) -> None:
        # The library's own gives up when the queue is full; the thread is emptying it, so waiting ends.
        self._lines.put(None)


def _is_ours_or_alarming(record: logging.LogRecord) -> bool:
    # What libraries tell at INFO (every HTTP request, every migration) is said by our own events where it matters.
    return hasattr(record, "event_fields") or record.levelno >= logging.WARNING


def _dropped_record(count: int) -> logging.LogRecord:
    fields = {"name": __name__, "msg": "log_lines_dropped", "levelno": logging.WARNING, "levelname": "WARNING"}
    return logging.makeLogRecord({**fields, "event_fields": {"count": count}})


class JsonLines(logging.Formatter):
    """Makes a record one line of JSON: `at`, `level`, `role`, `logger`, `event`, then the fields."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "event_fields", None)
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "role": self._role,
            "logger": record.name,
            "event": record.msg if fields is not None else "library_message",
        }
        if fields is None:
            fields = {"message": record.getMessage()}
        line |= {f"field_{name}" if name in line else name: redact(name, value) for name, value in fields.items()}
        if record.exc_info and record.exc_info[0]:
            line["traceback"] = _cut(self.formatException(record.exc_info))
        # Escaped ASCII: a peer's text can neither begin a new line nor steer a terminal.
        return json.dumps(line)


def redact(name: str, value: object, depth: int = 0) -> Any:
    """Return `value` as JSON-able data fit for a log, blotted out if `name` or a name inside it is a secret's."""
    if any(secret in name.lower() for secret in _SECRET_NAMES):
        return REDACTED
    if depth > MAX_DEPTH:
        return "..."
    if isinstance(value, Enum):
        return redact(name, value.value, depth + 1)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): redact(str(key), inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, bytes):
        return _cut(value[:MAX_VALUE_CHARS].hex())
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
        return [redact("", inner, depth + 1) for inner in value]
    return _cut(value.isoformat() if isinstance(value, datetime) else str(value))


def _cut(text: str) -> str:
    text = without_userinfo(text)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}... ({len(text)} characters)"
