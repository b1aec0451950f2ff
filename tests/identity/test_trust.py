"""`Trust`: when an issuer is asked, how often, and what holds while it is away."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest
from joserfc.jwk import OKPKey

from identity.keys import SigningKey
from identity.trust import IssuerProfile, Principal, Trust, Verified
from identity.trust.anchor import KEYS_MAX_AGE_SECONDS
from identity.trust.profiles import REVOCATIONS_TYPE
from identity.trust.tokens import SignatureMemory
from identity.trust.watch import KEYS_REFRESH_SECONDS, ON_DEMAND_SECONDS, RETRY_SECONDS, UNKNOWN_KEY_SECONDS
from schemas import limits
from schemas.orders import Order
from schemas.refusals import Reason, Refusal
from tests.clocks import ManualClock
from tests.identity.spoken import FATIMA, GEORGINA, Spoken, speak
from tests.issuers import FakeIssuer, client_of, served_issuer, sign_jwt

DISCOVERY = "/.well-known/openid-configuration"


class Listener:
    """A provider that trusts Fatima, and Dinah who speaks to it."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.fatima = FakeIssuer(FATIMA, clock)
        self.trust = Trust([self.fatima.profile()], client=self.fatima.client(), clock=clock)

    def say(self) -> Spoken:
        return speak("fedci.job/1", self.clock, fatima=self.fatima)

    async def hear(self, said: Spoken | None = None) -> Verified[Order] | Refusal:
        said = said or self.say()
        return await self.trust.order(said.raw(), audience=said.audience)

    async def reason(self, said: Spoken | None = None) -> Reason | None:
        verdict = await self.hear(said)
        return verdict.reason if isinstance(verdict, Refusal) else None

    def say_with_unknown_key(self) -> Spoken:
        said = self.say()
        said.header["kid"] = "unknown"
        return said

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, with the polls that `run` would make."""
        self.clock.advance(seconds)
        await self.trust.prime()

    def fetched(self, path: str) -> int:
        return self.fatima.calls.count(path)


@pytest.fixture
def listener(clock: ManualClock) -> Listener:
    return Listener(clock)


# -- Asking the issuer


async def test_an_issuer_is_asked_when_its_first_message_comes(listener: Listener) -> None:
    assert await listener.reason() is None
    assert listener.fatima.calls == [DISCOVERY, "/jwks", "/revocations"]


async def test_a_primed_issuer_is_not_asked_again_for_messages(listener: Listener) -> None:
    await listener.trust.prime()
    before = list(listener.fatima.calls)
    for _ in range(3):
        assert await listener.reason() is None
    assert listener.fatima.calls == before


async def test_an_issuer_that_nobody_pinned_is_never_asked(clock: ManualClock, listener: Listener) -> None:
    georgina = FakeIssuer(GEORGINA, clock)
    trust = Trust([listener.fatima.profile()], client=client_of(listener.fatima, georgina), clock=clock)
    said = listener.say()
    said.claims["iss"], said.token_key = GEORGINA, georgina.keys[georgina.kid]
    said.header["jku"] = f"{GEORGINA}/jwks"
    verdict = await trust.order(said.raw(), audience=said.audience)
    assert isinstance(verdict, Refusal)
    assert verdict.reason is Reason.ISSUER_UNTRUSTED
    assert georgina.calls == []
    assert (trust.trusts(FATIMA), trust.trusts(GEORGINA)) == (True, False)


async def test_a_new_key_is_fetched_when_a_token_names_it(listener: Listener) -> None:
    await listener.trust.prime()
    listener.clock.advance(UNKNOWN_KEY_SECONDS)
    listener.fatima.rotate()
    assert await listener.reason() is None


async def test_unknown_keys_are_looked_for_once_a_minute(listener: Listener) -> None:
    await listener.trust.prime()
    listener.clock.advance(UNKNOWN_KEY_SECONDS)
    for _ in range(5):
        assert await listener.reason(listener.say_with_unknown_key()) is Reason.KEY_UNKNOWN
    assert listener.fetched("/jwks") == 2
    listener.clock.advance(UNKNOWN_KEY_SECONDS - 1)
    assert await listener.reason(listener.say_with_unknown_key()) is Reason.KEY_UNKNOWN
    assert listener.fetched("/jwks") == 2
    listener.clock.advance(1)
    assert await listener.reason(listener.say_with_unknown_key()) is Reason.KEY_UNKNOWN
    assert listener.fetched("/jwks") == 3


async def test_many_unknown_keys_at_once_make_one_request(listener: Listener) -> None:
    await listener.trust.prime()
    listener.clock.advance(UNKNOWN_KEY_SECONDS)
    said = [listener.say_with_unknown_key() for _ in range(20)]
    reasons = await asyncio.gather(*(listener.reason(one) for one in said))
    assert set(reasons) == {Reason.KEY_UNKNOWN}
    assert listener.fetched("/jwks") == 2


async def test_a_cancelled_search_does_not_keep_the_next_one_waiting(listener: Listener) -> None:
    await listener.trust.prime()
    listener.clock.advance(UNKNOWN_KEY_SECONDS)
    listener.fatima.rotate()
    listener.fatima.gate.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(listener.hear(), timeout=0.01)
    listener.fatima.gate.set()
    assert await listener.reason() is None


# -- While the issuer is away


async def test_an_issuer_that_was_never_reached_is_a_reason_and_is_tried_again_soon(listener: Listener) -> None:
    listener.fatima.is_away = True
    assert await listener.reason() is Reason.ISSUER_UNREACHABLE
    assert "cannot be reached" in listener.trust.troubles()[FATIMA]
    listener.fatima.is_away = False
    assert await listener.reason() is Reason.ISSUER_UNREACHABLE, "too soon to ask again"
    listener.clock.advance(ON_DEMAND_SECONDS)
    assert await listener.reason() is None


async def test_nobody_waits_for_an_issuer_that_failed_and_now_hangs(listener: Listener) -> None:
    listener.fatima.is_away = True
    assert await listener.reason() is Reason.ISSUER_UNREACHABLE
    listener.fatima.gate.clear()
    listener.clock.advance(ON_DEMAND_SECONDS)
    hanging = asyncio.create_task(listener.trust.prime())
    await asyncio.sleep(0)
    assert await asyncio.wait_for(listener.reason(), timeout=1) is Reason.ISSUER_UNREACHABLE
    listener.fatima.is_away = False
    listener.fatima.gate.set()
    await hanging
    assert await listener.reason() is None


async def test_keys_outlast_an_outage_of_a_day(clock: ManualClock) -> None:
    fatima = FakeIssuer(FATIMA, clock, token_seconds=600)
    profile = fatima.profile(revocation="none-short-lived")
    trust = Trust([profile], client=fatima.client(), clock=clock)
    await trust.prime()
    fatima.is_away = True
    clock.advance(KEYS_MAX_AGE_SECONDS)
    said = speak("fedci.job/1", clock, fatima=fatima)
    assert isinstance(await trust.order(said.raw(), audience=said.audience), Verified)
    clock.advance(1)
    said = speak("fedci.job/1", clock, fatima=fatima)
    verdict = await trust.order(said.raw(), audience=said.audience)
    assert isinstance(verdict, Refusal)
    assert verdict.reason is Reason.ISSUER_UNREACHABLE


async def test_without_a_fresh_revocation_list_new_work_is_refused(listener: Listener) -> None:
    await listener.trust.prime()
    listener.fatima.is_away = True
    listener.clock.advance(limits.REVOCATION_STALE_SECONDS)
    assert await listener.reason() is None
    listener.clock.advance(1)
    assert await listener.reason() is Reason.REVOCATION_STALE
    listener.fatima.is_away = False
    listener.clock.advance(ON_DEMAND_SECONDS)
    assert await listener.reason() is None


async def test_one_issuer_away_does_not_touch_another(clock: ManualClock, listener: Listener) -> None:
    georgina = FakeIssuer(GEORGINA, clock)
    georgina.is_away = True
    profiles = [listener.fatima.profile(), georgina.profile()]
    trust = Trust(profiles, client=client_of(listener.fatima, georgina), clock=clock)
    await trust.prime()
    said = listener.say()
    assert isinstance(await trust.order(said.raw(), audience=said.audience), Verified)
    assert list(trust.troubles()) == [GEORGINA]


# -- Revocation


async def test_a_revoked_token_is_refused_from_the_next_poll_on_remembered_or_not(listener: Listener) -> None:
    said = listener.say()
    assert await listener.reason(said) is None
    listener.fatima.revoke_token(said.claims["jti"])
    await listener.pass_time(60)
    assert await listener.reason(said) is Reason.REVOKED
    assert await listener.reason() is None, "others of the account go on"


async def test_a_revoked_account_loses_its_old_tokens_and_may_be_given_new_ones(listener: Listener) -> None:
    said = listener.say()
    assert await listener.reason(said) is None
    listener.fatima.revoke_subject("dinah")
    assert await listener.reason(listener.say()) is None, "not yet known here"
    await listener.pass_time(60)
    assert await listener.reason(said) is Reason.REVOKED
    assert await listener.reason(listener.say()) is None


async def test_what_was_accepted_can_be_asked_about_later(listener: Listener) -> None:
    said = listener.say()
    verdict = await listener.hear(said)
    assert isinstance(verdict, Verified)

    def ask() -> Reason | None:
        refusal = listener.trust.revocation_of(
            verdict.principal, token_id=verdict.token_id, issued_at=verdict.token_issued_at
        )
        return None if refusal is None else refusal.reason

    assert ask() is None
    listener.clock.advance(limits.REVOCATION_STALE_SECONDS + 1)
    assert ask() is Reason.REVOCATION_STALE
    listener.fatima.revoke_token(verdict.token_id)
    await listener.trust.prime()
    assert ask() is Reason.REVOKED
    listener.clock.advance(limits.REVOCATION_STALE_SECONDS + 1)
    assert ask() is Reason.REVOKED, "known is known, however old the list"
    stranger = Principal(GEORGINA, "dinah")
    refusal = listener.trust.revocation_of(stranger, token_id="x", issued_at=listener.clock.now())
    assert refusal is not None
    assert refusal.reason is Reason.ISSUER_UNTRUSTED


async def test_a_revocation_list_signed_with_a_new_key_is_read(listener: Listener) -> None:
    await listener.trust.prime()
    said = listener.say()
    listener.fatima.revoke_token(said.claims["jti"])
    listener.fatima.rotate()
    await listener.pass_time(UNKNOWN_KEY_SECONDS)
    assert await listener.reason(said) is Reason.REVOKED


async def test_an_older_list_never_brings_back_what_was_revoked(listener: Listener) -> None:
    said = listener.say()
    old = listener.fatima.revocations()
    listener.clock.advance(10)
    listener.fatima.revoke_token(said.claims["jti"])
    await listener.trust.prime()
    listener.fatima.documents["/revocations"] = lambda: httpx.Response(200, text=old)
    await listener.pass_time(60)
    assert await listener.reason(said) is Reason.REVOKED
    assert "older" in listener.trust.troubles()[FATIMA]


def _list(fatima: FakeIssuer, *, key: SigningKey | None = None, header: dict[str, object], **claims: object) -> str:
    whole = {"typ": REVOCATIONS_TYPE, **{k: v for k, v in fatima.header().items() if k != "typ"}, **header}
    return sign_jwt(key or fatima.keys[fatima.kid], whole, fatima.revocation_claims() | claims)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda fatima: _list(fatima, key=SigningKey.generate(), header={}),
        lambda fatima: _list(fatima, header={"alg": "none"}),
        lambda fatima: _list(fatima, header={"typ": "fedci-id+jwt"}),
        lambda fatima: _list(fatima, header={"kid": "other"}),
        lambda fatima: _list(fatima, header={}, iss=GEORGINA),
        lambda fatima: _list(fatima, header={}, iat=2**40),
        lambda fatima: _list(fatima, header={}, jtis="none"),
        lambda fatima: _list(fatima, header={}, subjects=[["dinah"]]),
        lambda fatima: "all is well",
        lambda fatima: "x" * (5 * limits.MIB),
    ],
    ids=["key", "alg none", "ID token", "kid", "issuer", "future", "no list", "no instant", "no JWT", "flood"],
)
async def test_a_revocation_list_that_does_not_verify_counts_as_none(
    listener: Listener, spoil: Callable[[FakeIssuer], str]
) -> None:
    listener.fatima.documents["/revocations"] = lambda: httpx.Response(200, text=spoil(listener.fatima))
    assert await listener.reason() is Reason.REVOCATION_STALE
    assert listener.trust.troubles()[FATIMA]


async def test_a_list_past_its_own_end_is_stale_whatever_the_profile_allows(clock: ManualClock) -> None:
    fatima = FakeIssuer(FATIMA, clock)
    trust = Trust([fatima.profile(stale_after_seconds=24 * 3600)], client=fatima.client(), clock=clock)
    await trust.prime()
    fatima.is_away = True
    clock.advance(601)
    said = speak("fedci.job/1", clock, fatima=fatima)
    verdict = await trust.order(said.raw(), audience=said.audience)
    assert isinstance(verdict, Refusal)
    assert verdict.reason is Reason.REVOCATION_STALE


# -- Hostile documents


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (DISCOVERY, httpx.Response(200, json={"issuer": GEORGINA, "jwks_uri": f"{FATIMA}/jwks"})),
        (DISCOVERY, httpx.Response(200, json={"issuer": FATIMA + "/", "jwks_uri": f"{FATIMA}/jwks"})),
        (DISCOVERY, httpx.Response(200, json={"issuer": FATIMA, "jwks_uri": "https://evil.example/jwks"})),
        (DISCOVERY, httpx.Response(200, json={"issuer": FATIMA, "jwks_uri": f"{FATIMA}:8443/jwks"})),
        (DISCOVERY, httpx.Response(200, json={"issuer": FATIMA, "jwks_uri": "http://id.fatima.example/jwks"})),
        (DISCOVERY, httpx.Response(200, json={"issuer": FATIMA, "jwks_uri": "https://[::/jwks"})),
        (DISCOVERY, httpx.Response(200, json={"issuer": FATIMA, "jwks_uri": ["x"]})),
        (DISCOVERY, httpx.Response(200, json=[])),
        (DISCOVERY, httpx.Response(302, headers={"location": "https://evil.example/"})),
        (DISCOVERY, httpx.Response(500)),
        ("/jwks", httpx.Response(302, headers={"location": "https://evil.example/"})),
        ("/jwks", httpx.Response(200, text="<html>")),
        ("/jwks", httpx.Response(200, content=bytes(70_000))),
        ("/jwks", httpx.Response(200, content=b"{" * 60_000)),
        ("/jwks", httpx.Response(200, json={"keys": [{}] * 100})),
    ],
    ids=str,
)
async def test_documents_that_are_wrong_change_nothing(listener: Listener, path: str, answer: httpx.Response) -> None:
    good = listener.fatima.documents[path]
    content = answer.content
    listener.fatima.documents[path] = lambda: httpx.Response(
        answer.status_code, headers=answer.headers, content=content
    )
    assert await listener.reason() is Reason.ISSUER_UNREACHABLE
    assert listener.trust.troubles()[FATIMA]
    listener.fatima.documents[path] = good
    await listener.pass_time(RETRY_SECONDS)
    assert await listener.reason() is None
    listener.fatima.documents[path] = lambda: httpx.Response(
        answer.status_code, headers=answer.headers, content=content
    )
    await listener.pass_time(KEYS_REFRESH_SECONDS)
    assert await listener.reason() is None, "the last good keys stay"


async def test_keys_at_another_origin_are_read_where_the_profile_pins_them(clock: ManualClock) -> None:
    fatima, elsewhere = FakeIssuer(FATIMA, clock), FakeIssuer("https://keys.example", clock)
    elsewhere.keys = fatima.keys
    profile = fatima.profile(jwks_url="https://keys.example/jwks")
    trust = Trust([profile], client=client_of(fatima, elsewhere), clock=clock)
    said = speak("fedci.job/1", clock, fatima=fatima)
    assert isinstance(await trust.order(said.raw(), audience=said.audience), Verified)
    assert elsewhere.calls == ["/jwks"]


async def test_a_key_that_is_withdrawn_is_refused_from_the_next_poll_on(listener: Listener) -> None:
    said = listener.say()
    assert await listener.reason(said) is None
    stolen = listener.fatima.kid
    listener.fatima.rotate()
    del listener.fatima.keys[stolen]
    await listener.pass_time(KEYS_REFRESH_SECONDS)
    assert await listener.reason(said) is Reason.KEY_UNKNOWN, "though its signature was checked before"


async def test_a_key_replaced_under_its_kid_takes_its_tokens_along(listener: Listener) -> None:
    said = listener.say()
    assert await listener.reason(said) is None
    listener.fatima.rotate(listener.fatima.kid)
    await listener.pass_time(KEYS_REFRESH_SECONDS)
    assert await listener.reason(said) is Reason.TOKEN_SIGNATURE


# -- One token, many messages


def test_one_check_of_a_token_serves_all_messages_with_it(clock: ManualClock) -> None:
    said = speak("fedci.job/1", clock)
    said.memory = SignatureMemory()
    raw, known = said.raw(), said.anchors[FATIMA].keys
    assert known is not None
    assert isinstance(said.verify(raw), Verified)
    # Nothing could be checked with this key any more; it only still says that it is the same one.
    (kid, key), *_ = known.items()
    blunt = {kid: replace(key, key=OKPKey.import_key({**SigningKey.generate().public_jwk()}))}
    said.anchors[FATIMA] = replace(said.anchors[FATIMA], keys=blunt)
    assert isinstance(said.verify(raw), Verified)
    clock.advance(said.fatima.token_seconds + 31)
    verdict = said.verify(raw)
    assert isinstance(verdict, Refusal)
    assert verdict.reason is Reason.TOKEN_EXPIRED, "what is remembered is the signature, not the answer"


def test_what_is_remembered_is_bounded(clock: ManualClock) -> None:
    memory, said = SignatureMemory(entries=3), speak("fedci.job/1", clock)
    said.memory = memory
    for number in range(10):
        said.claims["jti"] = f"token-{number}"
        assert isinstance(said.verify(), Verified)
    assert len(memory) == 3


def test_a_token_whose_signature_fails_is_not_remembered(clock: ManualClock) -> None:
    memory, said = SignatureMemory(), speak("fedci.job/1", clock)
    said.memory, said.token_key = memory, SigningKey.generate()
    assert isinstance(said.verify(), Refusal)
    assert len(memory) == 0


# -- Life cycle


async def test_run_keeps_everything_fresh_until_cancelled(clock: ManualClock) -> None:
    fatima, naps, is_enough = FakeIssuer(FATIMA, clock), 0, asyncio.Event()

    async def nap(seconds: float) -> None:
        nonlocal naps
        naps += 1
        clock.advance(seconds)
        if naps == 20:
            is_enough.set()
            await asyncio.Event().wait()

    trust = Trust([fatima.profile()], client=fatima.client(), clock=clock, sleep=nap)
    running = asyncio.create_task(trust.run())
    await is_enough.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert fatima.calls.count("/revocations") == 20
    assert 4 <= fatima.calls.count("/jwks") <= 6
    assert trust.troubles() == {}


async def test_all_of_it_works_over_a_real_socket(clock: ManualClock) -> None:
    async with served_issuer(clock) as fatima, httpx.AsyncClient(trust_env=False) as client:
        trust = Trust([fatima.profile()], client=client, clock=clock)
        holder = SigningKey.generate()
        said = speak("fedci.job/1", clock, fatima=fatima)
        said.claims = fatima.claims("dinah", said.audience, holder.public)
        said.envelope_key, said.fields["iss"] = holder, fatima.url
        assert isinstance(await trust.order(said.raw(), audience=said.audience), Verified)
        assert trust.troubles() == {}


def test_an_issuer_is_listed_once(clock: ManualClock) -> None:
    profile = IssuerProfile(url=FATIMA)
    with pytest.raises(ValueError, match="twice"):
        Trust([profile, profile], client=client_of(), clock=clock)
