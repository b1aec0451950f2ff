"""What must hold at the end of the demo, as sentences; pure."""

from collections.abc import Iterator, Sequence
from itertools import combinations, product

from fedci.federation.cast import CUSTOMERS, PROVIDERS
from fedci.federation.report import Expectation, InvoiceReport, JobReport, Report, RunReport

HARDWARE_OWNERS = frozenset(provider.name for provider in PROVIDERS if provider.lends == "worker")


def judge(report: Report) -> list[Expectation]:
    """Every expectation of the founding scenario, in the order of the story."""
    return [*_runs(report.runs), *_artifacts(report), *_refusals(report), *_invoices(report.invoices)]


def _runs(runs: Sequence[RunReport]) -> Iterator[Expectation]:
    for customer in CUSTOMERS:
        run = next((run for run in runs if run.controller == customer.person), None)
        name = customer.person.capitalize()
        yield Expectation(f"{name}'s run succeeded", run is not None and run.state == "succeeded")
        jobs = run.jobs if run else ()
        owners = {job.provider for job in jobs}
        yield Expectation(f"{name}'s jobs ran at both hardware owners", owners == HARDWARE_OWNERS)
        complete = bool(jobs) and all(job.log_sha256 for job in jobs)
        yield Expectation(f"every log of {name}'s came whole, with the digest its worker signed", complete)
    together = {job.provider for job, other in _pairs(runs) if job.provider == other.provider and job.overlaps(other)}
    yield Expectation("both customers' jobs ran at the same owner at the same time", bool(together & HARDWARE_OWNERS))


def _pairs(runs: Sequence[RunReport]) -> Iterator[tuple[JobReport, JobReport]]:
    """Every job of one customer beside every job of another."""
    for first, second in combinations(runs, 2):
        yield from product(first.jobs, second.jobs)


def _artifacts(report: Report) -> Iterator[Expectation]:
    for customer in CUSTOMERS:
        fetched = [artifact for artifact in report.artifacts if artifact.controller == customer.person]
        yield Expectation(f"{customer.person.capitalize()} has her artifacts on her disk", bool(fetched))


def _refusals(report: Report) -> Iterator[Expectation]:
    for refusal in report.refusals:
        sentence = f"{refusal.who} was refused at {refusal.at}: {refusal.attempt}"
        yield Expectation(sentence, refusal.reason == refusal.expected)
    yield Expectation("all four trespasses were tried", len(report.refusals) == 4)


def _invoices(invoices: Sequence[InvoiceReport]) -> Iterator[Expectation]:
    wanted = {(provider.name, customer.person) for provider in PROVIDERS for customer in CUSTOMERS}
    written = [(invoice.provider, invoice.customer) for invoice in invoices]
    yield Expectation(
        "each provider wrote one invoice to each customer", len(written) == len(wanted) and set(written) == wanted
    )
    right = bool(invoices) and all(invoice.is_right for invoice in invoices)
    yield Expectation("every customer computed the same from her own copies of the events", right)
    billed = bool(invoices) and all(invoice.lines for invoice in invoices)
    yield Expectation("every invoice bills something that was used", billed)
