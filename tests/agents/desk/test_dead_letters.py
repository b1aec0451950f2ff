"""Dead letters: each is judged, whatever it is, and the attempt is named wherever it can be read."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agents.desk import dead_letters
from agents.desk.dead_letters import Answer
from agents.desk.wiring import answering
from bus.delivery import Fate
from runtime.errors import WorldFault
from runtime.outbox import Later, PublishResult, Rejected, Sent, Unroutable
from schemas import frame
from schemas.orders import Grant, Job
from schemas.refusals import Reason
from tests.schemas.samples import LATER, NOW, SAMPLES

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
JOB = next(message for message in SAMPLES if isinstance(message, Job))
GRANT = next(message for message in SAMPLES if isinstance(message, Grant))


def test_an_order_whose_time_is_over_is_refused_as_expired_and_names_its_attempt() -> None:
    verdict = dead_letters.judge(frame.seal(JOB, KEY, "token"), LATER + timedelta(seconds=1))
    assert verdict.reason is Reason.EXPIRED
    assert verdict.attempt == JOB.attempt


def test_an_order_given_back_too_often_is_refused_as_undelivered() -> None:
    verdict = dead_letters.judge(frame.seal(JOB, KEY, "token"), NOW)
    assert verdict.reason is Reason.UNDELIVERED
    assert verdict.attempt == JOB.attempt


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"garbage", Reason.MALFORMED_FRAME),
        (frame.seal(GRANT, KEY, "token"), Reason.WRONG_KIND),
        (msgpack.packb([1, "fedci.job/9", b"", bytes(64), "t"]), Reason.UNKNOWN_VERSION),
        (msgpack.packb([1, "fedci.job/1", b"\x80", bytes(64), "t"]), Reason.MALFORMED_PAYLOAD),
    ],
)
def test_a_letter_that_is_no_job_is_refused_with_its_own_reason(raw: bytes, reason: Reason) -> None:
    verdict = dead_letters.judge(raw, NOW)
    assert verdict.reason is reason
    assert verdict.attempt is None


@given(st.binary(max_size=200))
def test_no_letter_makes_the_desk_stumble(raw: bytes) -> None:
    assert dead_letters.judge(raw, NOW).attempt is None


class Letters:
    """Letters whose answer is made, or whose tenant's issuer is away."""

    def __init__(self, made: Answer | WorldFault) -> None:
        self._made = made

    async def answer(self, _raw: bytes, _routing_key: str) -> Answer:
        if isinstance(self._made, WorldFault):
            raise self._made
        return self._made


MADE = Answer("replies.alice.example.t", b"refusal", JOB.attempt, Reason.EXPIRED)
LETTER: Any = SimpleNamespace(body=b"letter", routing_key="key")


@pytest.mark.parametrize(
    ("made", "result", "fate"),
    [
        (MADE, Sent(), Fate.SETTLED),
        (MADE, Rejected("the tenant's replies are full"), Fate.SETTLED),
        (MADE, Unroutable(), Fate.SETTLED),
        (MADE, Later("the bus is away"), Fate.RETRY),
        (WorldFault("the issuer is away"), Sent(), Fate.RETRY),
    ],
)
async def test_one_tenants_trouble_does_not_hold_up_the_letters_of_the_others(
    made: Answer | WorldFault, result: PublishResult, fate: Fate
) -> None:
    async def publish(*_: object, **__: object) -> PublishResult:
        return result

    letters: Any = Letters(made)
    assert await answering(letters, publish)(LETTER) is fate
