"""A customer with her project at her controller: she submits small pipelines and looks at what comes of them."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from broker.sources.tarball import Entry, Written, write_tar
from broker.views import JobView, ReasonView, RefusalView, RunView
from fedci.controller_client import ControllerClient
from schemas.refusals import Reason
from tests.federation.waiting import found, until

BOARD, FAST = "machine=board", "machine=fast"
"""Alice's worker w1 with two slots, and Cecilia's w7 with two slots (`fedci.federation.cast`)."""
STORE = "bettina.example"


def job(*steps: str, at: str = FAST, **keys: Any) -> dict[str, Any]:
    """A job of a pipeline; nothing that fails is tried again, unless `retries` says so."""
    return {"steps": list(steps), "labels": [at], "retries": 0, "timeout": "60s", **keys}


def snapshot(files: Mapping[str, bytes]) -> bytes:
    """A project's sources as the tar that a controller takes."""
    tar = io.BytesIO()
    entries = [Entry(path, is_executable=False, size_bytes=len(content)) for path, content in files.items()]
    written = write_tar(tar, entries, lambda entry: io.BytesIO(files[entry.path]))
    assert isinstance(written, Written)
    return tar.getvalue()


@dataclass(frozen=True)
class Run:
    """A run that was submitted."""

    client: ControllerClient
    id: str

    async def view(self) -> RunView:
        return await self.client.run(self.id)

    async def over(self, *, seconds: float = 60) -> RunView:
        return await until(self.view, lambda run: run.state != "running", seconds=seconds)

    async def job(self, name: str = "job") -> JobView:
        return next(each for each in (await self.view()).graph if each.name == name)

    async def until(self, is_so: Callable[[JobView], object], name: str = "job", *, seconds: float = 60) -> JobView:
        """The job, as soon as it is so."""
        return await until(lambda: self.job(name), is_so, seconds=seconds)

    async def settled(self, name: str = "job") -> JobView:
        """The job when it is over and all of its log is here, or certain not to come."""
        return await self.until(_is_settled, name)

    async def says(self, text: str, name: str = "job") -> str:
        """The job's log, as soon as this text is in it."""
        return await until(lambda: self.log(name), lambda log: text in log)

    async def log(self, name: str = "job") -> str:
        return (await self.client.log(self.id, name)).decode()

    async def waits_for(self, obstacle: str, name: str = "job") -> tuple[ReasonView, ...]:
        """Why the job waits, as soon as this is among the reasons."""
        waiting = await self.until(lambda each: obstacle in {why.obstacle for why in each.waiting_for}, name)
        return waiting.waiting_for


def _is_settled(each: JobView) -> bool:
    is_over = each.state not in ("waiting", "queued", "running")
    return is_over and (each.log is None or each.log.is_whole or each.log.gap is not None)


@dataclass(frozen=True)
class Project:
    """A customer's project at her controller."""

    person: str
    name: str
    client: ControllerClient

    async def submit(self, files: Mapping[str, bytes] | None = None, **jobs: dict[str, Any]) -> Run:
        """Start a run of these jobs; their names are those of the arguments."""
        pipeline = json.dumps({"name": "small", "store": STORE, "jobs": jobs}).encode()
        tar = snapshot(files or {"README": b"a small project\n"})
        submitted = await self.client.submit(self.name, snapshot=tar, revision="test", pipeline=pipeline)
        return Run(self.client, submitted.run)

    async def run(self, *steps: str, **keys: Any) -> Run:
        """Start a run of one job, `job`."""
        return await self.submit(job=job(*steps, **keys))

    async def can_build(self, at: str = FAST) -> None:
        """Show that a good job of hers still runs there."""
        done = await (await self.run("echo all is well", at=at)).settled()
        assert (done.state, done.reason) == ("succeeded", "succeeded"), done

    async def refusals(self, reason: Reason | None = None) -> list[RefusalView]:
        """The refusals that her work met, the newest first."""
        status = await self.client.status()
        return [refusal for refusal in status.refusals if reason is None or refusal.reason == reason]

    async def refused(self, reason: Reason, attempt: str | None = None, *, since: int = 0) -> RefusalView:
        """The newest refusal of this reason, about this attempt if one is named, once there are more than `since`."""

        async def look() -> RefusalView | None:
            met = await self.refusals(reason)
            about = [refusal for refusal in met if attempt is None or refusal.attempt == attempt]
            return about[0] if len(about) > since else None

        return await found(look)
