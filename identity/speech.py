"""Builds and seals what this component says: messages under an account, and messages under its key alone.

What every message of a kind says the same way is filled in here and nowhere else: who speaks, to whom, with which
token (`ath`), from when until when. Nothing that is said ends after the token that it is said with, nor does a ticket
live longer than tickets may. All the rest are the caller's fields; a field that does not fit the model is our own
fault and raises pydantic's `ValidationError`.

A worker has one account at each issuer, and says to each controller's claim with the account of that controller's
issuer; a controller mostly has one. All of them are bound to the same key.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from identity.account import Account, IdToken
from identity.keys import SigningKey
from runtime.clock import Clock
from runtime.errors import OurFault
from schemas import limits
from schemas.frame import seal, token_hash
from schemas.ids import controller_audience, new_message_id, provider_audience
from schemas.orders import Order
from schemas.reports import ClaimReport, Introduced
from schemas.statements import Receipt, Statement
from schemas.tickets import AgentTicket, SessionTicket, StoreTicket
from schemas.wire import Message


class Speaker:
    """Speaks with one key, under the accounts that are bound to it.

    What needs a token is a coroutine and raises what `Account.token` raises; `issuer` may be left out by who has one
    account. Every call signs anew: a message that may be sent twice is kept as bytes by its sender.
    """

    def __init__(self, accounts: Iterable[Account], *, key: SigningKey, clock: Clock) -> None:
        """Raises `ValueError` where two accounts are at one issuer, or one is bound to another key."""
        self._key = key
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        for account in accounts:
            if account.key.public != key.public:
                raise ValueError(f"the account at {account.issuer} is bound to another key")
            if account.issuer in self._accounts:
                raise ValueError(f"two accounts at {account.issuer}")
            self._accounts[account.issuer] = account

    @property
    def issuers(self) -> tuple[str, ...]:
        return tuple(self._accounts)

    # -- Under an account

    async def order(
        self,
        provider: str,
        model: type[Order],
        *,
        issuer: str | None = None,
        expires_at: datetime | None = None,
        **fields: Any,
    ) -> bytes:
        """An order to `provider`, good until `expires_at` or its token's end, whichever comes first."""
        token = await self._token(issuer, provider_audience(provider))
        times = self._times(token, expires_at or token.expires_at)
        ids = {"id": new_message_id()} if "id" in model.model_fields else {}
        return self._seal(model, {**_identity(token), "aud": token.aud, **times, **ids, **fields}, token)

    async def ticket(
        self,
        audience: str,
        model: type[SessionTicket] | type[StoreTicket],
        *,
        issuer: str | None = None,
        **fields: Any,
    ) -> bytes:
        """A ticket to a desk (`provider_audience`) or a store (`store_audience`), to be used within seconds."""
        token = await self._token(issuer, audience)
        times = self._times(token, self._clock.now() + timedelta(seconds=limits.TICKET_SECONDS))
        said = {**_identity(token), "aud": token.aud, "id": new_message_id(), **times, **fields}
        return self._seal(model, said, token)

    async def introduction(
        self, tenant: str, model: type[Introduced], *, issuer: str | None = None, **fields: Any
    ) -> bytes:
        """A claim or a refusal to the controller of `tenant`, under our account at its issuer."""
        token = await self._token(issuer, controller_audience(tenant))
        return self._seal(model, {**_identity(token), "aud": token.aud, "made_at": self._clock.now(), **fields}, token)

    async def receipt(self, provider: str, *, issuer: str | None = None, **fields: Any) -> bytes:
        """The customer's answer to usage events of `provider`."""
        token = await self._token(issuer, provider_audience(provider))
        said = {"id": new_message_id(), "provider": provider, "made_at": self._clock.now(), **fields}
        return self._seal(Receipt, {**_identity(token), **said}, token)

    # -- Under the key alone

    def report(self, tenant: str, model: type[ClaimReport], **fields: Any) -> bytes:
        """A report about a claim to the controller of `tenant`, which recorded our key with the claim."""
        said = {"aud": controller_audience(tenant), "made_at": self._clock.now(), **fields}
        return self._seal(model, said)

    def agent_ticket(self, provider: str, **fields: Any) -> bytes:
        """A ticket of one of the provider's own agents to its desk."""
        now = self._clock.now()
        times = {"issued_at": now, "expires_at": now + timedelta(seconds=limits.TICKET_SECONDS)}
        said = {"aud": provider_audience(provider), "id": new_message_id(), **times, **fields}
        return self._seal(AgentTicket, said)

    def statement(self, model: type[Statement], **fields: Any) -> bytes:
        """A provider's statement: usage, card, rate card, invoice. Its times are facts, and the caller's."""
        return self._seal(model, fields)

    async def _token(self, issuer: str | None, audience: str) -> IdToken:
        return await self._account(issuer).token(audience)

    def _account(self, issuer: str | None) -> Account:
        if issuer is None and len(self._accounts) == 1:
            return next(iter(self._accounts.values()))
        account = self._accounts.get(issuer or "")
        if account is None:
            raise OurFault(
                "no account at this issuer" if issuer else "several accounts, and no word which one is to speak",
                where=issuer or "",
                remedy=f"There are accounts at {', '.join(self._accounts) or 'no issuer at all'}.",
            )
        return account

    def _times(self, token: IdToken, expires_at: datetime) -> dict[str, datetime]:
        return {"issued_at": self._clock.now(), "expires_at": min(expires_at, token.expires_at)}

    def _seal(self, model: type[Message], fields: dict[str, Any], token: IdToken | None = None) -> bytes:
        return seal(model(**fields), self._key.private, token.raw if token else None)


def _identity(token: IdToken) -> dict[str, str]:
    return {"iss": token.iss, "sub": token.sub, "ath": token_hash(token.raw)}
