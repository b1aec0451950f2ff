"""What an identity server does by itself from time to time: forget what has no effect any more, and rotate its key."""

import asyncio
from datetime import datetime, timedelta

from identity.server.administration import Operator, rotate_keys
from identity.server.authorization import Issuer
from identity.server.signing_keys import is_rotation_due
from identity.server.store import Store, write
from runtime.database import Database
from runtime.errors import WorldFault
from runtime.logging import get_logger

EVERY_SECONDS = 600
_KEEP_ENDED_TOKENS = timedelta(days=1)
_ACTOR = "housekeeping"
_log = get_logger(__name__)


async def keep_house(issuer: Issuer, database: Database) -> None:
    """Tidy every ten minutes until cancelled; what fails is tried again the next time."""
    while True:
        try:
            await tidy(issuer, database)
        except WorldFault as error:
            _log.warning("housekeeping_failed", reason=str(error))
        await asyncio.sleep(EVERY_SECONDS)


async def tidy(issuer: Issuer, database: Database) -> None:
    """Do once what is due now."""
    now = issuer.clock.now()
    retired = await write(database, lambda store: _tidy(issuer, store, now))
    if retired is not None:
        issuer.files.remove(retired)
        _log.info("key_rotated", kid=retired)


def _tidy(issuer: Issuer, store: Store, now: datetime) -> str | None:
    """Forget and rotate; returns the `kid` whose private half may go."""
    store.forget_old(now, now - _KEEP_ENDED_TOKENS)
    max_age, days = issuer.settings.jwks_max_age_seconds, issuer.settings.rotate_keys_after_days
    if not is_rotation_due(store, now, after_days=days, jwks_max_age_seconds=max_age):
        return None
    return rotate_keys(store, Operator(_ACTOR, now), issuer.files, jwks_max_age_seconds=max_age, emergency=False)
