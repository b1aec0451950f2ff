"""What a component says: identity, token hash and times come from its account, all else from the caller."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from identity.account import Account
from identity.keys import SigningKey
from identity.speech import Speaker
from identity.trust import SignedBy, Trust, Verified, verify_agent_ticket, verify_report, verify_statement
from runtime.errors import OurFault
from schemas import limits, orders, reports, statements, tickets
from schemas.ids import controller_audience, provider_audience, store_audience, tenant_id
from schemas.wire import Message
from tests.clocks import ManualClock
from tests.identity.spoken import FATIMA, GEORGINA, PROVIDER, SAMPLE_BY_TYPE, WITH_TOKEN
from tests.issuers import FakeIssuer, client_of

FILLED_IN = {"iss", "sub", "aud", "ath", "issued_at", "expires_at", "made_at", "id"}
TENANT = tenant_id(FATIMA, "dinah")
DESK = provider_audience(PROVIDER)


class Both:
    """Somebody with an account at both issuers, and somebody who trusts both."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.key = SigningKey.generate()
        self.issuers = [FakeIssuer(FATIMA, clock), FakeIssuer(GEORGINA, clock)]
        self.client = client_of(*self.issuers)
        self.accounts = [self.open(issuer) for issuer in self.issuers]
        self.speaker = Speaker(self.accounts, key=self.key, clock=clock)
        self.trust = Trust([issuer.profile() for issuer in self.issuers], client=self.client, clock=clock)

    def open(self, issuer: FakeIssuer, key: SigningKey | None = None) -> Account:
        issuer.accounts["dinah"] = "api token"
        return Account(
            issuer=issuer.url,
            sub="dinah",
            api_token="api token",
            key=key or self.key,
            client=self.client,
            clock=self.clock,
        )


@pytest.fixture
def both(clock: ManualClock) -> Both:
    return Both(clock)


def _own_fields(message: Message) -> dict[str, Any]:
    return {name: getattr(message, name) for name in type(message).model_fields if name not in FILLED_IN}


async def _say_and_hear(both: Both, sample: Message) -> Verified[Any]:
    model, fields = type(sample), _own_fields(sample)
    heard: object
    if issubclass(model, orders.Order):
        raw = await both.speaker.order(PROVIDER, model, issuer=FATIMA, **fields)
        heard = await both.trust.order(raw, audience=DESK)
    elif issubclass(model, tickets.SessionTicket | tickets.StoreTicket):
        audience = DESK if model is tickets.SessionTicket else store_audience(PROVIDER)
        raw = await both.speaker.ticket(audience, model, issuer=FATIMA, **fields)
        heard = await both.trust.ticket(raw, audience=audience)
    elif issubclass(model, reports.Introduced):
        raw = await both.speaker.introduction(TENANT, model, issuer=FATIMA, **fields)
        heard = await both.trust.introduction(raw, audience=controller_audience(TENANT))
    else:
        fields.pop("provider")
        raw = await both.speaker.receipt(PROVIDER, issuer=FATIMA, **fields)
        heard = await both.trust.receipt(raw, provider=PROVIDER)
    assert isinstance(heard, Verified), heard
    return heard


@pytest.mark.parametrize("message_type", WITH_TOKEN)
async def test_what_is_said_with_a_token_is_heard_as_it_was_said(both: Both, message_type: str) -> None:
    sample = SAMPLE_BY_TYPE[message_type]
    heard = await _say_and_hear(both, sample)
    assert _own_fields(heard.message) == _own_fields(sample)
    assert (heard.principal.iss, heard.principal.sub, heard.key) == (FATIMA, "dinah", both.key.public)


def test_what_is_said_with_the_key_alone_is_heard(both: Both) -> None:
    beat, ticket, usage = (SAMPLE_BY_TYPE[f"fedci.{name}/1"] for name in ("heartbeat", "agent-ticket", "usage"))
    raw = both.speaker.report(TENANT, reports.Heartbeat, **_own_fields(beat))
    assert isinstance(verify_report(raw, key=both.key.public, audience=controller_audience(TENANT)), SignedBy)
    raw = both.speaker.agent_ticket(PROVIDER, **_own_fields(ticket))
    keys, now = {"w7": both.key.public}, both.clock.now()
    assert isinstance(verify_agent_ticket(raw, keys=keys, audience=DESK, now=now), SignedBy)
    facts = {name: getattr(usage, name) for name in type(usage).model_fields}
    raw = both.speaker.statement(statements.Usage, **facts)
    assert isinstance(verify_statement(raw, statements.Usage, key=both.key.public), SignedBy)


async def test_no_order_outlives_its_token(both: Both) -> None:
    fields = _own_fields(SAMPLE_BY_TYPE["fedci.cancel/1"])
    for wanted, given in ((timedelta(days=7), timedelta(hours=1)), (timedelta(minutes=5), timedelta(minutes=5))):
        raw = await both.speaker.order(
            PROVIDER, orders.Cancel, issuer=FATIMA, expires_at=both.clock.now() + wanted, **fields
        )
        heard = await both.trust.order(raw, audience=DESK)
        assert isinstance(heard, Verified)
        assert heard.message.expires_at == both.clock.now() + given


async def test_a_ticket_lives_for_seconds(both: Both) -> None:
    raw = await both.speaker.ticket(DESK, tickets.SessionTicket, issuer=FATIMA)
    heard = await both.trust.ticket(raw, audience=DESK)
    assert isinstance(heard, Verified)
    life = heard.message.expires_at - heard.message.issued_at
    assert life == timedelta(seconds=limits.TICKET_SECONDS)


async def test_two_tickets_are_never_the_same(both: Both) -> None:
    ids = set()
    for _ in range(3):
        raw = await both.speaker.ticket(DESK, tickets.SessionTicket, issuer=FATIMA)
        heard = await both.trust.ticket(raw, audience=DESK)
        assert isinstance(heard, Verified)
        ids.add(heard.message.id)
    assert len(ids) == 3


async def test_the_account_is_chosen_by_issuer(both: Both) -> None:
    raw = await both.speaker.ticket(DESK, tickets.SessionTicket, issuer=GEORGINA)
    heard = await both.trust.ticket(raw, audience=DESK)
    assert isinstance(heard, Verified)
    assert heard.principal.iss == GEORGINA


@pytest.mark.parametrize(("issuer", "says"), [(None, "several accounts"), ("https://id.else", "no account")])
async def test_without_an_account_to_speak_under_nothing_is_said(both: Both, issuer: str | None, says: str) -> None:
    with pytest.raises(OurFault, match=says):
        await both.speaker.ticket(DESK, tickets.SessionTicket, issuer=issuer)


async def test_who_has_one_account_need_not_name_it(both: Both) -> None:
    speaker = Speaker(both.accounts[:1], key=both.key, clock=both.clock)
    raw = await speaker.ticket(DESK, tickets.SessionTicket)
    assert isinstance(await both.trust.ticket(raw, audience=DESK), Verified)
    assert speaker.issuers == (FATIMA,)


async def test_a_field_that_does_not_fit_is_our_own_fault(both: Both) -> None:
    with pytest.raises(ValidationError):
        await both.speaker.order(PROVIDER, orders.Cancel, issuer=FATIMA, attempt="one")


def test_all_accounts_are_bound_to_the_speakers_key(both: Both) -> None:
    stranger = both.open(both.issuers[0], SigningKey.generate())
    with pytest.raises(ValueError, match="another key"):
        Speaker([stranger], key=both.key, clock=both.clock)
    with pytest.raises(ValueError, match="two accounts"):
        Speaker([both.accounts[0], both.accounts[0]], key=both.key, clock=both.clock)
