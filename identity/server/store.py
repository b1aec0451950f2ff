"""Every query of the identity server, and the one way to run them.

Authlib's core is synchronous, and so is all that is decided here. A unit of work is therefore a plain function of a
`Store`; `read` and `write` run it inside one transaction, in SQLAlchemy's greenlet (`AsyncSession.run_sync`): it may
query as it goes, sees one snapshot, and the event loop is never blocked. What is decided and what it changes is thus
one transaction, with neither a thread nor a second connection.

The functions here find and record; whether something may be done is decided elsewhere.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import Session

from identity.keys import thumbprint
from identity.server.claims import IdTokenFacts
from identity.server.proofs import Proof
from identity.server.tables import Account, ApiToken, AuditEntry, IssuedToken, IssuerKey, KeyState, SeenProof
from runtime.database import Database

T = TypeVar("T")


async def read(database: Database, work: Callable[["Store"], T]) -> T:
    """Run `work` on one snapshot; it must change nothing."""
    async with database.read() as session:
        return await session.run_sync(lambda inner: work(Store(inner)))


async def write(database: Database, work: Callable[["Store"], T]) -> T:
    """Run `work` in one transaction: all that it changes is durable when this returns, or nothing if it raises."""
    async with database.write() as session:
        return await session.run_sync(lambda inner: work(Store(inner)))


class Store:
    """The tables as one transaction sees them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # -- accounts and their API tokens

    def find_account(self, name: str) -> Account | None:
        return self._session.get(Account, name)

    def accounts(self) -> Sequence[Account]:
        return self._session.scalars(select(Account).order_by(Account.name)).all()

    def add_account(self, name: str, now: datetime) -> Account:
        account = Account(name=name, created_at=now, disabled_at=None, revoked_at=None, key=None, key_since=None)
        self._session.add(account)
        self._session.flush()
        return account

    def add_api_token(self, account: Account, digest: bytes, now: datetime) -> ApiToken:
        token = ApiToken(account=account.name, digest=digest, created_at=now, revoked_at=None)
        self._session.add(token)
        self._session.flush()
        return token

    def find_api_token(self, number: int) -> ApiToken | None:
        return self._session.get(ApiToken, number)

    def live_api_tokens(self, name: str) -> Sequence[ApiToken]:
        query = select(ApiToken).where(ApiToken.account == name, ApiToken.revoked_at.is_(None))
        return self._session.scalars(query.order_by(ApiToken.id)).all()

    def count_live_api_tokens(self) -> dict[str, int]:
        query = select(ApiToken.account, func.count()).where(ApiToken.revoked_at.is_(None)).group_by(ApiToken.account)
        return {str(name): int(count) for name, count in self._session.execute(query)}

    # -- ID tokens

    def add_issued_token(self, facts: IdTokenFacts, *, kid: str, api_token: int) -> None:
        self._session.add(
            IssuedToken(
                jti=facts.jti,
                sub=facts.sub,
                aud=facts.aud,
                kid=kid,
                api_token=api_token,
                holder_key=facts.holder_key,
                issued_at=facts.issued_at,
                expires_at=facts.expires_at,
                revoked_at=None,
            )
        )
        self._session.flush()

    def find_issued_token(self, jti: str) -> IssuedToken | None:
        return self._session.get(IssuedToken, jti)

    def revoke_issued_by(self, api_token: int, now: datetime) -> int:
        """Take back every ID token that was got with this API token and is still good; says how many."""
        taken_back = self._session.scalars(
            update(IssuedToken)
            .where(IssuedToken.api_token == api_token, IssuedToken.expires_at > now, IssuedToken.revoked_at.is_(None))
            .values(revoked_at=now)
            .returning(IssuedToken.jti)
        )
        return len(taken_back.all())

    def revoked_tokens(self, now: datetime) -> list[tuple[str, datetime]]:
        """`(jti, end)` of every token that was taken back and would still be good."""
        query = select(IssuedToken.jti, IssuedToken.expires_at).where(
            IssuedToken.revoked_at.is_not(None), IssuedToken.expires_at > now
        )
        return [(jti, end) for jti, end in self._session.execute(query.order_by(IssuedToken.jti))]

    def revoked_subjects(self, since: datetime) -> list[tuple[str, datetime]]:
        """`(sub, instant)` of every account whose tokens up to then were taken back at `since` or later."""
        query = select(Account.name, Account.revoked_at).where(Account.revoked_at >= since).order_by(Account.name)
        return [(name, at) for name, at in self._session.execute(query) if at is not None]

    # -- proofs

    def use_proof(self, proof: Proof) -> bool:
        """Remember a proof; False when it was used before."""
        statement = (
            sqlite.insert(SeenProof)
            .values(thumbprint=thumbprint(proof.key), jti=proof.jti, forget_at=proof.forget_at)
            .on_conflict_do_nothing()
            .returning(SeenProof.jti)
        )
        return self._session.scalar(statement) is not None

    def forget_old(self, now: datetime, tokens_ended_before: datetime) -> None:
        """Drop what has no effect any more: used proofs past their window, and tokens long past their end."""
        self._session.execute(delete(SeenProof).where(SeenProof.forget_at < now))
        self._session.execute(delete(IssuedToken).where(IssuedToken.expires_at < tokens_ended_before))

    # -- the issuer's keys

    def find_key(self, kid: str) -> IssuerKey | None:
        return self._session.get(IssuerKey, kid)

    def key_in(self, state: KeyState) -> IssuerKey | None:
        """The key in a state that only one can be in."""
        return self._session.scalars(select(IssuerKey).where(IssuerKey.state == state)).one_or_none()

    def published_keys(self, now: datetime) -> Sequence[IssuerKey]:
        """The key set: the active key, the next one, and retired ones whose tokens may still be good."""
        query = select(IssuerKey).where(
            or_(
                IssuerKey.state.in_((KeyState.ACTIVE, KeyState.NEXT)),
                (IssuerKey.state == KeyState.RETIRED) & (IssuerKey.published_until > now),
            )
        )
        return self._session.scalars(query.order_by(IssuerKey.published_at, IssuerKey.kid)).all()

    def former_keys(self) -> Sequence[IssuerKey]:
        query = select(IssuerKey).where(IssuerKey.state.in_((KeyState.RETIRED, KeyState.COMPROMISED)))
        return self._session.scalars(query.order_by(IssuerKey.active_until, IssuerKey.kid)).all()

    def add_key(self, public: bytes, state: KeyState, now: datetime) -> IssuerKey:
        key = IssuerKey(
            kid=thumbprint(public),
            public=public,
            state=state,
            published_at=now,
            active_from=now if state is KeyState.ACTIVE else None,
            active_until=None,
            published_until=None,
        )
        self._session.add(key)
        self._session.flush()
        return key

    def last_end_of_tokens_signed_by(self, kid: str) -> datetime | None:
        return self._session.scalar(select(func.max(IssuedToken.expires_at)).where(IssuedToken.kid == kid))

    def flush(self) -> None:
        """Send changed rows now, where the order of two changes matters to a constraint."""
        self._session.flush()

    # -- the audit log

    def audit(self, event: str, *, at: datetime, actor: str, account: str | None = None, **detail: object) -> None:
        """Append to the audit log; `detail` never holds a secret."""
        values = {"at": at, "event": event, "account": account, "actor": actor}
        self._session.execute(insert(AuditEntry).values(**values, detail=json.dumps(detail)))

    def audit_entries(self, last: int) -> Sequence[AuditEntry]:
        """The latest entries, the oldest of them first."""
        query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(last)
        return tuple(reversed(self._session.scalars(query).all()))
