"""What must not happen, tried for real: four trespasses at the real doors of a running federation.

Each is made with what a trespasser could have: an issuer of one's own, a token seen somewhere, an account and a key, a
digest read in somebody's log. Each gives back how it was refused; an empty reason means that a door stood open.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import httpx

from bus.desk_client import DeskClient
from bus.session import BusSession
from bus.topology import ProviderNames, jobs_key
from fedci.federation.report import RefusalReport
from identity.account import Account
from identity.keys import SigningKey
from identity.speech import Speaker
from runtime.clock import Clock
from runtime.errors import WorldFault
from runtime.outbox import Sent
from runtime.store_client import StoreClient
from schemas import frame
from schemas.ids import (
    new_attempt_id,
    new_message_id,
    new_run_id,
    provider_audience,
    sha256_hex,
    store_audience,
    tenant_id,
)
from schemas.orders import Job, Source, Step
from schemas.refusals import Reason, Refusal
from schemas.sessions import SessionGranted
from schemas.tickets import SessionTicket, StoreTicket

SOON = timedelta(seconds=30)
ANSWER_SECONDS = 20.0
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who takes part: an account at an issuer, and the key that it is bound to."""

    person: str
    issuer: str
    account: Account
    key: SigningKey

    @property
    def tenant(self) -> str:
        return tenant_id(self.issuer, self.account.sub)


class Trespasses:
    """The four attempts; each method is one, and needs the doors that its arguments name."""

    def __init__(self, http: httpx.AsyncClient, clock: Clock) -> None:
        self._http = http
        self._clock = clock

    async def session_under_an_issuer_of_ones_own(self, mallory: Member, desk_url: str, provider: str) -> RefusalReport:
        """Mallory runs an issuer and vouches for herself; the provider never chose to believe it."""
        speaker = Speaker([mallory.account], key=mallory.key, clock=self._clock)
        ticket = await speaker.ticket(provider_audience(provider), SessionTicket)
        answer = await DeskClient(desk_url, self._http).session(ticket)
        return _report(
            mallory.person, f"{provider}'s desk", "a session under her own issuer", answer, Reason.ISSUER_UNTRUSTED
        )

    async def session_with_a_stolen_token(self, victim: Member, desk_url: str, provider: str) -> RefusalReport:
        """A thief has the victim's ID token, fresh and good, but not the key that it is bound to."""
        token = await victim.account.token(provider_audience(provider))
        thief, now = SigningKey.generate(), self._clock.now()
        ticket = SessionTicket(
            id=new_message_id(),
            iss=token.iss,
            sub=token.sub,
            aud=token.aud,
            ath=frame.token_hash(token.raw),
            issued_at=now,
            expires_at=min(now + SOON, token.expires_at),
        )
        raw = frame.seal(ticket, thief.private, token.raw)
        answer = await DeskClient(desk_url, self._http).session(raw)
        return _report(
            "A thief",
            f"{provider}'s desk",
            f"a session with {victim.person}'s stolen ID token",
            answer,
            Reason.ENVELOPE_SIGNATURE,
        )

    async def job_for_another_provider(
        self,
        customer: Member,
        desk_url: str,
        provider: str,
        pool: str,
        other: str,
        refusal_of: Callable[[str], Awaitable[Refusal | None]],
    ) -> RefusalReport:
        """An order that was signed for one provider is brought to another one's workers.

        `refusal_of` asks the customer's own controller what came back for an attempt.
        """
        speaker = Speaker([customer.account], key=customer.key, clock=self._clock)
        attempt = new_attempt_id()
        order = await speaker.order(
            other,
            Job,
            attempt=attempt,
            number=1,
            project="elsewhere",
            run=new_run_id(),
            name="elsewhere",
            pool=pool,
            steps=(Step(name="true", run="true"),),
            source=Source(digest=sha256_hex(b""), size_bytes=0, revision="none", inline=b""),
            rate_card="0" * 64,
        )
        await self._publish(speaker, customer, desk_url, provider, pool, attempt, order)
        answer = await _until(lambda: refusal_of(attempt))
        return _report(customer.person, f"{provider}'s worker", f"a job signed for {other}", answer, Reason.AUDIENCE)

    async def another_customers_artifact(
        self, customer: Member, store_url: str, provider: str, digest: str, owner: str
    ) -> RefusalReport:
        """A customer knows the digest of another one's artifact and asks the store for it."""
        speaker = Speaker([customer.account], key=customer.key, clock=self._clock)
        ticket = await speaker.ticket(
            store_audience(provider),
            StoreTicket,
            holder_key=customer.key.public,
            attempt=None,
            reads=(digest,),
            tab_ends_at=self._clock.now() + SOON,
        )
        store = StoreClient(store_url, self._http, customer.key.private, self._clock)
        answer = await _read_blob(store, ticket, digest)
        return _report(customer.person, f"{provider}'s store", f"{owner}'s artifact", answer, Reason.NOT_FOUND)

    async def _publish(
        self, speaker: Speaker, customer: Member, desk_url: str, provider: str, pool: str, attempt: str, order: bytes
    ) -> None:
        """Put an order on the customer's own exchange at this provider, as its controller would."""
        desk = DeskClient(desk_url, self._http)

        async def credentials(_revision: int | None) -> SessionGranted | Refusal:
            return await desk.session(await speaker.ticket(provider_audience(provider), SessionTicket))

        bus = BusSession(credentials, name=f"{customer.person} by hand", clock=self._clock)
        exchange = ProviderNames(provider).jobs_exchange(customer.tenant)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(bus.run())
            async with asyncio.timeout(ANSWER_SECONDS):
                await bus.up()
                sent = await bus.publish(exchange, jobs_key(pool), order, message_type=Job.TYPE, correlation_id=attempt)
            await bus.close()
            running.cancel()
        if not isinstance(sent, Sent):
            raise WorldFault(f"the order was not taken by the bus ({sent})", where=exchange)


def _report(who: str, at: str, attempt: str, answer: object, expected: Reason) -> RefusalReport:
    refusal = answer if isinstance(answer, Refusal) else None
    return RefusalReport(
        who=who,
        at=at,
        attempt=attempt,
        reason=str(refusal.reason) if refusal else "",
        detail=refusal.detail if refusal else "",
        expected=str(expected),
    )


async def _until(ask: Callable[[], Awaitable[Refusal | None]]) -> Refusal | None:
    """Ask until there is an answer, or for as long as one may take."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while (answer := await ask()) is None:  # noqa: ASYNC110 - over HTTP there is nothing else to wait on
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        return None
    return answer


async def _read_blob(store: StoreClient, ticket: bytes, digest: str) -> Refusal | None:
    tab = await store.open_tab(ticket)
    if isinstance(tab, Refusal):
        return tab
    async with tab.stream(digest) as blob:
        answer = blob if isinstance(blob, Refusal) else None
    await tab.close()
    return answer
