"""How a value becomes the payload bytes of an envelope, and back.

A payload is one msgpack map. Parsing is strict: unknown and repeated keys, other types, extension types, trailing
bytes and deep nesting are refused. There is no canonical form: whoever keeps a message keeps its bytes (DESIGN §5).
"""

from collections.abc import Hashable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

import msgpack
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
)

from schemas import limits
from schemas.refusals import Reason, Refusal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LAST_MILLISECOND = 253_402_300_799_999  # the end of the year 9999


def to_milliseconds(at: datetime) -> int:
    """Milliseconds since the epoch; finer parts are cut off."""
    return (at - _EPOCH) // _MILLISECOND


def from_milliseconds(value: int) -> datetime:
    return _EPOCH + value * _MILLISECOND


def _read_instant(value: object) -> object:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("an instant carries its time zone")
        return from_milliseconds(to_milliseconds(value))
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LAST_MILLISECOND:
        raise ValueError("an instant is a whole number of milliseconds since 1970")
    return from_milliseconds(value)


def _read_decimal(value: object) -> object:
    if isinstance(value, Decimal):
        number = value
    elif isinstance(value, str) and len(value) <= 40:
        try:
            number = Decimal(value)
        except InvalidOperation:
            raise ValueError("a decimal number is written as a string of digits") from None
    else:
        raise ValueError("a decimal number is written as a string of digits")
    if not number.is_finite() or number.adjusted() > 24 or -int(number.as_tuple().exponent) > 12:
        raise ValueError("a decimal number is finite, below 10^25 and has at most 12 decimals")
    return number


def _decimal_text(value: Decimal) -> str:
    return format(value, "f")


Instant = Annotated[datetime, BeforeValidator(_read_instant), PlainSerializer(to_milliseconds, return_type=int)]
"""An aware UTC datetime; whole milliseconds since the epoch on the wire."""

Number = Annotated[Decimal, BeforeValidator(_read_decimal), PlainSerializer(_decimal_text, return_type=str)]
"""An exact decimal; a string on the wire."""

Count = Annotated[int, Field(ge=0, lt=2**53)]
Text = Annotated[str, StringConstraints(max_length=limits.TEXT_CHARACTERS)]
Script = Annotated[str, StringConstraints(max_length=limits.SCRIPT_CHARACTERS)]
PublicKey = Annotated[bytes, Field(min_length=32, max_length=32)]
"""A raw Ed25519 or X25519 public key (RFC 8032, RFC 7748)."""
IssuerUrl = Annotated[str, StringConstraints(pattern=r"^https?://[!-~]+$", max_length=300)]
Subject = Annotated[str, StringConstraints(pattern=r"^[!-~]+$", max_length=200)]
Audience = Annotated[str, StringConstraints(pattern=r"^[!-~]+$", max_length=200)]


def _check_workspace_path(path: str) -> str:
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts):
        raise ValueError("a path here is relative and has no empty part, `.` or `..`")
    if "\\" in path or any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise ValueError("a path here has no backslash and no control character")
    return path


WorkspacePath = Annotated[str, StringConstraints(max_length=400), AfterValidator(_check_workspace_path)]
"""A relative path without `.`, `..`, empty parts, control characters or backslashes."""


class Kind(StrEnum):
    """The four kinds of envelope; each has its own verifier in `identity.trust`."""

    ORDER = "order"
    REPORT = "report"
    TICKET = "ticket"
    STATEMENT = "statement"


class Part(BaseModel):
    """A piece of a message: strict, closed, frozen."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class Message(Part):
    """What an envelope carries. Subclasses name their wire type, which ends in `/N`, their version."""

    TYPE: ClassVar[str]
    KIND: ClassVar[Kind]
    MAX_BYTES: ClassVar[int] = limits.MESSAGE_BYTES
    CARRIES_TOKEN: ClassVar[bool]

    @property
    def duplicate_key(self) -> tuple[Hashable, ...]:
        """What makes two envelopes of this type the same message (DESIGN §5, column *duplicate key*)."""
        raise NotImplementedError(f"{type(self).__name__} names its duplicate key")

    def to_payload(self) -> bytes:
        packed: bytes = msgpack.packb(self.model_dump(), use_bin_type=True)
        return packed

    @classmethod
    def from_payload(cls, payload: bytes) -> Self | Refusal:
        """Parse exactly these bytes, or say what is wrong with them."""
        try:
            return cls.model_validate(unpack_map(payload))
        except ValidationError as error:
            return Refusal(Reason.MALFORMED_PAYLOAD, _first_error(cls.TYPE, error))
        except ValueError as error:
            return Refusal(Reason.MALFORMED_PAYLOAD, f"{cls.TYPE}: {error}")


def _first_error(name: str, error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:200] or "the message"
    return f"{name}: {where}: {first['msg']}"[:500]


def unpack_map(payload: bytes) -> dict[str, Any]:
    """Decode one msgpack map with text keys; arrays become tuples.

    Raises `ValueError` for anything else: repeated keys, extension types, trailing bytes, nesting deeper than
    `limits.PAYLOAD_DEPTH`, lengths that the bytes cannot hold.
    """
    value = unpack(payload)
    if not isinstance(value, dict):
        raise ValueError("a payload is one map")
    return value


def unpack(data: bytes) -> Any:
    """Decode one msgpack value with the rules of `unpack_map`."""
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            use_list=False,
            strict_map_key=True,
            object_pairs_hook=_refuse_repeated_keys,
            ext_hook=_refuse_extension,
        )
    except (msgpack.UnpackException, ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"not one well-formed msgpack value ({type(error).__name__})") from error
    _check_nesting(value, limits.PAYLOAD_DEPTH)
    return value


def _refuse_repeated_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice in one map")
    return result


def _refuse_extension(code: int, _data: bytes) -> object:
    raise ValueError(f"extension type {code} has no meaning here")


def _check_nesting(value: Any, depth: int) -> None:
    if isinstance(value, msgpack.Timestamp):
        raise ValueError("extension type -1 has no meaning here")
    if not isinstance(value, (dict, tuple)):
        return
    if depth == 0:
        raise ValueError(f"nested deeper than {limits.PAYLOAD_DEPTH}")
    for inner in value.values() if isinstance(value, dict) else value:
        _check_nesting(inner, depth - 1)
