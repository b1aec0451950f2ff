"""Payloads: parsed strictly, or refused with the place that is wrong."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import reports, wire
from schemas.refusals import Reason, Refusal
from schemas.wire import Message
from tests.schemas.samples import SAMPLES

LOG = next(message for message in SAMPLES if isinstance(message, reports.Log))


def refused(payload: bytes) -> str:
    result = reports.Log.from_payload(payload)
    assert isinstance(result, Refusal)
    assert result.reason is Reason.MALFORMED_PAYLOAD
    return result.detail


def log_with(**changes: Any) -> bytes:
    packed: bytes = msgpack.packb({**wire.unpack_map(LOG.to_payload()), **changes}, use_bin_type=True)
    return packed


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"sequence": "0"}, "sequence"),
        ({"sequence": -1}, "sequence"),
        ({"sequence": 0.0}, "sequence"),
        ({"sequence": True}, "sequence"),
        ({"sequence": 2**53}, "sequence"),
        ({"data": b""}, "data"),
        ({"data": "text"}, "data"),
        ({"data": b"x" * (64 * 1024 + 1)}, "data"),
        ({"made_at": "2026-01-01"}, "made_at"),
        ({"made_at": 10**18}, "made_at"),
        ({"agent": "W7"}, "agent"),
        ({"agent": "w7\n"}, "agent"),
        ({"claim": "c123"}, "claim"),
        ({"attempt": None}, "attempt"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_field_of_another_type_or_range_is_refused_by_name(changes: dict[str, Any], place: str) -> None:
    assert f"fedci.log/1: {place}" in refused(log_with(**changes))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x90",
        b"\xc0",
        b"\x82\xa1a\x01\xa1a\x02",
        b"\x81\xa1a\xd6\xff\x00\x00\x00\x01",
        b"\x81\xa1a\xd4\x05\x00",
        b"\x81\x01\x01",
        b"\x81\xa1a" + b"\x91" * 20 + b"\xc0",
        b"\x81\xa1a" * 3000,
        b"\x81\xa1a\x01\x01",
    ],
    ids=["empty", "array", "nil", "key-twice", "timestamp", "extension", "number-key", "deep", "deeper", "trailing"],
)
def test_msgpack_that_is_not_one_plain_map_is_refused(payload: bytes) -> None:
    refused(payload)


@given(st.sampled_from(SAMPLES), st.binary(max_size=200))
def test_no_payload_makes_a_parser_raise(message: Message, payload: bytes) -> None:
    assert isinstance(type(message).from_payload(payload), Refusal)


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)))  # noqa: DTZ001
def test_an_instant_keeps_its_milliseconds(at: datetime) -> None:
    aware = at.replace(tzinfo=UTC)
    assert abs((wire.from_milliseconds(wire.to_milliseconds(aware)) - aware).total_seconds()) < 0.001


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e400", "1e-400", "1" * 41, "one", "", "1,5"])
def test_a_number_that_is_no_finite_decimal_is_refused(text: str) -> None:
    heartbeat = next(message for message in SAMPLES if isinstance(message, reports.Heartbeat))
    fields = wire.unpack_map(heartbeat.to_payload())
    fields["used"]["cpu_seconds"] = text
    assert isinstance(reports.Heartbeat.from_payload(msgpack.packb(fields)), Refusal)


@given(st.decimals(min_value=0, max_value=10**15, places=6))
def test_a_decimal_comes_back_exactly(value: Decimal) -> None:
    used = reports.Used(wall_seconds=value, cpu_seconds=Decimal(0), memory_peak_bytes=0, is_estimate=True)
    again = reports.Used.model_validate(used.model_dump())
    assert again.wall_seconds == value


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "a/../b", "a//b", "./a", "a/.", "", "a\\b", "a\x00b", "a\n"])
def test_a_workspace_path_never_leaves_the_workspace(path: str) -> None:
    with pytest.raises(ValueError, match="path here"):
        reports.ArtifactFile(artifact="a", path=path, digest="0" * 64, size_bytes=0)
