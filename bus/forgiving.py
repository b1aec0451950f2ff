"""Lets the AMQP library read whatever strangers write beside their messages.

Any tenant chooses the properties of its messages, and the routing key where it publishes to a fanout exchange. RabbitMQ
passes their bytes on unread; the library (pamqp) raises where a text is not UTF-8 or an instant is beyond the calendar,
and its whole connection is lost: to all tenants, and again with each redelivery. None of it is evidence of anything
(DESIGN §6), so what cannot be read is read as something harmless.

The library offers no other place for this than its table of decoders, which is of the process: `install` changes it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pamqp import decode

Decoder = Callable[[bytes], tuple[int, Any]]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def install() -> None:
    """Replace the decoders of properties and method arguments; a second time changes nothing."""
    decode.METHODS.update(shortstr=short_text, timestamp=instant, table=table)


def short_text(value: bytes) -> tuple[int, str]:
    """A short string (AMQP 0-9-1 §4.2.5.3); what is not UTF-8 in it is replaced."""
    length = value[0] if value else 0
    return length + 1, value[1 : length + 1].decode("utf-8", "replace")


def instant(value: bytes) -> tuple[int, datetime]:
    return _forgiving(decode.timestamp, value, 8, _EPOCH)


def table(value: bytes) -> tuple[int, dict[str, Any]]:
    """A field table; an empty one where anything in it cannot be read."""
    return _forgiving(decode.field_table, value, 4 + int.from_bytes(value[:4], "big"), {})


def _forgiving(read: Decoder, value: bytes, length: int, otherwise: Any) -> tuple[int, Any]:
    try:
        return read(value)
    except (ValueError, OverflowError, OSError, ArithmeticError, IndexError, RecursionError):
        return length, otherwise
