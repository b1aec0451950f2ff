"""Tells listeners that a run changed, as server-sent events; what changed they ask for themselves."""

import json
from collections.abc import AsyncIterator

from broker.bells import Bells, wait_for
from broker.decisions.graph import RunState
from broker.store import runs as run_store
from runtime.database import Database

_KEEP_ALIVE_SECONDS = 15.0


class RunFollower:
    """Follows runs for pages and the command line."""

    def __init__(self, *, database: Database, bells: Bells) -> None:
        self._database = database
        self._bells = bells

    async def follow(self, run_id: str) -> AsyncIterator[str]:
        """`changed` at once and after every change, `end` when the run is over; comments keep the line alive."""
        with self._bells.listening(run_id) as bell:
            while True:
                bell.clear()
                async with self._database.read() as session:
                    row = await run_store.run(session, run_id)
                if row is None:
                    return
                is_over = row.state is not RunState.RUNNING
                yield f"event: {'end' if is_over else 'changed'}\ndata: {json.dumps({'state': row.state})}\n\n"
                if is_over:
                    return
                while not await wait_for(bell, _KEEP_ALIVE_SECONDS):
                    yield ": still here\n\n"
