"""`fedci invoice`: what a customer does with a provider's invoice. Needs public keys only, and no role of its own."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import httpx

    from fedci.invoice_check import Finding, LineVerdict, Verdict

app = typer.Typer(no_args_is_help=True, help="Check a provider's invoice with public keys only.")


@app.callback()
def _group() -> None:
    """Keeps `verify` a sub-command while it is the only one."""


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="The signed invoice.", dir_okay=False)],
    card: Annotated[
        list[str],
        typer.Option(
            help="The provider's card: a file, or its desk's URL. Again for older cards, where agents have left since."
        ),
    ],
    root: Annotated[str, typer.Option(help="The provider's root public key, base64url, as you pinned it.")],
    events: Annotated[
        list[Path] | None, typer.Option(help="Your usage events: a file of envelopes, or a directory of *.fedci.")
    ] = None,
    rate_card: Annotated[
        list[Path] | None, typer.Option(help="A signed rate card; without it, the desk is asked.", dir_okay=False)
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="The desk's CA, a PEM file.", dir_okay=False)] = None,
) -> None:
    """Compute every line of an invoice again from your own usage events; exit status 0 only if all is right."""
    verdict = asyncio.run(_verify(file, card, root, events or [], rate_card or [], ca))
    for line in report(verdict):
        typer.echo(line)
    raise typer.Exit(0 if verdict.is_right else 1)


def report(verdict: "Verdict") -> Iterator[str]:
    """The verdict as lines of text."""
    if verdict.invoice is not None:
        invoice = verdict.invoice
        yield f"invoice {invoice.number} of {invoice.provider} for {invoice.sub} at {invoice.iss}"
        yield f"period  {invoice.period_from:%Y-%m-%d %H:%M:%S} to {invoice.period_to:%Y-%m-%d %H:%M:%S} UTC"
    for line in verdict.lines:
        yield from _report_line(line, verdict.invoice.currency if verdict.invoice else "")
    yield from (_wrong(finding) for finding in verdict.findings)
    if verdict.invoice is not None:
        yield f"total   {verdict.invoice.total} {verdict.invoice.currency}"
    if verdict.uncited:
        yield f"note    {verdict.uncited} other event(s) of this period are not on it: free, or on another invoice"
    yield "right" if verdict.is_right else f"WRONG   {len(verdict.all_findings)} finding(s)"


def _report_line(verdict: "LineVerdict", currency: str) -> Iterator[str]:
    line, mark = verdict.line, "ok   " if verdict.is_right else "WRONG"
    stated = f"{line.quantity} {line.unit}, {line.amount} {currency}, {len(line.events)} event(s)"
    yield f"{mark}   {line.meter}: {stated}"
    yield from (_wrong(finding) for finding in verdict.findings)


def _wrong(finding: "Finding") -> str:
    return f"        {finding.fault}: {finding.seen}"


async def _verify(
    file: Path, cards: list[str], root: str, events: list[Path], rate_cards: list[Path], ca: Path | None
) -> "Verdict":
    from fedci.envelope_files import read_envelopes, read_file
    from fedci.invoice_check import check_invoice
    from runtime.http_client import open_client

    root_key = _root_key(root)
    raw = read_file(file)
    async with open_client(ca) as client:
        known = [await _card(place, client) for place in cards]
        rates = [read_file(path) for path in rate_cards]
        rates += await _cited_rate_cards(raw, root_key, known, client) if not rates else []
    facts = [envelope for path in events for envelope in read_envelopes(path)]
    return check_invoice(raw, root_key=root_key, cards=known, rate_cards=rates, events=facts)


def _root_key(text: str) -> bytes:
    from identity.keys import public_from_b64url

    try:
        return public_from_b64url(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--root") from None


async def _card(place: str, client: "httpx.AsyncClient") -> bytes:
    from bus.desk_client import DeskClient
    from fedci.envelope_files import read_file

    if not place.startswith(("https://", "http://")):
        return read_file(Path(place))
    return await DeskClient(place.removesuffix("/card"), client).card()


async def _cited_rate_cards(
    raw: bytes, root_key: bytes, cards: list[bytes], client: "httpx.AsyncClient"
) -> list[bytes]:
    """The rate cards that the invoice cites, from the desk that the provider's card names.

    What the desk does not have stays away, and the check says so.
    """
    from bus.desk_client import DeskClient
    from fedci.invoice_check import Finding, believe
    from schemas.refusals import Refusal

    believed = believe(raw, root_key=root_key, cards=cards)
    if isinstance(believed, Finding):
        return []
    desk = DeskClient(believed.desk_url, client)
    answers = [await desk.statement(digest) for digest in believed.rate_cards]
    return [answer for answer in answers if not isinstance(answer, Refusal)]
