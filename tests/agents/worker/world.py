"""A worker's world without network: an issuer, two customers, a bus in memory, an executor that does as it is told.

Identity, envelopes, journal, spool and services are the real ones. The bus keeps what was published and answers as the
test says; the executor's jobs write what the test gives them and end when it says so.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgpack

from agents.sandbox.causes import Cause
from agents.sandbox.executor import End, Executor, JobSpec, Outcome, Sandbox, StepResult, Use
from agents.worker.jobs.jails import Jails
from agents.worker.jobs.metering import Meterer
from agents.worker.jobs.work import Workplace
from agents.worker.journal.claims import Journal
from agents.worker.orders.admission import Lent
from agents.worker.ports import StoreTab
from agents.worker.services import Adapters, Services, assemble
from agents.worker.speech.log_stream import StreamLimits
from agents.worker.speech.post import Patience
from bus.delivery import Fate
from bus.topology import ProviderNames
from identity.account import Account
from identity.keys import SigningKey
from identity.speech import Speaker
from identity.trust import Trust
from runtime.clock import Clock
from runtime.outbox import PublishResult, Sent
from schemas import frame, ids, registry
from schemas.frame import UnverifiedFrame
from schemas.orders import Cancel, Grant, GrantSecrets, Job, Order, Resend, Settled, StandDown
from schemas.refusals import Reason, Refusal
from schemas.reports import Claim, Log
from schemas.sealing import seal_for_claim
from schemas.wire import Message
from tests.agents.worker.jobs import ISSUER, LENT, PROVIDER, WORKER, job_fields
from tests.clocks import START
from tests.issuers import FakeIssuer, client_of

NAMES = ProviderNames(PROVIDER)


@dataclass
class FakeDelivery:
    """A delivery that remembers its fate."""

    body: bytes
    exchange: str
    fate: str | None = None

    async def ack(self) -> bool:
        return self._settle("ack")

    async def requeue(self) -> bool:
        return self._settle("requeue")

    async def reject(self) -> bool:
        return self._settle("reject")

    def _settle(self, fate: str) -> bool:
        if self.fate is not None:
            return False
        self.fate = fate
        return True


@dataclass(frozen=True)
class Published:
    exchange: str
    routing_key: str
    message: Message
    body: bytes
    expires_after: timedelta | None


class FakeBus:
    """Takes what is published, unless `answer` says otherwise; whoever waits for a message is woken."""

    def __init__(self) -> None:
        self.published: list[Published] = []
        self.answer: Callable[[Published], PublishResult] = lambda _: Sent()
        self.on_message: Callable[[Published], None] = lambda _: None
        self._news = asyncio.Condition()

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        message_type: str,
        correlation_id: str,
        expires_after: timedelta | None = None,
    ) -> PublishResult:
        message = read(body)
        assert message_type == message.TYPE
        said = Published(exchange, routing_key, message, body, expires_after)
        answer = self.answer(said)
        if isinstance(answer, Sent):
            self.published.append(said)
            async with self._news:
                self._news.notify_all()
        return answer

    def of(self, model: type[Message]) -> list[Any]:
        return [said.message for said in self.published if isinstance(said.message, model)]

    async def until(self, model: type[Message], count: int = 1) -> Any:
        """Wait for the so many-th message of a type, and return it."""
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: len(self.of(model)) >= count)
        return self.of(model)[count - 1]

    async def until_true(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(is_true)

    def log(self) -> bytes:
        """The log as a controller puts it together: by offset, each offset once."""
        chunks = {log.offset: log.data for log in self.of(Log)}
        whole = b""
        for offset in sorted(chunks):
            assert offset == len(whole), "a gap or an overlap"
            whole += chunks[offset]
        return whole


def read(body: bytes) -> Message:
    parts = frame.split(body)
    assert isinstance(parts, UnverifiedFrame), parts
    model = registry.find(parts.type)
    assert not isinstance(model, Refusal), model
    message = model.from_payload(parts.payload)
    assert not isinstance(message, Refusal), message
    return message


class Customer:
    """A controller: signs orders with its own token and key."""

    def __init__(self, issuer: FakeIssuer, sub: str, clock: Clock) -> None:
        issuer.accounts[sub] = f"secret of {sub}"
        self.key = SigningKey.generate()
        account = Account(
            issuer=issuer.url, sub=sub, api_token=issuer.accounts[sub], key=self.key, client=client_of(issuer),
            clock=clock,
        )  # fmt: skip
        self.speaker = Speaker([account], key=self.key, clock=clock)
        self.tenant = ids.tenant_id(issuer.url, sub)

    async def job(self, *, provider: str = PROVIDER, **changes: Any) -> bytes:
        return await self.speaker.order(provider, Job, **job_fields(**changes))

    async def offer(self, **changes: Any) -> FakeDelivery:
        """A job as it comes from this customer's own exchange."""
        return FakeDelivery(await self.job(**changes), NAMES.jobs_exchange(self.tenant))

    async def grant(self, claim: Claim, *, lease_seconds: int = 120, **secrets: Any) -> FakeDelivery:
        box = seal_for_claim(
            _pack(GrantSecrets(**secrets)),
            claim.grant_key,
            attempt=claim.attempt,
            claim=claim.claim,
        )
        return await self.order(claim, Grant, lease_seconds=lease_seconds, sealed=box)

    async def stand_down(self, claim: Claim, reason: Reason = Reason.ALREADY_GRANTED) -> FakeDelivery:
        return await self.order(claim, StandDown, reason=reason)

    async def cancel(self, claim: Claim) -> FakeDelivery:
        return await self.order(claim, Cancel, cause="user")

    async def resend(self, claim: Claim, log_from: int, log_to: int, sequences: tuple[int, ...] = ()) -> FakeDelivery:
        return await self.order(claim, Resend, log_from=log_from, log_to=log_to, sequences=sequences)

    async def settled(self, claim: Claim) -> FakeDelivery:
        return await self.order(claim, Settled)

    async def order(self, claim: Claim, model: type[Order], **fields: Any) -> FakeDelivery:
        body = await self.speaker.order(PROVIDER, model, attempt=claim.attempt, claim=claim.claim, **fields)
        return FakeDelivery(body, NAMES.control_exchange(self.tenant))


def _pack(secrets: GrantSecrets) -> bytes:
    packed: bytes = msgpack.packb(secrets.model_dump(), use_bin_type=True)
    return packed


@dataclass
class Script:
    """What the fake executor's jobs do."""

    chunks: list[bytes] = field(default_factory=lambda: [b"made\n"])
    end: End = End.SUCCEEDED
    lasts: bool = False
    """The job goes on until it is told to end."""
    fault: BaseException | None = None


class FakeSandbox:
    def __init__(self, spec: JobSpec, script: Script, workspace: Path) -> None:
        self.spec = spec
        self.workspace = workspace
        self.owner = (os.getuid(), os.getgid())
        self.steps: tuple[StepResult, ...] = ()
        self.leases: list[float] = []
        self.cause: Cause | None = None
        self._script = script
        self._told = asyncio.Event()
        self._over = asyncio.Event()

    async def run(self, lease_until: float) -> AsyncIterator[bytes]:
        self.leases.append(lease_until)
        for chunk in self._script.chunks:
            if self.cause is None:
                yield chunk
        if self._script.lasts:
            await self._told.wait()
        self._over.set()

    def extend(self, lease_until: float) -> None:
        self.leases.append(lease_until)

    async def signal(self, cause: Cause) -> None:
        self.cause = self.cause or cause
        self._told.set()
        self._over.set()

    async def outcome(self) -> Outcome:
        await self._over.wait()
        use = Use(1.0, 0.5, 4096, is_estimated=False)
        if self.cause is not None:
            return Outcome(End.KILLED, self.cause, (), use)
        code = 0 if self._script.end is End.SUCCEEDED else 3
        return Outcome(self._script.end, None, (StepResult("make", code, None, START, 0.5),), use)


class FakeExecutor:
    """Obeys `agents.sandbox.executor.Executor` without a process."""

    name = "fake"

    def __init__(self, directory: Path) -> None:
        self.script = Script()
        self.sandboxes: list[FakeSandbox] = []
        self._directory = directory

    @asynccontextmanager
    async def prepare(self, spec: JobSpec) -> AsyncIterator[Sandbox]:
        if self.script.fault is not None:
            raise self.script.fault
        workspace = self._directory / spec.job_id
        workspace.mkdir(parents=True)
        sandbox = FakeSandbox(spec, self.script, workspace)
        self.sandboxes.append(sandbox)
        yield sandbox

    async def reap(self) -> tuple[str, ...]:
        return ()


class FakeStores:
    """Stores that hold `blobs`; `refusal` is what they answer instead."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.refusal: Refusal | None = None
        self.fault: Exception | None = None
        self.tickets: list[bytes] = []
        self.closed = 0

    async def open_tab(self, store: str, ticket: bytes) -> StoreTab | Refusal:
        if self.fault is not None:
            raise self.fault
        self.tickets.append(ticket)
        return self.refusal or self

    async def get_to_file(self, digest: str, path: Path, max_bytes: int) -> int | Refusal:
        if digest not in self.blobs:
            return Refusal(Reason.NOT_FOUND)
        return path.write_bytes(self.blobs[digest])

    async def put_file(self, path: Path, digest: str, size_bytes: int) -> Refusal | None:
        self.blobs[digest] = path.read_bytes()
        return None

    async def name(self, path: str, digest: str, size_bytes: int) -> Refusal | None:
        self.names[path] = digest
        return None

    async def close(self) -> None:
        self.closed += 1


class World:
    """One worker, with all around it. Start it with `running`."""

    def __init__(self, tmp_path: Path, clock: Clock, executor: Executor | None = None) -> None:
        self.directory = tmp_path
        self.clock = clock
        self.issuer = FakeIssuer(ISSUER, clock)
        self.dinah = Customer(self.issuer, "dinah", clock)
        self.eliza = Customer(self.issuer, "eliza", clock)
        self.bus = FakeBus()
        self.stores = FakeStores()
        self.fake = FakeExecutor(tmp_path / "workspaces")
        self.executor = executor or self.fake
        self.key = SigningKey.generate()
        self.lent: Lent = LENT
        self.is_draining = False
        self.patience = Patience(publish_seconds=5.0, retry_seconds=0.01, pause_seconds=0.01)
        self.stream_limits = StreamLimits(
            batch_seconds=0.01, backlog_bytes=200_000, first_retry_seconds=0.01, last_retry_seconds=0.02
        )
        self.issuer.accounts[WORKER] = "secret of the worker"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Services]:
        """A life of the worker: recovered, logs and outbox running; killed at the end of the block."""
        journal = await Journal.open(self.directory / "journal.sqlite")
        services = assemble(self._adapters(journal))
        await services.recover()
        background = [asyncio.create_task(services.logs.run()), asyncio.create_task(services.drain_outbox())]
        try:
            yield services
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await journal.close()

    async def control(self, services: Services, delivery: FakeDelivery) -> Fate:
        return await services.control.handle(delivery)

    async def _lent(self, _: Job) -> Lent:
        return self.lent

    def _adapters(self, journal: Journal) -> Adapters:
        client = client_of(self.issuer)
        account = Account(
            issuer=self.issuer.url, sub=WORKER, api_token=self.issuer.accounts[WORKER], key=self.key, client=client,
            clock=self.clock,
        )  # fmt: skip
        jails = Jails(PROVIDER, WORKER, self.executor.name, (), ("the weather",), 0.5)
        return Adapters(
            meterer=Meterer(PROVIDER, WORKER),
            journal=journal,
            spool=self.directory / "spool",
            publisher=self.bus,
            trust=Trust([self.issuer.profile()], client=client, clock=self.clock),
            speaker=Speaker([account], key=self.key, clock=self.clock),
            place=Workplace(self.executor, self.stores, self.directory / "scratch", jails.spec_of, jails.header_of),
            lent=self._lent,
            is_draining=lambda: self.is_draining,
            clock=self.clock,
            patience=self.patience,
            stream_limits=self.stream_limits,
        )
