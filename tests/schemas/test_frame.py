"""The envelope: what it carries comes back exactly, and nothing of it can be changed."""

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from schemas import frame, limits, registry
from schemas.frame import UnverifiedFrame
from schemas.refusals import Reason, Refusal
from schemas.wire import Message
from tests.schemas.samples import SAMPLES

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()


def sealed(message: Message) -> bytes:
    return frame.seal(message, KEY, "header.claims.signature" if message.CARRIES_TOKEN else None)


def opened(raw: bytes) -> UnverifiedFrame:
    result = frame.split(raw)
    assert isinstance(result, UnverifiedFrame)
    return result


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: message.TYPE)
def test_every_message_comes_back_as_it_was_sent(message: Message) -> None:
    envelope = opened(sealed(message))
    model = registry.find(envelope.type)
    assert not isinstance(model, Refusal)
    assert envelope.is_signed_by(PUBLIC)
    assert model.from_payload(envelope.payload) == message


def test_the_samples_cover_every_type() -> None:
    assert {type(message) for message in SAMPLES} == set(registry.MESSAGES)


def test_every_type_name_ends_in_its_version() -> None:
    assert all(message.TYPE.startswith("fedci.") and message.TYPE.endswith("/1") for message in registry.MESSAGES)


@given(st.sampled_from(SAMPLES), st.data())
def test_an_envelope_with_any_byte_flipped_is_refused(message: Message, data: st.DataObject) -> None:
    raw = bytearray(sealed(message))
    token_bytes = len(b"header.claims.signature") if message.CARRIES_TOKEN else 0
    # The token is bound by its hash inside the payload, which identity.trust compares; here we flip all the rest.
    position = data.draw(st.integers(0, len(raw) - 1 - token_bytes))
    raw[position] ^= data.draw(st.integers(1, 255))
    changed = frame.split(bytes(raw))
    if isinstance(changed, UnverifiedFrame):
        untouched = changed.payload == message.to_payload() and changed.type == message.TYPE
        assert not changed.is_signed_by(PUBLIC) or (untouched and changed.token != opened(sealed(message)).token)


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_never_raises(raw: bytes) -> None:
    result = frame.split(raw)
    assert isinstance(result, (Refusal, UnverifiedFrame))


def array(*parts: object) -> bytes:
    packed: bytes = msgpack.packb(list(parts), use_bin_type=True)
    return packed


SIGNATURE = bytes(64)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Reason.MALFORMED_FRAME),
        (b"\xc1", Reason.MALFORMED_FRAME),
        (array(), Reason.MALFORMED_FRAME),
        (array(1, "fedci.log/1", b"", SIGNATURE), Reason.MALFORMED_FRAME),
        (array(1, "fedci.log/1", b"", SIGNATURE, None, None), Reason.MALFORMED_FRAME),
        (array(1, "fedci.log/1", b"", SIGNATURE, None) + b"\x00", Reason.MALFORMED_FRAME),
        (array(2, "fedci.log/1", b"", SIGNATURE, None), Reason.UNKNOWN_VERSION),
        (array(True, "fedci.log/1", b"", SIGNATURE, None), Reason.UNKNOWN_VERSION),
        (array(1, "", b"", SIGNATURE, None), Reason.MALFORMED_FRAME),
        (array(1, "x" * 65, b"", SIGNATURE, None), Reason.MALFORMED_FRAME),
        (array(1, b"fedci.log/1", b"", SIGNATURE, None), Reason.MALFORMED_FRAME),
        (array(1, "fedci.log/1", "text", SIGNATURE, None), Reason.MALFORMED_FRAME),
        (array(1, "fedci.log/1", b"", SIGNATURE[1:], None), Reason.MALFORMED_FRAME),
        (array(1, "fedci.log/1", b"", SIGNATURE, b"token"), Reason.MALFORMED_FRAME),
        (array(1, "fedci.log/1", b"", SIGNATURE, "t" * (limits.TOKEN_BYTES + 1)), Reason.MALFORMED_FRAME),
        (b"\x91" * 2000, Reason.MALFORMED_FRAME),
        (b"\xdd\xff\xff\xff\xff", Reason.MALFORMED_FRAME),
        (b"x" * (limits.BUS_MESSAGE_BYTES + 1), Reason.TOO_LARGE),
    ],
)
def test_a_frame_of_another_shape_is_refused(raw: bytes, reason: Reason) -> None:
    result = frame.split(raw)
    assert isinstance(result, Refusal)
    assert result.reason is reason


def test_a_payload_signed_under_one_type_is_not_valid_under_another() -> None:
    log, heartbeat = (m for m in SAMPLES if m.TYPE in ("fedci.log/1", "fedci.heartbeat/1"))
    envelope = opened(sealed(log))
    disguised = opened(array(1, heartbeat.TYPE, envelope.payload, envelope.signature, None))
    assert not disguised.is_signed_by(PUBLIC)


def test_sealing_refuses_a_token_out_of_place_and_a_message_over_its_limit() -> None:
    order, report = SAMPLES[0], next(m for m in SAMPLES if m.TYPE == "fedci.log/1")
    with pytest.raises(ValueError, match="carries a token"):
        frame.seal(order, KEY)
    with pytest.raises(ValueError, match="does not carry a token"):
        frame.seal(report, KEY, "token")
    oversized = order.model_copy(update={"env": {f"NAME_{n}": "x" * 4096 for n in range(150)}})
    with pytest.raises(ValueError, match="over its limit"):
        frame.seal(oversized, KEY, "token")


def test_an_unknown_type_is_told_from_a_known_one_in_another_version() -> None:
    assert registry.find("fedci.job/2") == Refusal(Reason.UNKNOWN_VERSION, "fedci.job/2 is not spoken here")
    unknown = registry.find("fedci.coffee/1")
    assert isinstance(unknown, Refusal)
    assert unknown.reason is Reason.UNKNOWN_TYPE
