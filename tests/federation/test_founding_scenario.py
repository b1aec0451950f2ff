"""The founding scenario, told on two tiny projects: two customers, three providers, and invoices at the end.

The same story as `fedci demo` tells on real projects, with the same expectations; and what only a test would look at.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import select

from agents.ledger import setup as ledger_setup
from agents.ledger.tables import FactRow
from broker.sources import git
from fedci.envelope_files import cut, read_envelopes
from fedci.federation.cast import CUSTOMERS, PROVIDERS, Customer, Provider
from fedci.federation.expectations import judge
from fedci.federation.invoicing import Invoicing
from fedci.federation.report import InvoiceReport, Report
from fedci.federation.screen import PlainScreen
from fedci.federation.story import Story
from schemas import frame
from schemas.frame import UnverifiedFrame
from schemas.ids import sha256_hex
from schemas.refusals import Reason
from schemas.statements import Invoice, Usage
from tests.federation.ground import Ground

PIPELINE = """\
name: {project}
store: bettina.example
jobs:
  make:
    labels: [machine=board]
    timeout: 1m
    steps: ["cat words > made; echo made on a board >> made; sleep 2"]
    artifacts: {{half: made}}
  look:
    labels: [machine=fast]
    timeout: 1m
    steps: [grep {project} words, sleep 2]
  finish:
    needs: [make, look]
    labels: [machine=fast]
    timeout: 1m
    inputs: [make.half]
    steps: [cat made, echo finished on a fast machine >> made, mv made whole]
    artifacts: {{whole: whole}}
"""


def words(customer: Customer) -> str:
    return f"the words of {customer.project}\n"


def commit_project(customer: Customer, into: Path) -> Path:
    """A git checkout with a tiny project of this customer's."""
    into.mkdir()
    (into / "words").write_text(words(customer))
    (into / ".fedci.yml").write_text(PIPELINE.format(project=customer.project))
    author = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    for arguments in (("init", "--quiet"), ("add", "."), (*author, "commit", "--quiet", "--message=Begin")):
        git.run(into, *arguments, home=into)
    return into


@pytest_asyncio.fixture(scope="module")
async def told(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Report]:
    """The whole story, and what came of it."""
    home = tmp_path_factory.mktemp("projects")
    sources = {customer.project: commit_project(customer, home / customer.project) for customer in CUSTOMERS}
    tale = Story(ground.places, PlainScreen(), sources, ground.http, home, ground.story.clients)
    report = Report()
    async with asyncio.timeout(120):
        report.runs = await tale.build()
        report.artifacts = await tale.fetch()
        report.refusals = await tale.trespass(report.artifacts)
        office = Invoicing(ground.places, tale.clients, ground.http, home)
        await office.until_usage_arrived(tale.attempts_that_ran())
        report.invoices = await office.write()
    report.expectations = judge(report)
    yield report


def test_everything_that_the_demo_expects_holds(told: Report) -> None:
    assert [expectation.sentence for expectation in told.expectations if not expectation.held] == []


def test_all_jobs_ran_where_their_labels_are(told: Report) -> None:
    wanted = {"make": ("alice.example", "w1"), "look": ("cecilia.example", "w7"), "finish": ("cecilia.example", "w7")}
    for run in told.runs:
        assert {job.name: (job.provider, job.worker) for job in run.jobs} == wanted


def test_both_customers_were_at_both_owners_at_the_same_time(told: Report) -> None:
    dinahs, elizas = ({job.name: job for job in run.jobs} for run in told.runs)
    assert dinahs["make"].overlaps(elizas["make"])
    assert dinahs["look"].overlaps(elizas["look"])


@pytest.mark.parametrize("customer", CUSTOMERS, ids=lambda customer: customer.person)
def test_an_artifact_went_from_job_to_job_and_home(told: Report, customer: Customer) -> None:
    home = {artifact.path: artifact for artifact in told.artifacts if artifact.controller == customer.person}
    whole = f"{words(customer)}made on a board\nfinished on a fast machine\n".encode()
    assert set(home) == {"made", "whole"}
    assert Path(home["whole"].file).read_bytes() == whole
    assert home["whole"].sha256 == hashlib.sha256(whole).hexdigest()


def test_each_trespass_is_refused_with_its_own_reason(told: Report) -> None:
    assert [(refusal.who, refusal.at, refusal.reason) for refusal in told.refusals] == [
        ("mallory", "alice.example's desk", Reason.ISSUER_UNTRUSTED),
        ("A thief", "alice.example's desk", Reason.ENVELOPE_SIGNATURE),
        ("dinah", "alice.example's worker", Reason.AUDIENCE),
        ("eliza", "bettina.example's store", Reason.NOT_FOUND),
    ]


PAIRS = [
    pytest.param(provider, customer, id=f"{customer.person} at {provider.person}'s")
    for provider in PROVIDERS
    for customer in CUSTOMERS
]


@pytest.mark.parametrize(("provider", "customer"), PAIRS)
async def test_the_ledger_and_the_customer_hold_the_same_events_and_the_invoice_cites_no_others(
    ground: Ground, told: Report, provider: Provider, customer: Customer
) -> None:
    invoice = read_invoice(invoice_of(told, provider, customer))
    booked = await booked_events(ground, provider, customer, invoice)
    copies = {sha256_hex(copy) for copy in await copies_of(ground, provider, customer, invoice)}
    cited = {event for line in invoice.lines for event in line.events}
    assert booked == copies
    assert cited
    assert cited <= booked


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.person)
def test_no_event_is_on_two_customers_invoices(told: Report, provider: Provider) -> None:
    dinahs, elizas = (read_invoice(invoice_of(told, provider, customer)) for customer in CUSTOMERS)
    cited = [{event for line in invoice.lines for event in line.events} for invoice in (dinahs, elizas)]
    assert cited[0].isdisjoint(cited[1])
    assert (dinahs.sub, elizas.sub) == ("dinah", "eliza")


@pytest.mark.parametrize(("provider", "customer"), PAIRS)
async def test_every_event_that_a_customer_holds_is_about_her_alone(
    ground: Ground, told: Report, provider: Provider, customer: Customer
) -> None:
    issuer = ground.places.url("issuers", customer.issuer)
    copies = cut(await ground.story.clients[customer.person].usage_envelopes(provider.name))
    assert {(usage.iss, usage.sub) for usage in map(read_usage, copies)} == {(issuer, customer.person)}


def invoice_of(told: Report, provider: Provider, customer: Customer) -> InvoiceReport:
    (invoice,) = (each for each in told.invoices if (each.provider, each.customer) == (provider.name, customer.person))
    return invoice


def read_invoice(report: InvoiceReport) -> Invoice:
    (raw,) = read_envelopes(Path(report.file))
    opened = frame.split(raw)
    assert isinstance(opened, UnverifiedFrame)
    invoice = Invoice.from_payload(opened.payload)
    assert isinstance(invoice, Invoice)
    return invoice


def read_usage(raw: bytes) -> Usage:
    opened = frame.split(raw)
    assert isinstance(opened, UnverifiedFrame)
    usage = Usage.from_payload(opened.payload)
    assert isinstance(usage, Usage)
    return usage


async def booked_events(ground: Ground, provider: Provider, customer: Customer, invoice: Invoice) -> set[str]:
    """The events of this customer in the provider's book that were over when the invoice was written."""
    query = select(FactRow.digest).where(FactRow.sub == customer.person, FactRow.ended_at < invoice.period_to)
    async with (
        ledger_setup.opened(ground.places.of("ledgers", provider.person)) as ledger,
        ledger.database.read() as session,
    ):
        return set(await session.scalars(query))


async def copies_of(ground: Ground, provider: Provider, customer: Customer, invoice: Invoice) -> list[bytes]:
    """The customer's own copies of the events that were over when the invoice was written."""
    copies = cut(await ground.story.clients[customer.person].usage_envelopes(provider.name))
    return [copy for copy in copies if read_usage(copy).ended_at < invoice.period_to]
