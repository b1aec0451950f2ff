"""A controller with everything but the network around it: real database, files, keys and envelopes.

`World` is Dinah's controller; `Worker` speaks as a provider's worker does, with tokens of the same issuer. What the
controller says is read from its outbox, as the bus would get it; what a worker says is handed to the intake, as the
bus would hand it out. Time moves only when a test says so.
"""

import atexit
import io
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from broker import vault
from broker.bells import Bells
from broker.controller import Controller, Parts
from broker.decisions.leases import Hearing
from broker.dispatch.outgoing import Destination
from broker.providers.book import KnownProvider
from broker.runs import Submission, Submitted
from broker.store import attempts as attempt_store
from broker.store import claims as claim_store
from broker.store import projects as project_store
from broker.store import providers as provider_store
from broker.store import runs as run_store
from broker.tables import AttemptRow, ClaimRow, JobRow, ProviderRow, RunRow
from broker.vault import Vault
from broker.voice import Voice
from identity.account import Account
from identity.keys import SigningKey
from identity.speech import Speaker
from identity.trust import Trust
from runtime.database import Database
from runtime.migrations import upgrade
from schemas import frame, ids, registry, wire
from schemas.ends import EndReason
from schemas.orders import Grant, GrantSecrets, Job, Order
from schemas.refusals import Reason, Refusal
from schemas.registry import SPEAKS
from schemas.reports import Claim, Finished, Heartbeat, Log, Refused, Released, Used
from schemas.sealing import open_for_claim
from schemas.statements import Agent, AgentAccount, Card, Pool, Rate, RateCard, StoreOffer, Usage, usage_id
from schemas.tickets import Toolchain
from tests.clocks import ManualClock
from tests.issuers import FakeIssuer, client_of

API_TOKEN = "an api token"
USED = Used(wall_seconds="1.5", cpu_seconds="1", memory_peak_bytes=1000, is_estimate=False)  # type: ignore[arg-type]
NOBODY = SigningKey.generate()


def tar_of(files: dict[str, bytes]) -> bytes:
    """A snapshot with these files."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


class FakeProvider:
    """A provider's root and agents, and the card that it signs."""

    def __init__(self, name: str, issuer: FakeIssuer, clock: ManualClock, *, store: bool = False) -> None:
        self.name = name
        self.issuer = issuer
        self.clock = clock
        self.root = SigningKey.generate()
        self.serial = 0
        self.store = StoreOffer(url="https://store.example") if store else None
        self.workers: dict[str, Worker] = {}
        self.desk = Worker(self, "desk", role="desk")
        self.pool_changes: dict[str, Any] = {}
        self.card_changes: dict[str, Any] = {}
        self.rate_card = self._rate_card()

    def hire(self, name: str) -> "Worker":
        self.workers[name] = Worker(self, name)
        return self.workers[name]

    def _rate_card(self) -> bytes:
        now = self.clock.now()
        card = RateCard(
            provider=self.name,
            serial=1,
            currency="EUR",
            rates=(Rate(meter="wall-seconds", unit="second", price="0.01", per="1", increment="1"),),  # type: ignore[arg-type]
            valid_from=now.replace(year=2025),
            valid_until=now.replace(year=2030),
        )
        return frame.seal(card, self.root.private)

    def pool(self) -> Pool:
        facts: dict[str, Any] = {
            "name": "main",
            "workers": tuple(self.workers),
            "labels": ("os=linux", f"at={self.name.partition('.')[0]}"),
            "toolchains": (Toolchain(name="python"),),
            "stores": ("bettina.example",),
            "slots": 2,
            "cores": 4,
            "memory_bytes": 8 * 2**30,
            "disk_bytes": 64 * 2**30,
            "is_network_allowed": False,
        }
        return Pool(**(facts | self.pool_changes))

    def card(self) -> bytes:
        """The next card, signed."""
        self.serial += 1
        agents = tuple(worker.agent for worker in (self.desk, *self.workers.values()))
        facts: dict[str, Any] = {
            "provider": self.name,
            "serial": self.serial,
            "desk_url": f"https://{self.name}",
            "issuers": (self.issuer.url,),
            "agents": agents,
            "pools": (self.pool(),) if self.workers else (),
            "store": self.store,
            "rate_card": ids.sha256_hex(self.rate_card),
            "speaks": SPEAKS,
            "issued_at": self.clock.now(),
            "expires_at": self.clock.now() + timedelta(days=30),
        }
        return frame.seal(Card(**(facts | self.card_changes)), self.root.private)


class Worker:
    """An agent of a provider that speaks to one controller; by default it keeps to the rules."""

    def __init__(self, provider: FakeProvider, name: str, role: str = "worker") -> None:
        self.provider = provider
        self.name = name
        self.key = SigningKey.generate()
        self.sub = f"{provider.name}-{name}"
        provider.issuer.accounts[self.sub] = API_TOKEN
        self.speaker = speaker_of(provider.issuer, self.sub, self.key, provider.clock)
        self.role = role
        self._sequences: dict[str, int] = {}
        self._grant_keys: dict[str, X25519PrivateKey] = {}

    @property
    def agent(self) -> Agent:
        account = AgentAccount(iss=self.provider.issuer.url, sub=self.sub)
        return Agent(name=self.name, role=self.role, key=self.key.public, accounts=(account,))  # type: ignore[arg-type]

    def _who(self) -> dict[str, str]:
        return {"provider": self.provider.name, "agent": self.name}

    async def claim(self, tenant: str, attempt: str, claim: str | None = None) -> "Claimed":
        claim = claim or ids.new_claim_id()
        key = X25519PrivateKey.generate()
        fields: dict[str, Any] = {"attempt": attempt, "claim": claim, "grant_key": key.public_key().public_bytes_raw()}
        raw = await self.speaker.introduction(tenant, Claim, **self._who(), **fields)
        return Claimed(self, tenant, attempt, claim, raw, key)

    async def refuse(self, tenant: str, order: bytes, attempt: str | None, reason: Reason, scope: str) -> bytes:
        fields: dict[str, Any] = {
            "subject": ids.sha256_hex(order),
            "attempt": attempt,
            "reason": reason,
            "scope": scope,
        }
        return await self.speaker.introduction(tenant, Refused, **self._who(), **fields, detail="no")


@dataclass
class Claimed:
    """A claim, and what its worker reports about it."""

    worker: Worker
    tenant: str
    attempt: str
    claim: str
    raw: bytes
    key: X25519PrivateKey
    sequence: int = 0

    def _report(self, model: Any, sequence: int | None = None, **fields: Any) -> bytes:
        if sequence is None:
            sequence, self.sequence = self.sequence, self.sequence + 1
        who = {"provider": self.worker.provider.name, "agent": self.worker.name}
        said = {"attempt": self.attempt, "claim": self.claim, "sequence": sequence}
        return self.worker.speaker.report(self.tenant, model, **who, **said, **fields)

    def heartbeat(self) -> bytes:
        return self._report(Heartbeat, step=0, log_bytes=0, used=USED)

    def log(self, offset: int, data: bytes) -> bytes:
        return self._report(Log, sequence=offset, data=data)

    def released(self, reason: Reason = Reason.GRANT_TOO_LATE) -> bytes:
        return self._report(Released, reason=reason)

    def finished(self, reason: EndReason = EndReason.SUCCEEDED, log: bytes = b"", **changes: Any) -> bytes:
        now = self.worker.provider.clock.now()
        facts: dict[str, Any] = {
            "reason": reason,
            "detail": "",
            "started_at": now,
            "ended_at": now,
            "steps": (),
            "log_bytes": len(log),
            "log_sha256": ids.sha256_hex(log),
            "used": USED,
        }
        return self._report(Finished, **(facts | changes))

    def usage(self, world: "World", rate_card: str, **changes: Any) -> bytes:
        now, provider = self.worker.provider.clock.now(), self.worker.provider.name
        facts: dict[str, Any] = {
            "provider": provider,
            "source": f"fedci:{provider}:{self.worker.name}",
            "subject": self.attempt,
            "agent": self.worker.name,
            "iss": world.voice.issuer,
            "sub": world.voice.sub,
            "meter": "wall-seconds",
            "interval": 0,
            "started_at": now,
            "ended_at": now,
            "quantity": "2",
            "rate_card": rate_card,
            "attempt": self.attempt,
            "claim": self.claim,
            "reason": EndReason.SUCCEEDED,
        }
        facts |= changes
        derived = usage_id(provider, facts["subject"], facts["meter"], facts["interval"])
        return self.worker.speaker.statement(Usage, **({"id": derived} | facts))

    def open(self, grant: Grant) -> GrantSecrets | None:
        """What was sealed to this claim, or None when it was sealed to another."""
        plaintext = open_for_claim(grant.sealed, self.key, attempt=self.attempt, claim=self.claim)
        return None if plaintext is None else GrantSecrets.model_validate(wire.unpack_map(plaintext))


def speaker_of(issuer: FakeIssuer, sub: str, key: SigningKey, clock: ManualClock) -> Speaker:
    account = Account(issuer=issuer.url, sub=sub, api_token=API_TOKEN, key=key, client=client_of(issuer), clock=clock)
    return Speaker([account], key=key, clock=clock)


@dataclass(frozen=True)
class Said:
    """An order in the outbox."""

    to: Destination
    order: Any
    raw: bytes


class World:
    """Dinah's controller."""

    def __init__(self, controller: Controller, issuer: FakeIssuer, clock: ManualClock) -> None:
        self.controller = controller
        self.issuer = issuer
        self.clock = clock
        self.voice = controller.voice
        self.tenant = controller.voice.tenant
        self.database = controller.database

    @property
    def bells(self) -> Bells:
        return self.controller.bells

    # -- providers

    async def meet(self, provider: FakeProvider) -> None:
        """Know a provider, with its session up and heard."""
        raw, now = provider.card(), self.clock.now()
        row = ProviderRow(
            name=provider.name,
            url=f"https://{provider.name}",
            root_key=provider.root.public,
            card=raw,
            card_serial=provider.serial,
            card_seen_at=now,
            added_at=now,
        )
        async with self.database.write() as session:
            await provider_store.add_provider(session, row)
            digest = ids.sha256_hex(provider.rate_card)
            await provider_store.save_rate_card(session, provider.name, digest, provider.rate_card, now)
        card = Card.from_payload(frame.split(raw).payload)  # type: ignore[union-attr]
        assert isinstance(card, Card)
        self.controller.book.put(KnownProvider(row.name, row.url, row.root_key, card, None, None, self.hearing))

    def hearing(self) -> Hearing:
        """As if the reply queue was read to its end all the time."""
        return Hearing(0.0, self.clock.boottime())

    # -- runs

    async def add_project(self, name: str = "almanac", *providers: str) -> None:
        async with self.database.write() as session:
            await project_store.add_project(session, name, providers, self.clock.now())

    async def submit(self, pipeline: str, project: str = "almanac", files: dict[str, bytes] | None = None) -> str:
        """Submit a run and dispatch it; the snapshot holds the pipeline and `files`."""
        submitted = await self.try_to_submit(pipeline, project, files)
        assert isinstance(submitted, Submitted), submitted
        await self.dispatch()
        return submitted.run

    async def try_to_submit(
        self, pipeline: str, project: str = "almanac", files: dict[str, bytes] | None = None
    ) -> Submitted | Refusal:
        snapshot = tar_of({".fedci.yml": pipeline.encode(), **(files or {})})
        digest = ids.sha256_hex(snapshot)
        assert await self.controller.snapshots.receive(digest, once(snapshot)) is None
        return await self.controller.runs.submit(Submission(project, digest, "a" * 40))

    async def dispatch(self) -> datetime | None:
        return await self.controller.dispatcher.dispatch()

    # -- the bus

    async def hear(self, provider: str, *raws: bytes) -> None:
        """What the reply queue hands out, as one batch."""
        await self.controller.intake(provider).take(raws)

    async def hear_log(self, provider: str, *raws: bytes) -> None:
        await self.controller.log_intake(provider).take(raws)

    async def said(self) -> list[Said]:
        """Take what waits in the outbox, as the bus would."""
        messages = await self.controller.outbox.pending(1000, ())
        await self.controller.outbox.mark_sent([message.id for message in messages])
        return [Said(Destination.parse(message.destination), read(message.body), message.body) for message in messages]

    async def said_one(self, model: type[Order]) -> Any:
        """The one order of this type that waits in the outbox."""
        found = [said for said in await self.said() if isinstance(said.order, model)]
        assert len(found) == 1, found
        return found[0].order

    async def job_order(self) -> Job:
        order = await self.said_one(Job)
        assert isinstance(order, Job)
        return order

    # -- looking

    async def jobs(self, run: str) -> dict[str, JobRow]:
        async with self.database.read() as session:
            return {job.name: job for job in await run_store.jobs(session, run)}

    async def job(self, run: str, name: str = "build") -> JobRow:
        return (await self.jobs(run))[name]

    async def run(self, run: str) -> RunRow:
        async with self.database.read() as session:
            row = await run_store.run(session, run)
        assert row is not None
        return row

    async def attempt(self, attempt: str) -> AttemptRow:
        async with self.database.read() as session:
            row = await attempt_store.attempt(session, attempt)
        assert row is not None
        return row

    async def claim(self, claim: str) -> ClaimRow | None:
        async with self.database.read() as session:
            return await claim_store.claim(session, claim)


def read(raw: bytes) -> Any:
    """The message in an envelope, believed without asking."""
    opened = frame.split(raw)
    assert not isinstance(opened, Refusal)
    model = registry.find(opened.type)
    assert not isinstance(model, Refusal)
    return model.from_payload(opened.payload)


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@asynccontextmanager
async def open_world(
    directory: Path, clock: ManualClock, client: httpx.AsyncClient | None = None
) -> AsyncIterator[World]:
    """Dinah's controller in this directory; opened again, it is the same one after a restart."""
    issuer = _issuers.setdefault(directory, FakeIssuer("http://127.0.0.1:7", clock))
    issuer.accounts["dinah"] = API_TOKEN
    key = _keys.setdefault(directory, SigningKey.generate())
    if not (directory / "controller.sqlite").exists():
        shutil.copyfile(await _migrated(), directory / "controller.sqlite")
    database = Database.open(directory / "controller.sqlite")
    if not (directory / "vault.key").exists():
        vault.make_key(directory / "vault.key")
    voice = Voice(speaker_of(issuer, "dinah", key, clock), issuer=issuer.url, sub="dinah", key=key.public, clock=clock)
    network = client or client_of()
    trust = Trust([issuer.profile()], client=client_of(issuer), clock=clock)
    parts = Parts(
        directory=directory,
        database=database,
        voice=voice,
        key=key,
        trust=trust,
        vault=Vault.load(directory / "vault.key"),
        client=network,
        open_store_client=lambda _: network,
        clock=clock,
    )
    controller = Controller(parts)
    try:
        await trust.prime()
        await controller.prepare()
        yield World(controller, issuer, clock)
    finally:
        await database.close()


async def _migrated() -> Path:
    """An empty database of today's tables, made once for all tests of this process."""
    if not _template:
        directory = Path(tempfile.mkdtemp(prefix="fedci-broker-"))
        atexit.register(shutil.rmtree, directory)
        await upgrade(directory / "controller.sqlite", "broker.migrations")
        _template.append(directory / "controller.sqlite")
    return _template[0]


_template: list[Path] = []
_issuers: dict[Path, FakeIssuer] = {}
_keys: dict[Path, SigningKey] = {}
