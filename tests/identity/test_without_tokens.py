"""Messages that are proven by a known key alone: reports about a claim, agents' tickets, statements."""

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.keys import SigningKey
from identity.speech import Speaker
from identity.trust import (
    Seen,
    SignedBy,
    settle_duplicate,
    spend_ticket,
    verify_agent_ticket,
    verify_report,
    verify_statement,
)
from schemas import limits
from schemas.frame import FRAME_VERSION, pae
from schemas.ids import controller_audience, provider_audience
from schemas.orders import Cancel
from schemas.refusals import Reason, Refusal
from schemas.reports import ClaimReport, Log
from schemas.statements import RateCard, Statement, Usage
from tests.clocks import ManualClock
from tests.identity.spoken import PROVIDER, SAMPLE_BY_TYPE
from tests.schemas.samples import SAMPLES, TENANT

REPORTS = [sample.TYPE for sample in SAMPLES if isinstance(sample, ClaimReport)]
STATEMENTS = [sample.TYPE for sample in SAMPLES if isinstance(sample, Statement) and not sample.CARRIES_TOKEN]
KEY = SigningKey.generate()
AUDIENCE = controller_audience(TENANT)
DESK = provider_audience(PROVIDER)
SMALL_ORDER = bytes(32)


def _seal(message_type: str, fields: dict[str, Any], key: SigningKey = KEY, token: str | None = None) -> bytes:
    payload: bytes = msgpack.packb(fields)
    raw: bytes = msgpack.packb([FRAME_VERSION, message_type, payload, key.sign(pae(message_type, payload)), token])
    return raw


def _sample(message_type: str, **changes: Any) -> bytes:
    return _seal(message_type, SAMPLE_BY_TYPE[message_type].model_dump() | changes)


def _agent_ticket(clock: ManualClock, *, life_seconds: int = limits.TICKET_SECONDS, **changes: Any) -> bytes:
    now = int(clock.now().timestamp() * 1000)
    times = {"issued_at": now, "expires_at": now + life_seconds * 1000}
    return _sample("fedci.agent-ticket/1", **{"aud": DESK, **times, **changes})


def _reason(verdict: object) -> Reason:
    assert isinstance(verdict, Refusal), verdict
    assert verdict.detail
    return verdict.reason


@pytest.mark.parametrize("message_type", REPORTS)
def test_a_report_of_the_recorded_key_is_believed(message_type: str) -> None:
    verdict = verify_report(_sample(message_type), key=KEY.public, audience=AUDIENCE)
    assert isinstance(verdict, SignedBy), verdict
    assert (message_type, verdict.key) == (verdict.message.TYPE, KEY.public)


@pytest.mark.parametrize(
    ("raw", "key", "reason"),
    [
        (_sample("fedci.log/1"), SigningKey.generate().public, Reason.ENVELOPE_SIGNATURE),
        (_sample("fedci.log/1"), SMALL_ORDER, Reason.ENVELOPE_SIGNATURE),
        (_sample("fedci.log/1"), b"short", Reason.ENVELOPE_SIGNATURE),
        (_sample("fedci.log/1", aud=controller_audience("t" + "a" * 26)), KEY.public, Reason.AUDIENCE),
        (_sample("fedci.log/1", data=b""), KEY.public, Reason.MALFORMED_PAYLOAD),
        (_sample("fedci.claim/1"), KEY.public, Reason.WRONG_KIND),
        (_sample("fedci.cancel/1"), KEY.public, Reason.WRONG_KIND),
        (_seal("fedci.log/1", {}, token="a.b.c"), KEY.public, Reason.TOKEN_UNEXPECTED),
        (_sample("fedci.heartbeat/1", pad=bytes(limits.MESSAGE_BYTES)), KEY.public, Reason.TOO_LARGE),
        (b"", KEY.public, Reason.MALFORMED_FRAME),
    ],
    ids=str,
)
def test_a_report_is_refused(raw: bytes, key: bytes, reason: Reason) -> None:
    assert _reason(verify_report(raw, key=key, audience=AUDIENCE)) is reason


def test_an_enrolled_agent_gets_in(clock: ManualClock) -> None:
    verdict = verify_agent_ticket(_agent_ticket(clock), keys={"w7": KEY.public}, audience=DESK, now=clock.now())
    assert isinstance(verdict, SignedBy), verdict
    assert (verdict.message.agent, verdict.key) == ("w7", KEY.public)


@pytest.mark.parametrize(
    ("make", "keys", "reason"),
    [
        (_agent_ticket, {}, Reason.UNKNOWN_AGENT),
        (_agent_ticket, {"w8": KEY.public}, Reason.UNKNOWN_AGENT),
        (_agent_ticket, {"w7": SigningKey.generate().public}, Reason.ENVELOPE_SIGNATURE),
        (lambda clock: _agent_ticket(clock, agent=7), {"w7": KEY.public}, Reason.UNKNOWN_AGENT),
        (lambda clock: _agent_ticket(clock, agent="w8"), {"w7": KEY.public}, Reason.UNKNOWN_AGENT),
        (lambda clock: _agent_ticket(clock, aud="fedci:provider:x"), {"w7": KEY.public}, Reason.AUDIENCE),
        (lambda clock: _agent_ticket(clock, life_seconds=-31), {"w7": KEY.public}, Reason.EXPIRED),
        (lambda clock: _agent_ticket(clock, life_seconds=61), {"w7": KEY.public}, Reason.MALFORMED_PAYLOAD),
        (lambda clock: _agent_ticket(clock, issued_at=2**41), {"w7": KEY.public}, Reason.NOT_YET_VALID),
        (lambda clock: _seal("fedci.agent-ticket/1", {"agent": "w7"}), {"w7": KEY.public}, Reason.MALFORMED_PAYLOAD),
        (lambda clock: _sample("fedci.session-ticket/1"), {"w7": KEY.public}, Reason.WRONG_KIND),
    ],
    ids=str,
)
def test_an_agent_is_refused(
    make: Callable[[ManualClock], bytes], keys: dict[str, bytes], reason: Reason, clock: ManualClock
) -> None:
    assert _reason(verify_agent_ticket(make(clock), keys=keys, audience=DESK, now=clock.now())) is reason


@pytest.mark.parametrize("message_type", STATEMENTS)
def test_a_statement_of_the_right_key_is_believed(message_type: str) -> None:
    model: type[Statement] = type(SAMPLE_BY_TYPE[message_type])  # type: ignore[assignment]
    verdict = verify_statement(_sample(message_type), model, key=KEY.public)
    assert isinstance(verdict, SignedBy), verdict
    assert verdict.message == SAMPLE_BY_TYPE[message_type]


def test_a_statement_is_refused_under_another_key_or_as_another_statement() -> None:
    usage = _sample("fedci.usage/1")
    assert _reason(verify_statement(usage, Usage, key=SigningKey.generate().public)) is Reason.ENVELOPE_SIGNATURE
    assert _reason(verify_statement(usage, RateCard, key=KEY.public)) is Reason.WRONG_KIND
    assert _reason(verify_statement(_sample("fedci.cancel/1"), Cancel, key=KEY.public)) is Reason.TOKEN_MISSING


@given(place=st.integers(min_value=0), mask=st.integers(min_value=1, max_value=255))
def test_any_flipped_byte_of_a_report_is_refused(place: int, mask: int) -> None:
    raw = bytearray(RAW_LOG)
    raw[place % len(raw)] ^= mask
    assert isinstance(verify_report(bytes(raw), key=KEY.public, audience=AUDIENCE), Refusal)


RAW_LOG = _sample("fedci.log/1")


@given(data=st.binary(min_size=1, max_size=limits.LOG_CHUNK_BYTES), offset=st.integers(0, 2**53 - 1))
def test_what_is_said_is_what_is_heard(data: bytes, offset: int) -> None:
    speaker = Speaker((), key=KEY, clock=ManualClock())
    sample = SAMPLE_BY_TYPE["fedci.log/1"]
    assert isinstance(sample, Log)
    fields = {name: getattr(sample, name) for name in ("provider", "agent", "attempt", "claim")}
    raw = speaker.report(TENANT, Log, **fields, data=data, sequence=offset)
    heard = verify_report(raw, key=KEY.public, audience=AUDIENCE)
    assert isinstance(heard, SignedBy), heard
    assert isinstance(heard.message, Log)
    assert (heard.message.data, heard.message.offset) == (data, offset)


def test_the_same_bytes_again_are_a_redelivery_and_other_bytes_an_alarm() -> None:
    assert settle_duplicate(None, "a") is Seen.NEW
    assert settle_duplicate("a", "a") is Seen.REDELIVERY
    assert _reason(settle_duplicate("a", "b")) is Reason.EQUIVOCATION


def test_a_ticket_is_good_once() -> None:
    assert spend_ticket(None, "a") is Seen.NEW
    assert _reason(spend_ticket("a", "a")) is Reason.REPLAYED
    assert _reason(spend_ticket("a", "b")) is Reason.EQUIVOCATION
