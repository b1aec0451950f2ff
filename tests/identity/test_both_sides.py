"""Our identity server, and those who get tokens from it and trust it: both sides of the contract, both real."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from identity.account import Account, TokenRefused
from identity.keys import SigningKey
from identity.server import administration
from identity.speech import Speaker
from identity.trust import IssuerProfile, Trust, Verified
from schemas.ids import provider_audience
from schemas.refusals import Reason, Refusal
from schemas.tickets import SessionTicket
from tests.clocks import ManualClock
from tests.identity.server.issuing import URL, Server, running

PROVIDER = "alice.example"
DESK = provider_audience(PROVIDER)


@dataclass
class Meeting:
    """Dinah with her account, and Alice's desk."""

    server: Server
    account: Account
    speaker: Speaker
    trust: Trust
    clock: ManualClock

    async def knock(self) -> bytes:
        return await self.speaker.ticket(DESK, SessionTicket)

    async def reason(self, ticket: bytes) -> Reason | None:
        verdict = await self.trust.ticket(ticket, audience=DESK)
        return verdict.reason if isinstance(verdict, Refusal) else None

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.trust.prime()


@pytest_asyncio.fixture
async def meeting(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Meeting]:
    async with running(tmp_path / "id", clock) as server:
        dinah, key = await server.enrol("dinah"), SigningKey.generate()
        account = Account(
            issuer=URL, sub=dinah.name, api_token=dinah.api_token, key=key, client=server.client, clock=clock
        )
        trust = Trust([IssuerProfile(url=URL)], client=server.client, clock=clock)
        yield Meeting(server, account, Speaker([account], key=key, clock=clock), trust, clock)


async def test_a_token_of_our_server_is_good_at_those_who_trust_it(meeting: Meeting) -> None:
    verdict = await meeting.trust.ticket(await meeting.knock(), audience=DESK)
    assert isinstance(verdict, Verified), verdict
    assert (verdict.principal.iss, verdict.principal.sub) == (URL, "dinah")
    assert meeting.trust.troubles() == {}


async def test_a_disabled_account_is_out_within_a_minute(meeting: Meeting) -> None:
    assert await meeting.reason(await meeting.knock()) is None
    await meeting.server.operate(administration.disable_account, "dinah")
    await meeting.pass_time(60)
    assert await meeting.reason(await meeting.knock()) is Reason.REVOKED
    meeting.account.forget()
    with pytest.raises(TokenRefused, match="invalid_client"):
        await meeting.knock()


async def test_rotating_keys_disturbs_nobody(meeting: Meeting) -> None:
    for _ in range(3):
        meeting.account.forget()
        assert await meeting.reason(await meeting.knock()) is None
        await meeting.pass_time(600)
        await meeting.server.rotate()
        assert await meeting.reason(await meeting.knock()) is None


async def test_a_compromised_key_is_out_within_five_minutes_and_the_next_one_in(meeting: Meeting) -> None:
    await meeting.trust.prime()
    old = await meeting.knock()
    assert await meeting.reason(old) is None
    await meeting.server.rotate(emergency=True)
    await meeting.pass_time(60)
    meeting.account.forget()
    assert await meeting.reason(await meeting.knock()) is None
    await meeting.pass_time(240)
    assert await meeting.reason(await meeting.knock()) is None
    assert await meeting.reason(old) is Reason.KEY_UNKNOWN
