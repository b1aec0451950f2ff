"""An invoice that is right passes; each way of being wrong is found, by its own name."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fedci.commands.invoice import app
from fedci.envelope_files import cut
from fedci.invoice_check import Fault, Verdict, check_invoice
from identity.keys import SigningKey, b64url
from runtime.errors import OurFault
from schemas import frame, pricing
from schemas.ends import EndReason
from schemas.ids import sha256_hex
from schemas.pricing import CitedUsage
from schemas.statements import Agent, Card, Invoice, InvoiceLine, Rate, RateCard, Usage, usage_id
from tests.schemas.samples import LATER, NOW, SAMPLES

ROOT, LEDGER, WORKER, STRANGER = (SigningKey.generate() for _ in range(4))
PROVIDER = "alice.example"
USAGE = next(message for message in SAMPLES if isinstance(message, Usage))
CARD = next(message for message in SAMPLES if isinstance(message, Card))
RATES = RateCard(
    provider=PROVIDER,
    serial=1,
    currency="EUR",
    rates=(
        Rate(meter="wall-seconds", unit="s", price=Decimal("1.80"), per=Decimal(3600), increment=Decimal(1)),
        Rate(meter="attempts", unit="attempt", price=Decimal("0.01"), per=Decimal(1), increment=Decimal(1)),
    ),
    valid_from=NOW,
    valid_until=LATER,
)
RATE_CARD = frame.seal(RATES, ROOT.private)


def changed(message: Any, **fields: Any) -> Any:
    return message.model_copy(update=fields)


def agent(name: str, role: str, key: SigningKey) -> Agent:
    return Agent(name=name, role=role, key=key.public, accounts=())  # type: ignore[arg-type]


def card(*agents: Agent, **fields: Any) -> Card:
    return changed(CARD, provider=PROVIDER, agents=agents, **fields)  # type: ignore[no-any-return]


THE_CARD = card(agent("w7", "worker", WORKER), agent("ledger", "ledger", LEDGER))


def usage(meter: str, quantity: str, n: int = 0, **fields: Any) -> Usage:
    facts = {"meter": meter, "quantity": Decimal(quantity), "interval": n, "rate_card": sha256_hex(RATE_CARD), **fields}
    stated: Usage = changed(USAGE, **facts)
    return changed(  # type: ignore[no-any-return]
        stated,
        id=usage_id(stated.provider, stated.subject, stated.meter, stated.interval),
        ended_at=fields.get("ended_at", NOW),
    )


def said(fact: Usage, key: SigningKey = WORKER) -> bytes:
    return frame.seal(fact, key.private)


WALL = said(usage("wall-seconds", "1234.2"))
MORE_WALL = said(usage("wall-seconds", "99.5", 1))
ATTEMPT = said(usage("attempts", "1"))
VOID = said(usage("wall-seconds", "700", 2, reason=EndReason.SANDBOX_FAILED))
EVENTS = (WALL, MORE_WALL, ATTEMPT, VOID)


def read(raw: bytes) -> Usage:
    envelope = frame.split(raw)
    assert isinstance(envelope, frame.UnverifiedFrame)
    fact = Usage.from_payload(envelope.payload)
    assert isinstance(fact, Usage)
    return fact


def invoice_of(events: tuple[bytes, ...], **fields: Any) -> Invoice:
    cited = [CitedUsage(read(raw), sha256_hex(raw)) for raw in events]
    lines = pricing.invoice_lines(cited, {fact.usage.rate_card: RATES for fact in cited})
    return invoice(lines, **fields)


def invoice(lines: tuple[InvoiceLine, ...], **fields: Any) -> Invoice:
    whole = {
        "provider": PROVIDER,
        "number": "2026-01-1",
        "agent": "ledger",
        "iss": USAGE.iss,
        "sub": USAGE.sub,
        "period_from": NOW,
        "period_to": LATER,
        "issued_at": LATER,
        "currency": "EUR",
        "lines": lines,
        "total": pricing.total(lines),
    }
    return Invoice(**{**whole, **fields})


RIGHT = invoice_of(EVENTS)


@dataclass(frozen=True)
class Case:
    """What the customer has in hand; by default everything is right."""

    invoice: Invoice = RIGHT
    ledger: SigningKey = LEDGER
    root: bytes = ROOT.public
    cards: tuple[bytes, ...] = (frame.seal(THE_CARD, ROOT.private),)
    rate_cards: tuple[bytes, ...] = (RATE_CARD,)
    events: tuple[bytes, ...] = field(default=EVENTS)

    def check(self) -> Verdict:
        return check_invoice(
            frame.seal(self.invoice, self.ledger.private),
            root_key=self.root,
            cards=self.cards,
            rate_cards=self.rate_cards,
            events=self.events,
        )

    def faults(self) -> set[Fault]:
        return {finding.fault for finding in self.check().all_findings}


def with_line(number: int = 0, **fields: Any) -> Invoice:
    """The right invoice with one line changed, and a total that hides it."""
    lines = list(RIGHT.lines)
    lines[number] = changed(lines[number], **fields)
    return invoice(tuple(lines))


def billing(*events: bytes) -> Case:
    """Lines that bill these events as they are, whosever they are, each cited where its meter belongs."""
    lines = []
    for meter in ("attempts", "wall-seconds"):
        facts = [raw for raw in events if read(raw).meter == meter]
        rate = next(rate for rate in RATES.rates if rate.meter == meter)
        quantity = sum((pricing.billed_quantity(rate, read(raw).quantity) for raw in facts), Decimal(0))
        amount = pricing.line_amount(rate, quantity, 2)
        digests = tuple(sha256_hex(raw) for raw in facts)
        lines.append(
            InvoiceLine(
                meter=rate.meter,
                unit=rate.unit,
                rate_card=sha256_hex(RATE_CARD),
                quantity=quantity,
                amount=amount,
                events=digests,
            )
        )
    return Case(invoice=invoice(tuple(lines)), events=tuple(dict.fromkeys(events)))


def test_an_invoice_that_is_right_passes() -> None:
    verdict = Case().check()
    assert verdict.is_right
    assert [(line.quantity, line.amount) for line in verdict.lines] == [
        (Decimal(1), Decimal("0.01")),
        (Decimal(1335), Decimal("0.67")),
    ]


def test_what_the_helper_bills_for_right_events_is_right_too() -> None:
    assert billing(WALL, MORE_WALL, ATTEMPT).check().is_right


def test_events_that_are_on_no_line_are_counted_and_change_nothing() -> None:
    verdict = replace(Case(), events=(*EVENTS, said(usage("wall-seconds", "5", 9)))).check()
    assert verdict.is_right
    assert verdict.uncited == 1


def test_an_agent_that_has_left_is_known_from_an_older_card() -> None:
    now = frame.seal(card(agent("ledger", "ledger", LEDGER), serial=9), ROOT.private)
    assert Fault.EVENT_REFUSED in replace(Case(), cards=(now,)).faults()
    assert replace(Case(), cards=(now, *Case().cards)).check().is_right


OTHER_CARD = frame.seal(changed(RATES, serial=2, currency="USD"), ROOT.private)
DEARER = frame.seal(
    changed(RATES, serial=2, rates=tuple(changed(rate, price=rate.price * 2) for rate in RATES.rates)), ROOT.private
)
FREE_OF_WALL = frame.seal(changed(RATES, serial=3, rates=RATES.rates[1:]), ROOT.private)
ABSURD = frame.seal(
    changed(RATES, rates=(changed(RATES.rates[0], price=Decimal("9e24"), per=Decimal("1e-12")),)), ROOT.private
)
RESTATED = said(usage("wall-seconds", "2000"))
ANOTHERS = said(usage("wall-seconds", "10", 3, sub="mallory"))
BEFORE = said(usage("wall-seconds", "10", 4, started_at=NOW.replace(year=2025)))
FORGED = said(usage("wall-seconds", "10", 5), STRANGER)
ELSEWHERE = said(usage("wall-seconds", "10", 6, provider="cecilia.example"))
MINTED = said(changed(usage("wall-seconds", "10", 7), id="0" * 64))

TAMPERED: dict[str, tuple[Case, Fault]] = {
    "another root": (Case(root=STRANGER.public), Fault.CARD),
    "a card by another key": (Case(cards=(frame.seal(THE_CARD, STRANGER.private),)), Fault.CARD),
    "no card": (Case(cards=()), Fault.CARD),
    "cards of two providers": (
        Case(cards=(*Case().cards, frame.seal(changed(THE_CARD, provider="cecilia.example"), ROOT.private))),
        Fault.CARD,
    ),
    "signed by another key": (Case(ledger=STRANGER), Fault.SIGNATURE),
    "signed by a worker": (Case(ledger=WORKER), Fault.SIGNATURE),
    "in another agent's name": (Case(invoice=changed(RIGHT, agent="w7")), Fault.SIGNATURE),
    "in another provider's name": (Case(invoice=changed(RIGHT, provider="cecilia.example")), Fault.PROVIDER),
    "a line's amount": (Case(invoice=with_line(1, amount=Decimal("0.68"))), Fault.AMOUNT),
    "a line's quantity": (Case(invoice=with_line(1, quantity=Decimal(1336))), Fault.QUANTITY),
    "a line's unit": (Case(invoice=with_line(1, unit="h")), Fault.UNIT),
    "the total": (Case(invoice=changed(RIGHT, total=Decimal("0.69"))), Fault.TOTAL),
    "the currency": (Case(invoice=changed(RIGHT, currency="USD")), Fault.CURRENCY),
    "a line twice": (Case(invoice=invoice((*RIGHT.lines, RIGHT.lines[0]))), Fault.LINE_DOUBLED),
    "a rolled rate card": (
        Case(
            invoice=with_line(1, rate_card=sha256_hex(DEARER), amount=Decimal("1.34")), rate_cards=(RATE_CARD, DEARER)
        ),
        Fault.EVENT_RATE_CARD,
    ),
    "a rate card that nobody shows": (Case(rate_cards=(DEARER,)), Fault.RATE_CARD_MISSING),
    "a rate card by another key": (
        Case(
            invoice=with_line(1, rate_card=sha256_hex(frame.seal(RATES, STRANGER.private))),
            rate_cards=(RATE_CARD, frame.seal(RATES, STRANGER.private)),
        ),
        Fault.RATE_CARD_REFUSED,
    ),
    "a rate card in another currency": (
        Case(invoice=with_line(1, rate_card=sha256_hex(OTHER_CARD)), rate_cards=(RATE_CARD, OTHER_CARD)),
        Fault.CURRENCY,
    ),
    "a meter without a price": (
        Case(invoice=with_line(1, rate_card=sha256_hex(FREE_OF_WALL)), rate_cards=(RATE_CARD, FREE_OF_WALL)),
        Fault.NOT_PRICED,
    ),
    "numbers beyond computing": (
        Case(
            invoice=with_line(1, rate_card=sha256_hex(ABSURD), quantity=Decimal("9e24")),
            rate_cards=(RATE_CARD, ABSURD),
            events=(ATTEMPT,),
        ),
        Fault.NOT_PRICED,
    ),
    "an event that the customer has not": (Case(events=(WALL, ATTEMPT)), Fault.EVENT_MISSING),
    "an event twice on a line": (billing(WALL, WALL, ATTEMPT), Fault.EVENT_DOUBLED),
    "a fact stated twice": (billing(WALL, RESTATED, ATTEMPT), Fault.EVENT_DOUBLED),
    "another customer's event": (billing(WALL, ANOTHERS, ATTEMPT), Fault.EVENT_FOREIGN),
    "a void event": (billing(WALL, VOID, ATTEMPT), Fault.EVENT_VOID),
    "an event from before": (billing(WALL, BEFORE, ATTEMPT), Fault.EVENT_PERIOD),
    "an event by another key": (billing(WALL, FORGED, ATTEMPT), Fault.EVENT_REFUSED),
    "another provider's event": (billing(WALL, ELSEWHERE, ATTEMPT), Fault.EVENT_REFUSED),
    "an event with an id of its own": (billing(WALL, MINTED, ATTEMPT), Fault.EVENT_REFUSED),
    "an event on another meter's line": (
        Case(invoice=with_line(1, events=(sha256_hex(ATTEMPT), *RIGHT.lines[1].events))),
        Fault.EVENT_METER,
    ),
}


@pytest.mark.parametrize(("case", "fault"), TAMPERED.values(), ids=TAMPERED.keys())
def test_every_way_of_being_wrong_is_found_by_its_name(case: Case, fault: Fault) -> None:
    assert not case.check().is_right
    assert fault in case.faults()


def test_every_fault_has_such_a_case() -> None:
    assert {fault for _, fault in TAMPERED.values()} == set(Fault)


def test_a_changed_amount_with_an_unchanged_total_is_two_findings() -> None:
    assert Case(invoice=changed(with_line(1, amount=Decimal(7)), total=RIGHT.total)).faults() == {
        Fault.AMOUNT,
        Fault.TOTAL,
    }


@given(st.sampled_from([0, 1]), st.decimals("-1000000", "1000000", places=6))
def test_any_changed_amount_is_found(number: int, amount: Decimal) -> None:
    faults = Case(invoice=with_line(number, amount=amount)).faults()
    assert (Fault.AMOUNT in faults) == (amount != RIGHT.lines[number].amount)


@given(st.sampled_from([0, 1]), st.decimals("-1000000", "1000000", places=6))
def test_any_changed_quantity_is_found(number: int, quantity: Decimal) -> None:
    faults = Case(invoice=with_line(number, quantity=quantity)).faults()
    assert (Fault.QUANTITY in faults) == (quantity != RIGHT.lines[number].quantity)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_flipped_byte_of_the_invoice_is_found(place: int, flip: int) -> None:
    raw = bytearray(frame.seal(RIGHT, LEDGER.private))
    raw[place % len(raw)] ^= flip
    case = Case()
    verdict = check_invoice(
        bytes(raw), root_key=case.root, cards=case.cards, rate_cards=case.rate_cards, events=case.events
    )
    assert not verdict.is_right


# -- From files


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "events").mkdir()
    for number, raw in enumerate(EVENTS[:2]):
        (tmp_path / "events" / f"{number}.fedci").write_bytes(raw)
    (tmp_path / "events" / "rest.fedci").write_bytes(b"".join(EVENTS[2:]))
    (tmp_path / "invoice.fedci").write_bytes(frame.seal(RIGHT, LEDGER.private))
    (tmp_path / "card.fedci").write_bytes(Case().cards[0])
    (tmp_path / "rates.fedci").write_bytes(RATE_CARD)
    return tmp_path


def run(files: Path, *options: str) -> Any:
    arguments = [str(files / "invoice.fedci"), "--card", str(files / "card.fedci"), "--root", b64url(ROOT.public)]
    return CliRunner().invoke(app, ["verify", *arguments, "--rate-card", str(files / "rates.fedci"), *options])


def test_the_command_says_right_and_ends_with_0(files: Path) -> None:
    result = run(files, "--events", str(files / "events"))
    assert result.exit_code == 0, result.output
    assert "wall-seconds: 1335 s, 0.67 EUR" in result.output
    assert result.output.splitlines()[-1] == "right"


def test_the_command_names_what_is_wrong_and_ends_with_1(files: Path) -> None:
    result = run(files, "--events", str(files / "events" / "rest.fedci"))
    assert result.exit_code == 1
    assert f"event-missing: event {sha256_hex(WALL)[:16]} is not at hand" in result.output


def test_a_root_key_that_is_none_is_told_at_its_option(files: Path) -> None:
    result = run(files, "--root", "abc")
    assert result.exit_code == 2
    assert "--root" in result.output


def test_envelopes_come_out_of_a_file_byte_for_byte() -> None:
    assert cut(b"".join(EVENTS)) == list(EVENTS)
    assert cut(b"") == []


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data + b"\xc1"], ids=["cut off", "garbage"])
def test_a_file_that_ends_badly_says_at_which_byte(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(OurFault, match=r"from byte \d+ on"):
        cut(spoil(WALL + MORE_WALL), where="events.fedci")
