"""The list of refusals (DESIGN §5): each row spoils one thing of a sound message, and names what is answered.

The rows stand in the order in which a verifier asks, and every row is tried on every type of message that has what the
row spoils. Where two things are wrong, the earlier one is the answer.
"""

import inspect
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas.frame
import schemas.registry
import schemas.wire
from identity.keys import SigningKey
from identity.trust import Verified, anchor, checks, revocation, tokens, verify
from identity.trust.anchor import Anchor
from schemas import limits
from schemas.refusals import Reason, Refusal
from tests.clocks import ManualClock
from tests.identity.spoken import FATIMA, GEORGINA, WITH_TOKEN, Spoken, speak
from tests.issuers import FakeIssuer, sign_jwt

HOUR = 3600
STEPS = (
    "frame",
    "type",
    "token shape",
    "issuer",
    "issuer keys",
    "algorithm",
    "token type",
    "key",
    "token signature",
    "claims",
    "audience",
    "expiry",
    "beginning",
    "life",
    "revocation",
    "key binding",
    "envelope signature",
    "payload",
    "identity",
    "ath",
    "times",
    "token's times",
)


@dataclass(frozen=True)
class Row:
    step: str
    name: str
    reason: Reason
    spoil: Callable[[Spoken], object]
    needs: str = "iss"
    """The field that a message must have for this row to mean anything."""

    def fits(self, message_type: str) -> bool:
        return self.needs in speak(message_type, ManualClock()).fields


def _set(part: str, **values: object) -> Callable[[Spoken], object]:
    """Change members of `header`, `claims` or `fields`; a value of `...` takes the member away."""

    def spoil(said: Spoken) -> None:
        members = getattr(said, part)
        for name, value in values.items():
            members.pop(name) if value is ... else members.update({name: value})

    return spoil


def _put(**attributes: object) -> Callable[[Spoken], object]:
    def spoil(said: Spoken) -> None:
        for name, value in attributes.items():
            setattr(said, name, value)

    return spoil


def _date(**seconds: int) -> Callable[[Spoken], object]:
    """Set claims to so many seconds from now."""
    return lambda said: said.claims.update({name: said.now(by) // 1000 for name, by in seconds.items()})


def _retime(**seconds: float) -> Callable[[Spoken], object]:
    return lambda said: said.fields.update({name: said.now(by) for name, by in seconds.items()})


def _reanchor(**changes: object) -> Callable[[Spoken], object]:
    def spoil(said: Spoken) -> None:
        known = said.anchors[FATIMA]
        said.anchors[FATIMA] = Anchor(
            **{
                "profile": known.profile,
                "keys": known.keys,
                "keys_read_at": known.keys_read_at,
                "revocations": known.revocations,
            }
            | changes  # type: ignore[arg-type]
        )

    return spoil


def _reprofile(**changes: object) -> Callable[[Spoken], object]:
    return lambda said: said.anchors.update({FATIMA: said.fatima.anchor(said.fatima.profile(**changes))})


def _revoke_token(said: Spoken) -> None:
    said.fatima.revoke_token(said.claims["jti"])
    said.anchors[FATIMA] = said.fatima.anchor()


def _revoke_account(said: Spoken) -> None:
    said.fatima.revoke_subject("dinah")
    said.anchors[FATIMA] = said.fatima.anchor()


def _age_revocations(said: Spoken) -> None:
    said.clock.advance(limits.REVOCATION_STALE_SECONDS + 1)
    said.fields |= {
        name: said.now(60 * (name == "expires_at")) for name in ("issued_at", "expires_at") if name in said.fields
    }


def _retype(message_type: str) -> Callable[[Spoken], object]:
    return _put(edit_parts=lambda parts: [parts[0], message_type, *parts[2:]])


def _pad(said: Spoken, size_bytes: int) -> None:
    said.edit_payload = lambda payload: payload + bytes(size_bytes)


def _edit_token(change: Callable[[str], object]) -> Callable[[Spoken], object]:
    return _put(edit_token=change)


def _flip_signature(token: str) -> str:
    head, signature = token.rsplit(".", 1)
    return f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def _sign_by_another(said: Spoken) -> None:
    said.token_key = SigningKey.generate()


def _sign_with_a_namesake(said: Spoken) -> None:
    """Georgina's key of the same `kid`, while Georgina is trusted too."""
    georgina = FakeIssuer(GEORGINA, said.clock)
    assert georgina.kid == said.header["kid"]
    said.anchors[GEORGINA] = georgina.anchor()
    said.token_key = georgina.keys[georgina.kid]


def _other_key(said: Spoken) -> dict[str, object]:
    return {"jwk": SigningKey.generate().public_jwk()}


SMALL_ORDER_JWK = {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}

ROWS = (
    # 1. size, frame, type and version, kind, token there or not
    Row("frame", "larger than any message", Reason.TOO_LARGE, _put(edit_raw=lambda raw: raw + bytes(2 * limits.MIB))),
    Row("frame", "garbage", Reason.MALFORMED_FRAME, _put(edit_raw=lambda raw: b"\xc1" + raw)),
    Row("frame", "a map instead of an array", Reason.MALFORMED_FRAME, _put(edit_parts=lambda parts: {"a": parts[0]})),
    Row("frame", "one part too many", Reason.MALFORMED_FRAME, _put(edit_parts=lambda parts: [*parts, 1])),
    Row("frame", "short signature", Reason.MALFORMED_FRAME, _put(edit_parts=lambda p: [*p[:3], p[3][:-1], p[4]])),
    Row("frame", "frame of tomorrow", Reason.UNKNOWN_VERSION, _put(edit_parts=lambda parts: [2, *parts[1:]])),
    Row("type", "type nobody knows", Reason.UNKNOWN_TYPE, _retype("fedci.gossip/1")),
    Row("type", "known type, version of tomorrow", Reason.UNKNOWN_VERSION, _retype("fedci.job/9")),
    Row("type", "another kind of message", Reason.WRONG_KIND, _retype("fedci.usage/1")),
    Row("type", "larger than its type", Reason.TOO_LARGE, lambda s: _pad(s, s.model.MAX_BYTES)),
    Row("type", "no token", Reason.TOKEN_MISSING, _edit_token(lambda token: None)),
    # 2. token: shape, issuer, header, key, signature, claims
    Row("token shape", "not a JWT", Reason.TOKEN_MALFORMED, _edit_token(lambda token: "let me in")),
    Row("token shape", "JWE of five parts", Reason.TOKEN_MALFORMED, _edit_token(lambda token: f"{token}.a.b")),
    Row("token shape", "standard base64", Reason.TOKEN_MALFORMED, _edit_token(lambda token: f"{token[:4]}+/{token}")),
    Row("token shape", "padding", Reason.TOKEN_MALFORMED, _edit_token(lambda token: token.replace(".", "=.", 1))),
    Row("token shape", "not ASCII", Reason.TOKEN_MALFORMED, _edit_token(lambda token: "é" + token)),
    Row("issuer", "issuer nobody pinned", Reason.ISSUER_UNTRUSTED, _set("claims", iss=GEORGINA)),
    Row("issuer", "issuer with a slash more", Reason.ISSUER_UNTRUSTED, _set("claims", iss=FATIMA + "/")),
    Row("issuer", "no issuer", Reason.ISSUER_UNTRUSTED, _set("claims", iss=...)),
    Row("issuer", "issuer that is a list", Reason.ISSUER_UNTRUSTED, _set("claims", iss=[FATIMA])),
    Row("issuer keys", "keys never read", Reason.ISSUER_UNREACHABLE, _reanchor(keys=None, keys_read_at=None)),
    Row("algorithm", "alg none", Reason.ALGORITHM_FORBIDDEN, _set("header", alg="none")),
    Row("algorithm", "alg None, spelt otherwise", Reason.ALGORITHM_FORBIDDEN, _set("header", alg="nOnE")),
    Row("algorithm", "HS256 with the public key", Reason.ALGORITHM_FORBIDDEN, _set("header", alg="HS256")),
    Row("algorithm", "a good one that is not listed", Reason.ALGORITHM_FORBIDDEN, _set("header", alg="EdDSA")),
    Row("algorithm", "no alg", Reason.ALGORITHM_FORBIDDEN, _set("header", alg=...)),
    Row("algorithm", "alg that is a list", Reason.ALGORITHM_FORBIDDEN, _set("header", alg=["Ed25519"])),
    Row("token type", "an access token", Reason.TOKEN_MALFORMED, _set("header", typ="at+jwt")),
    Row("token type", "no typ", Reason.TOKEN_MALFORMED, _set("header", typ=...)),
    Row("token type", "a revocation list", Reason.TOKEN_MALFORMED, _set("header", typ="fedci-revocations+jwt")),
    Row("token type", "brings its key", Reason.TOKEN_MALFORMED, _set("header", jwk=SMALL_ORDER_JWK)),
    Row("token type", "says where its key is", Reason.TOKEN_MALFORMED, _set("header", jku="https://evil.example/jwks")),
    Row("token type", "brings a certificate", Reason.TOKEN_MALFORMED, _set("header", x5c=["MIIB"])),
    Row("token type", "says where its certificate is", Reason.TOKEN_MALFORMED, _set("header", x5u="https://evil/")),
    Row("token type", "critical extension", Reason.TOKEN_MALFORMED, _set("header", crit=["exp"])),
    Row("token type", "unencoded payload", Reason.TOKEN_MALFORMED, _set("header", b64=False)),
    Row("token type", "no kid", Reason.TOKEN_MALFORMED, _set("header", kid=...)),
    Row("token type", "kid that is a number", Reason.TOKEN_MALFORMED, _set("header", kid=1)),
    Row("key", "kid that the issuer does not publish", Reason.KEY_UNKNOWN, _set("header", kid="k2")),
    Row("key", "kid withdrawn", Reason.KEY_UNKNOWN, _reanchor(keys={})),
    Row("token signature", "flipped bit", Reason.TOKEN_SIGNATURE, _edit_token(_flip_signature)),
    Row("token signature", "signed by anybody", Reason.TOKEN_SIGNATURE, _sign_by_another),
    Row("token signature", "same kid of another issuer", Reason.TOKEN_SIGNATURE, _sign_with_a_namesake),
    Row("claims", "no jti", Reason.CLAIMS_MALFORMED, _set("claims", jti=...)),
    Row("claims", "several audiences", Reason.CLAIMS_MALFORMED, _set("claims", aud=["a", "b"])),
    Row("claims", "no end", Reason.CLAIMS_MALFORMED, _set("claims", exp=...)),
    Row("claims", "end in words", Reason.CLAIMS_MALFORMED, _set("claims", exp="tomorrow")),
    Row("claims", "end that is true", Reason.CLAIMS_MALFORMED, _set("claims", exp=True)),
    Row("claims", "end without end", Reason.CLAIMS_MALFORMED, _set("claims", exp=10**30)),
    Row("claims", "subject with a line feed", Reason.CLAIMS_MALFORMED, _set("claims", sub="dinah\n")),
    Row("claims", "no subject where the profile looks", Reason.CLAIMS_MALFORMED, _reprofile(subject_claim="email")),
    # 3. token: audience, times, revocation, holder's key
    Row("audience", "another provider", Reason.AUDIENCE, _set("claims", aud="fedci:provider:cecilia.example")),
    Row("expiry", "ended", Reason.TOKEN_EXPIRED, _date(exp=-31)),
    Row("beginning", "not before", Reason.TOKEN_NOT_YET_VALID, _date(nbf=31)),
    Row("beginning", "issued in the future", Reason.TOKEN_NOT_YET_VALID, _date(iat=31)),
    Row("life", "longer than a day", Reason.TOKEN_TOO_LONG_LIVED, _date(iat=-24 * HOUR)),
    Row("life", "longer than the profile allows", Reason.TOKEN_TOO_LONG_LIVED, _reprofile(max_token_seconds=600)),
    Row("life", "an hour without revocation", Reason.TOKEN_TOO_LONG_LIVED, _reprofile(revocation="none-short-lived")),
    Row("revocation", "token revoked", Reason.REVOKED, _revoke_token),
    Row("revocation", "account revoked", Reason.REVOKED, _revoke_account),
    Row("revocation", "list too old", Reason.REVOCATION_STALE, _age_revocations),
    Row("revocation", "list never read", Reason.REVOCATION_STALE, _reanchor(revocations=None)),
    Row("key binding", "no cnf", Reason.KEY_UNBOUND, _set("claims", cnf=...)),
    Row("key binding", "thumbprint instead of key", Reason.KEY_UNBOUND, _set("claims", cnf={"jkt": "abc"})),
    Row("key binding", "key of small order", Reason.KEY_UNBOUND, _set("claims", cnf={"jwk": SMALL_ORDER_JWK})),
    Row(
        "key binding", "private key", Reason.KEY_UNBOUND, lambda s: s.claims.update(cnf={"jwk": s.holder.private_jwk()})
    ),
    # 4. envelope
    Row("envelope signature", "stolen token", Reason.ENVELOPE_SIGNATURE, _put(envelope_key=SigningKey.generate())),
    Row(
        "envelope signature", "other key bound", Reason.ENVELOPE_SIGNATURE, lambda s: s.claims.update(cnf=_other_key(s))
    ),
    Row(
        "envelope signature",
        "other bytes",
        Reason.ENVELOPE_SIGNATURE,
        _put(edit_parts=lambda p: [*p[:2], p[2] + b"\0", *p[3:]]),
    ),
    Row("payload", "not msgpack", Reason.MALFORMED_PAYLOAD, _put(edit_payload=lambda payload: b"\xc1")),
    Row("payload", "unknown field", Reason.MALFORMED_PAYLOAD, _set("fields", please="now")),
    Row("payload", "missing field", Reason.MALFORMED_PAYLOAD, _set("fields", sub=...)),
    # 5. message
    Row("identity", "another subject", Reason.IDENTITY_MISMATCH, _set("fields", sub="eliza")),
    Row("identity", "same subject of another issuer", Reason.IDENTITY_MISMATCH, _set("fields", iss=GEORGINA)),
    Row("identity", "another audience", Reason.IDENTITY_MISMATCH, _set("fields", aud="fedci:provider:x"), "aud"),
    Row("ath", "made with another token", Reason.TOKEN_HASH_MISMATCH, _put(ath="0" * 64)),
    Row("times", "ended", Reason.EXPIRED, _retime(issued_at=-91, expires_at=-31), "expires_at"),
    Row("times", "issued in the future", Reason.NOT_YET_VALID, _retime(issued_at=31, expires_at=60), "expires_at"),
    Row(
        "token's times",
        "outlives its token",
        Reason.OUTLIVES_TOKEN,
        _retime(expires_at=HOUR + 1),
        "expires_at",
    ),
    Row(
        "token's times",
        "older than its token",
        Reason.OUTLIVES_TOKEN,
        _retime(issued_at=-31, expires_at=20),
        "expires_at",
    ),
)

CASES = [
    pytest.param(message_type, row, id=f"{message_type.split('.')[1]}: {row.step}: {row.name}")
    for message_type in WITH_TOKEN
    for row in ROWS
    if row.fits(message_type)
]


@pytest.mark.parametrize("message_type", WITH_TOKEN)
def test_a_sound_message_is_believed_and_says_who_spoke(message_type: str, clock: ManualClock) -> None:
    said = speak(message_type, clock)
    verdict = said.verify()
    assert isinstance(verdict, Verified), verdict
    assert (verdict.principal.iss, verdict.principal.sub) == (FATIMA, "dinah")
    assert verdict.key == said.holder.public
    assert verdict.token_id == said.claims["jti"]
    assert message_type == verdict.message.TYPE


@pytest.mark.parametrize(("message_type", "row"), CASES)
def test_one_thing_wrong_gives_its_own_reason(message_type: str, row: Row, clock: ManualClock) -> None:
    said = speak(message_type, clock)
    row.spoil(said)
    verdict = said.verify()
    assert isinstance(verdict, Refusal)
    assert verdict.reason is row.reason, verdict
    assert verdict.detail
    assert (said.token() or "no token")[:20] not in verdict.detail


def _one_row_a_step() -> list[Row]:
    found = {row.step: row for row in reversed(ROWS)}
    assert list(STEPS) == sorted(found, key=STEPS.index)
    return [found[step] for step in STEPS]


PAIRS = [
    pytest.param(first, second, id=f"{first.step} before {second.step}")
    for first, second in itertools.combinations(_one_row_a_step(), 2)
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_of_two_wrongs_the_earlier_one_is_the_answer(first: Row, second: Row, clock: ManualClock) -> None:
    said = speak("fedci.job/1", clock)
    second.spoil(said)
    first.spoil(said)
    verdict = said.verify()
    assert isinstance(verdict, Refusal)
    assert verdict.reason is first.reason, verdict


def _reasons_in(*modules: ModuleType) -> set[Reason]:
    return {Reason[name] for module in modules for name in re.findall(r"Reason\.([A-Z_]+)", inspect.getsource(module))}


def test_every_reason_that_a_verifier_can_give_is_tested() -> None:
    given_by_code = _reasons_in(
        verify, checks, tokens, revocation, anchor, schemas.frame, schemas.registry, schemas.wire
    )
    elsewhere = {Reason.TOKEN_UNEXPECTED, Reason.UNKNOWN_AGENT}  # test_without_tokens: what carries no token
    assert {row.reason for row in ROWS} | elsewhere == given_by_code


@pytest.mark.parametrize(
    ("seconds", "is_believed"), [(limits.CLOCK_SKEW_SECONDS, True), (limits.CLOCK_SKEW_SECONDS + 1, False)]
)
def test_two_clocks_may_differ_by_the_leeway_and_no_more(clock: ManualClock, seconds: int, is_believed: bool) -> None:
    for spoil in (_date(iat=seconds), _date(exp=-seconds)):
        said = speak("fedci.claim/1", clock)
        spoil(said)
        assert isinstance(said.verify(), Verified) is is_believed


def test_a_refusal_of_a_time_says_how_wrong_the_clock_is(clock: ManualClock) -> None:
    said = speak("fedci.job/1", clock)
    _date(iat=120)(said)
    assert "120 s in the future" in str(said.verify())


def test_the_same_name_at_two_issuers_is_two_principals(clock: ManualClock) -> None:
    said, twin = speak("fedci.job/1", clock), speak("fedci.job/1", clock)
    georgina = FakeIssuer(GEORGINA, clock)
    twin.anchors[GEORGINA] = georgina.anchor()
    twin.claims["iss"] = twin.fields["iss"] = GEORGINA
    twin.token_key = georgina.keys[georgina.kid]
    one, other = said.verify(), twin.verify()
    assert isinstance(one, Verified)
    assert isinstance(other, Verified)
    assert one.principal.sub == other.principal.sub
    assert one.principal.tenant != other.principal.tenant


def test_one_issuer_cannot_speak_for_the_subject_of_another(clock: ManualClock) -> None:
    """Georgina signs a token that says Fatima issued it: Fatima's keys are asked, and did not sign it."""
    said = speak("fedci.job/1", clock)
    georgina = FakeIssuer(GEORGINA, clock)
    said.anchors[GEORGINA] = georgina.anchor()
    said.header["kid"] = georgina.rotate("only-georgina")
    said.token_key = georgina.keys["only-georgina"]
    verdict = said.verify()
    assert isinstance(verdict, Refusal)
    assert verdict.reason is Reason.KEY_UNKNOWN


def test_json_with_two_readings_is_refused(clock: ManualClock) -> None:
    said = speak("fedci.job/1", clock)
    twice = b'{"iss":"https://id.fatima.example","iss":"https://id.georgina.example"}'
    said.edit_token = lambda _: sign_jwt(said.token_key, said.header, twice)
    verdict = said.verify()
    assert isinstance(verdict, Refusal)
    assert (verdict.reason, "twice" in verdict.detail) == (Reason.TOKEN_MALFORMED, True)


def test_a_job_cannot_be_read_as_a_grant(clock: ManualClock) -> None:
    """The type is inside the signature (DSSE), so no payload changes its meaning."""
    said = speak("fedci.cancel/1", clock)
    _retype("fedci.settled/1")(said)
    verdict = said.verify()
    assert isinstance(verdict, Refusal)
    assert verdict.reason is Reason.ENVELOPE_SIGNATURE


def test_nobody_but_a_verifier_makes_a_verified_message(clock: ManualClock) -> None:
    said = speak("fedci.job/1", clock)
    verdict = said.verify()
    assert isinstance(verdict, Verified)
    facts = {name: getattr(verdict, name) for name in verdict.__dataclass_fields__ if name != "seal"}
    with pytest.raises(TypeError, match="only a verifier"):
        Verified(**facts, seal=object())
    with pytest.raises(TypeError):
        Verified(**facts)


class TestAnyFlippedByte:
    said = speak("fedci.job/1", ManualClock())
    raw = said.raw()

    @given(place=st.integers(min_value=0), mask=st.integers(min_value=1, max_value=255))
    def test_is_refused(self, place: int, mask: int) -> None:
        spoilt = bytearray(self.raw)
        spoilt[place % len(spoilt)] ^= mask
        assert isinstance(self.said.verify(bytes(spoilt)), Refusal)

    @given(cut=st.integers(min_value=1))
    def test_so_is_any_cut(self, cut: int) -> None:
        assert isinstance(self.said.verify(self.raw[: -(cut % len(self.raw)) or 0]), Refusal)

    @given(st.binary(max_size=300))
    def test_and_any_garbage(self, garbage: bytes) -> None:
        assert isinstance(self.said.verify(garbage), Refusal)
        assert isinstance(self.said.verify(self.raw + garbage) if garbage else Refusal(Reason.TOO_LARGE), Refusal)

    @given(st.recursive(st.none() | st.integers(-(2**63), 2**63) | st.text(max_size=20), st.lists))
    def test_and_any_well_formed_value(self, value: object) -> None:
        assert isinstance(self.said.verify(msgpack.packb(value)), Refusal)
