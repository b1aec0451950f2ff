"""The book: every fact once, nothing replaced, nothing lost, and invoices that anybody can compute again."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from agents.ledger import chain, setup, store
from agents.ledger.book import Book
from agents.ledger.invoices import Customer, Invoicing
from bus.desk_client import DeskClient
from identity.account import Account
from identity.keys import SigningKey
from identity.own_card import PAUSE, OwnCard
from identity.speech import Speaker
from identity.trust import SignedBy, Trust, verify_statement
from runtime.database import Database
from runtime.errors import WorldFault
from runtime.migrations import check, upgrade
from schemas import frame, pricing
from schemas.ends import EndReason
from schemas.ids import sha256_hex
from schemas.pricing import CitedUsage
from schemas.refusals import Reason
from schemas.registry import SPEAKS
from schemas.statements import Agent, Card, Invoice, Rate, RateCard, Usage, usage_id
from tests.clocks import ManualClock
from tests.issuers import FakeIssuer, client_of

PROVIDER = "alice.example"
ROOT, WORKER, LEDGER = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()


@dataclass
class Desk:
    """What a desk serves, as a ledger sees it."""

    card: bytes
    rate_card: bytes
    is_away: bool = False

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.is_away:
            raise httpx.ConnectError("away")
        if request.url.path == "/card":
            return httpx.Response(200, stream=httpx.ByteStream(self.card))
        if request.url.path == f"/statements/{sha256_hex(self.rate_card)}":
            return httpx.Response(200, stream=httpx.ByteStream(self.rate_card))
        return httpx.Response(404, stream=httpx.ByteStream(b'{"reason":"not-found","detail":""}'))


@dataclass
class Ledger:
    book: Book
    invoicing: Invoicing
    database: Database
    clock: ManualClock
    issuer: FakeIssuer
    rates: RateCard
    rates_digest: str
    desk: Desk
    card: Card

    def usage(self, quantity: str = "3600", *, subject: str = "a1", interval: int = 0, **changes: object) -> Usage:
        fields: dict[str, object] = {
            "provider": PROVIDER,
            "id": usage_id(PROVIDER, subject, "wall-seconds", interval),
            "source": f"fedci:provider:{PROVIDER}",
            "subject": subject,
            "agent": "w7",
            "iss": self.issuer.url,
            "sub": "dinah",
            "meter": "wall-seconds",
            "interval": interval,
            "started_at": self.clock.now() - timedelta(seconds=60),
            "ended_at": self.clock.now() - timedelta(seconds=1),
            "quantity": Decimal(quantity),
            "rate_card": self.rates_digest,
            "reason": EndReason.SUCCEEDED,
        }
        return Usage.model_validate({**fields, **changes})

    async def enter(self, *usages: Usage, key: SigningKey = WORKER) -> None:
        await self.book.enter_usage([frame.seal(usage, key.private) for usage in usages])


@pytest_asyncio.fixture
async def ledger(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Ledger]:
    now = clock.now()
    rate = Rate(meter="wall-seconds", unit="s", price=Decimal("0.36"), per=Decimal(3600), increment=Decimal(1))
    rates = RateCard(
        provider=PROVIDER,
        serial=1,
        currency="EUR",
        rates=(rate,),
        valid_from=now,
        valid_until=now + timedelta(days=1),
    )
    rates_raw = frame.seal(rates, ROOT.private)
    card = Card(
        provider=PROVIDER,
        serial=1,
        desk_url="https://desk.alice.example",
        issuers=(),
        agents=(Agent(name="w7", role="worker", key=WORKER.public, accounts=()),),
        pools=(),
        store=None,
        rate_card=sha256_hex(rates_raw),
        speaks=SPEAKS,
        issued_at=now,
        expires_at=now + timedelta(days=1),
    )
    desk = Desk(frame.seal(card, ROOT.private), rates_raw)
    http = httpx.AsyncClient(transport=httpx.MockTransport(desk.answer))
    issuer = FakeIssuer("https://id.fatima.example", clock)
    path = tmp_path / "ledger.sqlite"
    await upgrade(path, setup.MIGRATIONS)
    database = Database.open(path)
    own_card = OwnCard(PROVIDER, ROOT.public, DeskClient("https://desk.alice.example", http), clock)
    book = Book(PROVIDER, own_card, Trust([issuer.profile()], client=client_of(issuer), clock=clock), database, clock)
    invoicing = Invoicing(PROVIDER, "ledger", LEDGER, own_card, database, clock)
    yield Ledger(book, invoicing, database, clock, issuer, rates, sha256_hex(rates_raw), desk, card)
    await database.close()
    await http.aclose()


async def alarms(ledger: Ledger) -> list[str]:
    async with ledger.database.read() as session:
        return [row.reason for row in await store.alarms(session)]


async def facts(ledger: Ledger) -> list[tuple[str, str]]:
    async with ledger.database.read() as session:
        return await store.chain_rows(session)


async def test_the_migrations_make_the_tables_that_the_code_expects(tmp_path: Path) -> None:
    from agents.ledger.tables import Base

    await upgrade(tmp_path / "fresh.sqlite", setup.MIGRATIONS)
    await check(tmp_path / "fresh.sqlite", setup.MIGRATIONS, Base.metadata)


async def test_a_fact_that_comes_again_changes_nothing(ledger: Ledger) -> None:
    usage = ledger.usage()
    await ledger.enter(usage, usage)
    await ledger.enter(usage)
    assert len(await facts(ledger)) == 1
    assert ledger.book.tally.repeats == 2
    assert await alarms(ledger) == []


async def test_the_same_fact_with_other_content_is_an_alarm_and_never_replaces_the_first(ledger: Ledger) -> None:
    await ledger.enter(ledger.usage("10"))
    before = await facts(ledger)
    await ledger.enter(ledger.usage("99"))
    assert await facts(ledger) == before
    assert await alarms(ledger) == [Reason.EQUIVOCATION]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"agent": "w8"}, Reason.UNKNOWN_AGENT),
        ({"id": "0" * 64}, Reason.IDENTITY_MISMATCH),
        ({"provider": "cecilia.example"}, Reason.IDENTITY_MISMATCH),
    ],
)
async def test_a_fact_that_is_not_what_it_says_is_refused_and_kept_as_an_alarm(
    ledger: Ledger, changes: dict[str, Any], reason: Reason
) -> None:
    await ledger.enter(ledger.usage(**changes))
    assert await facts(ledger) == []
    assert await alarms(ledger) == [reason]


async def test_a_fact_signed_by_another_key_than_the_agents_is_refused(ledger: Ledger) -> None:
    await ledger.enter(ledger.usage(), key=SigningKey.generate())
    assert await alarms(ledger) == [Reason.ENVELOPE_SIGNATURE]


async def test_a_fact_waits_while_the_desk_cannot_say_whose_it_is(ledger: Ledger) -> None:
    ledger.desk.is_away = True
    with pytest.raises(WorldFault):
        await ledger.enter(ledger.usage())
    assert await alarms(ledger) == []
    ledger.desk.is_away = False
    ledger.clock.advance(PAUSE.total_seconds())
    await ledger.enter(ledger.usage())
    assert len(await facts(ledger)) == 1


async def test_a_fact_of_an_agent_enrolled_just_after_the_card_was_read_is_no_strangers(ledger: Ledger) -> None:
    await ledger.enter(ledger.usage())
    enrolled = Agent(name="w8", role="worker", key=WORKER.public, accounts=())
    newer = ledger.card.model_copy(update={"serial": 2, "agents": (*ledger.card.agents, enrolled)})
    ledger.desk.card = frame.seal(newer, ROOT.private)
    ledger.clock.advance(1)
    with pytest.raises(WorldFault):
        await ledger.enter(ledger.usage(agent="w8", subject="a2"))
    ledger.clock.advance(PAUSE.total_seconds())
    await ledger.enter(ledger.usage(agent="w8", subject="a2"))
    assert len(await facts(ledger)) == 2
    assert await alarms(ledger) == []


async def test_garbage_between_facts_stops_none_of_them(ledger: Ledger) -> None:
    good = [frame.seal(ledger.usage(subject=f"a{n}"), WORKER.private) for n in range(2)]
    await ledger.book.enter_usage([good[0], b"garbage", good[1]])
    assert len(await facts(ledger)) == 2
    assert len(await alarms(ledger)) == 1


async def test_the_chain_shows_any_row_that_was_changed_or_removed(ledger: Ledger) -> None:
    await ledger.enter(*(ledger.usage(subject=f"a{n}") for n in range(4)))
    rows = await facts(ledger)
    assert chain.first_broken(rows) is None
    assert chain.first_broken(rows[:1] + rows[2:]) == 1
    assert chain.first_broken([rows[0], (rows[2][0], rows[1][1]), *rows[2:]]) == 1


async def test_an_invoice_is_what_anybody_computes_from_the_events_it_cites(ledger: Ledger) -> None:
    usages = [ledger.usage("3600", subject="a1"), ledger.usage("1800", subject="a2")]
    void = ledger.usage("9000", subject="a3", reason=EndReason.WORKER_SHUTDOWN)
    await ledger.enter(*usages, void)
    written = await ledger.invoicing.write(Customer(ledger.issuer.url, "dinah"), ledger.clock.now())
    assert written is not None
    stated = verify_statement(written.raw, Invoice, key=LEDGER.public)
    assert isinstance(stated, SignedBy)
    cited = [CitedUsage(usage, sha256_hex(frame.seal(usage, WORKER.private))) for usage in (*usages, void)]
    assert stated.message.lines == pricing.invoice_lines(cited, {ledger.rates_digest: ledger.rates})
    assert stated.message.total == Decimal("0.54")


async def test_a_fact_is_on_one_invoice_or_on_none_and_a_late_one_on_the_next(ledger: Ledger) -> None:
    dinah = Customer(ledger.issuer.url, "dinah")
    await ledger.enter(ledger.usage("3600", subject="a1"))
    await ledger.enter(ledger.usage("3600", subject="a2", ended_at=ledger.clock.now() + timedelta(seconds=5)))
    first = await ledger.invoicing.write(dinah, ledger.clock.now())
    assert await ledger.invoicing.write(dinah, ledger.clock.now()) is None
    ledger.clock.advance(10)
    await ledger.enter(ledger.usage("3600", subject="a0", ended_at=ledger.clock.now() - timedelta(seconds=60)))
    second = await ledger.invoicing.write(dinah, ledger.clock.now())
    assert first is not None
    assert second is not None
    assert (first.invoice.total, second.invoice.total) == (Decimal("0.36"), Decimal("0.72"))
    assert first.invoice.number != second.invoice.number


async def test_one_customers_invoice_holds_nothing_of_anothers(ledger: Ledger) -> None:
    await ledger.enter(ledger.usage(subject="a1"), ledger.usage(subject="a2", sub="eliza"))
    assert await ledger.invoicing.customers() == [
        Customer(ledger.issuer.url, "dinah"),
        Customer(ledger.issuer.url, "eliza"),
    ]
    written = await ledger.invoicing.write(Customer(ledger.issuer.url, "eliza"), ledger.clock.now())
    assert written is not None
    assert [len(line.events) for line in written.invoice.lines] == [1]


async def test_a_receipt_is_kept_once_and_only_from_whom_it_says(ledger: Ledger) -> None:
    ledger.issuer.accounts["dinah"] = "secret"
    key = SigningKey.generate()
    account = Account(
        issuer=ledger.issuer.url,
        sub="dinah",
        api_token="secret",
        key=key,
        client=client_of(ledger.issuer),
        clock=ledger.clock,
    )
    receipt = await Speaker([account], key=key, clock=ledger.clock).receipt(
        PROVIDER, events=("0" * 64,), verdict="disputed", reason="never ran"
    )
    await ledger.book.enter_receipts([receipt, receipt, b"garbage"])
    async with ledger.database.read() as session:
        answers = await store.answers(session, ["0" * 64])
    assert [answer.verdict for answer in answers["0" * 64]] == ["disputed"]
    assert await alarms(ledger) == [Reason.MALFORMED_FRAME]
