"""A message with a token, taken apart before it is put together, so that a test can spoil exactly one thing in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgpack

from identity.keys import SigningKey
from identity.trust import (
    Anchor,
    Verified,
    verify_introduction,
    verify_order,
    verify_receipt,
    verify_ticket,
)
from identity.trust.tokens import SignatureMemory
from schemas.frame import FRAME_VERSION, pae, token_hash
from schemas.ids import controller_audience, provider_audience, store_audience, tenant_id
from schemas.refusals import Refusal
from schemas.wire import Message
from tests.clocks import ManualClock
from tests.issuers import FakeIssuer, sign_jwt
from tests.schemas.samples import SAMPLES

FATIMA = "https://id.fatima.example"
GEORGINA = "https://id.georgina.example"
PROVIDER = "alice.example"
SAMPLE_BY_TYPE = {sample.TYPE: sample for sample in SAMPLES}
WITH_TOKEN = tuple(sorted(sample.TYPE for sample in SAMPLES if sample.CARRIES_TOKEN))

_AUDIENCES = {
    "fedci.store-ticket/1": store_audience(PROVIDER),
    "fedci.claim/1": controller_audience(tenant_id(FATIMA, "dinah")),
    "fedci.refused/1": controller_audience(tenant_id(FATIMA, "dinah")),
}
_VERIFIERS: Mapping[str, Callable[..., Verified[Any] | Refusal]] = {
    "fedci.session-ticket/1": verify_ticket,
    "fedci.store-ticket/1": verify_ticket,
    "fedci.claim/1": verify_introduction,
    "fedci.refused/1": verify_introduction,
}


@dataclass
class Spoken:
    """All that goes into one envelope and into its verification; sound until something is changed."""

    message_type: str
    clock: ManualClock
    fatima: FakeIssuer
    holder: SigningKey
    header: dict[str, Any]
    claims: dict[str, Any]
    fields: dict[str, Any]
    audience: str
    anchors: dict[str, Anchor]
    token_key: SigningKey
    envelope_key: SigningKey
    ath: str | None = None
    edit_token: Callable[[str], str | None] = field(default=lambda token: token)
    edit_payload: Callable[[bytes], bytes] = field(default=lambda payload: payload)
    edit_parts: Callable[[list[Any]], Any] = field(default=lambda parts: parts)
    edit_raw: Callable[[bytes], bytes] = field(default=lambda raw: raw)
    memory: SignatureMemory | None = None

    @property
    def model(self) -> type[Message]:
        return type(SAMPLE_BY_TYPE[self.message_type])

    def token(self) -> str | None:
        return self.edit_token(sign_jwt(self.token_key, self.header, self.claims))

    def raw(self) -> bytes:
        token = self.token()
        ath = self.ath or token_hash(token or "")
        payload = self.edit_payload(msgpack.packb({**self.fields, "ath": ath}))
        signature = self.envelope_key.sign(pae(self.message_type, payload))
        return self.edit_raw(
            msgpack.packb(self.edit_parts([FRAME_VERSION, self.message_type, payload, signature, token]))
        )

    def verify(self, raw: bytes | None = None) -> Verified[Any] | Refusal:
        raw = self.raw() if raw is None else raw
        known: dict[str, Any] = {"anchors": self.anchors, "now": self.clock.now(), "memory": self.memory}
        if self.message_type == "fedci.receipt/1":
            return verify_receipt(raw, provider=self.audience.rpartition(":")[2], **known)
        return _VERIFIERS.get(self.message_type, verify_order)(raw, audience=self.audience, **known)

    def now(self, seconds: float = 0) -> int:
        """An instant for a payload: in milliseconds."""
        return int((self.clock.now() + timedelta(seconds=seconds)).timestamp() * 1000)


def speak(message_type: str, clock: ManualClock, *, fatima: FakeIssuer | None = None) -> Spoken:
    """A sound message of this type under Fatima's issuer, heard by somebody who trusts only her."""
    fatima = fatima or FakeIssuer(FATIMA, clock)
    holder, audience = SigningKey.generate(), _AUDIENCES.get(message_type, provider_audience(PROVIDER))
    claims = fatima.claims("dinah", audience, holder.public)
    said = Spoken(
        message_type=message_type,
        clock=clock,
        fatima=fatima,
        holder=holder,
        header=fatima.header(),
        claims=claims,
        fields={},
        audience=audience,
        anchors={FATIMA: fatima.anchor()},
        token_key=fatima.keys[fatima.kid],
        envelope_key=holder,
    )
    said.fields = _fields(said)
    return said


def _fields(said: Spoken) -> dict[str, Any]:
    fields = SAMPLE_BY_TYPE[said.message_type].model_dump() | {"iss": FATIMA, "sub": "dinah"}
    changes = {
        "aud": said.audience,
        "provider": PROVIDER,
        "issued_at": said.now(),
        "made_at": said.now(),
        "expires_at": said.now(60),
    }
    return fields | {name: value for name, value in changes.items() if name in fields}
