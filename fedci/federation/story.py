"""What happens in the demo, in order: providers are pinned, two builds run at once, what was made is fetched back, four
trespasses are refused, and everybody gets an invoice that she checks herself.

Everything is asked for where a person or program would ask: at the controllers' API, at the desks and stores, at the
ledgers' command line functions. The story only looks on and writes down what it saw.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from broker import setup as controller_setup
from broker.sources.resolving import Snapshot, snapshot_directory
from broker.views import JobView, RunView
from fedci import controller_client
from fedci.controller_client import ControllerClient
from fedci.federation.cast import CUSTOMERS, PROVIDERS, Customer
from fedci.federation.places import Places
from fedci.federation.report import ArtifactReport, JobReport, RefusalReport, RunReport
from fedci.federation.screen import Screen
from fedci.federation.trespass import Member, Trespasses
from fedci.federation.usurper import usurper
from identity.account import Account, read_api_token
from identity.keys import SigningKey, fingerprint
from runtime.clock import Clock, SystemClock
from runtime.errors import OurFault
from runtime.http_client import open_client
from schemas.refusals import Reason, Refusal

RUN_SECONDS = 600.0
LOG_SECONDS = 30.0
ALICE, CECILIA, BETTINA = PROVIDERS
DINAH, ELIZA = CUSTOMERS


@dataclass
class Story:
    """The demo's steps on a federation that stands at `places`; `sources` are the two projects' directories."""

    places: Places
    screen: Screen
    sources: dict[str, Path]
    http: httpx.AsyncClient
    out: Path
    """Where artifacts are fetched to."""
    clients: dict[str, ControllerClient]
    clock: Clock = field(default_factory=SystemClock)
    _runs: dict[str, RunView] = field(default_factory=dict)

    async def introduce(self) -> None:
        """Every customer pins every provider's root key, and makes her project."""
        async with asyncio.TaskGroup() as group:
            for customer in CUSTOMERS:
                group.create_task(self._introduce(customer))

    async def _introduce(self, customer: Customer) -> None:
        client = self.clients[customer.person]
        for provider in PROVIDERS:
            # In real life the fingerprint comes from its owner by another way; here we can read the owner's own key.
            root = SigningKey.load(self.places.of("desks", provider.person) / "root.key")
            introduced = await client.introduce(self.places.url("desks", provider.person))
            if introduced.root_fingerprint != fingerprint(root.public):
                raise OurFault(f"{provider.name}'s desk shows another root key than its owner has")
            await client.add_provider(introduced.url, introduced.root_fingerprint)
        if customer.project not in {project.name for project in await client.projects()}:
            await client.add_project(customer.project)

    async def build(self) -> Sequence[RunReport]:
        """Submit both projects, and look on until both runs are over."""
        submitted = await asyncio.gather(*(self._submit(customer) for customer in CUSTOMERS))
        async with asyncio.timeout(RUN_SECONDS):
            await asyncio.gather(*(self._look_on(customer, run) for customer, run in submitted))
        return self._reports()

    async def _submit(self, customer: Customer) -> tuple[Customer, str]:
        snapshot = await self._snapshot(customer)
        client = self.clients[customer.person]
        submitted = await client.submit(customer.project, revision=snapshot.revision, snapshot=snapshot.path)
        self.screen.step(f"{customer.person} submitted {customer.project} at {snapshot.revision[:12]}")
        return customer, submitted.run

    async def _snapshot(self, customer: Customer) -> Snapshot:
        into = self.places.directory / f"{customer.project}.tar"
        into.unlink(missing_ok=True)
        snapshot = await snapshot_directory(self.sources[customer.project], "HEAD", into, home=self.places.directory)
        if isinstance(snapshot, Refusal):
            raise OurFault(f"no snapshot of {customer.project}: {snapshot}", where=str(self.sources[customer.project]))
        return snapshot

    async def _look_on(self, customer: Customer, run: str) -> None:
        def note(view: RunView) -> None:
            self._runs[customer.person] = view
            self.screen.runs(self._reports())

        client = self.clients[customer.person]
        note(await client.wait(run, note))
        # A run is over with its last result; the last bytes of a log may still be on their way. What never comes shows.
        with suppress(TimeoutError):
            await asyncio.wait_for(self._until_logs_are_whole(customer, note), LOG_SECONDS)

    async def _until_logs_are_whole(self, customer: Customer, note: Callable[[RunView], None]) -> None:
        while not all(job.log is None or job.log.is_whole for job in self._runs[customer.person].graph):
            await asyncio.sleep(controller_client.POLL_SECONDS)
            note(await self.clients[customer.person].run(self._runs[customer.person].id))

    def _reports(self) -> list[RunReport]:
        return [
            run_report(customer.person, self._runs[customer.person])
            for customer in CUSTOMERS
            if customer.person in self._runs
        ]

    async def fetch(self) -> list[ArtifactReport]:
        """Fetch every artifact of both runs back to this disk, through the store."""
        fetched: list[ArtifactReport] = []
        for customer in CUSTOMERS:
            client, run = self.clients[customer.person], self._runs[customer.person].id
            for artifact in await client.artifacts(run):
                into = self.out / "artifacts" / customer.person / artifact.job / artifact.path
                into.parent.mkdir(parents=True, exist_ok=True)
                file = await client.download(artifact, into)
                fetched.append(
                    ArtifactReport(
                        controller=customer.person,
                        job=artifact.job,
                        path=artifact.path,
                        bytes=artifact.size_bytes,
                        sha256=artifact.sha256,
                        file=str(file),
                    )
                )
        return fetched

    async def trespass(self, artifacts: Sequence[ArtifactReport]) -> list[RefusalReport]:
        """Try what must not be possible, at the doors of the running federation."""
        tries = Trespasses(self.http, self.clock)
        desk, pool = self.places.url("desks", ALICE.person), ALICE.pool
        dinah, eliza = self.member(DINAH), self.member(ELIZA)
        wheel = next(artifact.sha256 for artifact in artifacts if artifact.controller == DINAH.person)
        async with usurper(self.places.directory / "mallory", self.http, self.clock) as mallory:
            alone = await tries.session_under_an_issuer_of_ones_own(mallory, desk, ALICE.name)
        return [
            alone,
            await tries.session_with_a_stolen_token(dinah, desk, ALICE.name),
            await tries.job_for_another_provider(dinah, desk, ALICE.name, pool, CECILIA.name, self._refusal_met),
            await tries.another_customers_artifact(
                eliza, self.places.url("stores", BETTINA.person), BETTINA.name, wheel, DINAH.person
            ),
        ]

    async def _refusal_met(self, attempt: str) -> Refusal | None:
        status = await self.clients[DINAH.person].status()
        met = next((refusal for refusal in status.refusals if refusal.attempt == attempt), None)
        return Refusal(Reason(met.reason), met.detail) if met else None

    def member(self, customer: Customer) -> Member:
        """The customer as she is known to others: her account, and the key of her controller."""
        directory, issuer = self.places.of("controllers", customer.person), self.places.url("issuers", customer.issuer)
        key = SigningKey.load(directory / controller_setup.KEY)
        account = Account(
            issuer=issuer,
            sub=customer.person,
            api_token=read_api_token(directory / "issuer.token"),
            key=key,
            client=self.http,
            clock=self.clock,
        )
        return Member(customer.person, issuer, account, key)

    def attempts_that_ran(self) -> dict[tuple[str, str], int]:
        """How many attempts were granted at each provider for each customer: each of them must be stated as usage."""
        granted = Counter(
            (attempt.provider, customer)
            for customer, run in self._runs.items()
            for job in run.graph
            for attempt in job.attempts
            if attempt.granted_at is not None
        )
        return dict(granted)


@asynccontextmanager
async def opened(places: Places, screen: Screen, sources: dict[str, Path], out: Path) -> AsyncIterator[Story]:
    """The story of a federation that stands."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(open_client())
        clients = {
            customer.person: await stack.enter_async_context(
                controller_client.connected(controller_client.place_of(places.of("controllers", customer.person)))
            )
            for customer in CUSTOMERS
        }
        yield Story(places, screen, sources, http, out, clients)


def run_report(controller: str, run: RunView) -> RunReport:
    return RunReport(controller, run.id, str(run.state), tuple(_job_report(job) for job in run.graph))


def _job_report(job: JobView) -> JobReport:
    why = "; ".join(f"{reason.provider or 'here'}: {reason.detail}" for reason in job.waiting_for)
    whole = job.log is not None and job.log.is_whole
    return JobReport(
        name=job.name,
        state=str(job.state),
        provider=job.provider,
        worker=job.worker,
        seconds=job.seconds,
        log_bytes=job.log.bytes if job.log else 0,
        log_sha256=job.log.sha256 if job.log and whole else None,
        why=job.detail or why,
        started_at=job.started_at.isoformat() if job.started_at else None,
        ended_at=job.ended_at.isoformat() if job.ended_at else None,
    )
