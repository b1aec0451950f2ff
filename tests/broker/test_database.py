"""What the database keeps, whatever the code does: one current attempt, one grant, one row a fact; and PostgreSQL."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.schema import CreateIndex, CreateTable

from broker.store import attempts as attempt_store
from broker.store import claims as claim_store
from broker.store import usage as usage_store
from broker.tables import Answer, AttemptRow, Base, ClaimRow
from runtime import migrations
from schemas import ids
from schemas.life import AttemptState
from schemas.orders import Grant
from tests.broker.world import FakeProvider, World, open_world
from tests.clocks import ManualClock

ONE_JOB = "name: p\njobs:\n  build:\n    steps: [make]\n"


async def test_the_migrations_make_exactly_the_tables_of_the_code(tmp_path: Path) -> None:
    path = tmp_path / "controller.sqlite"
    await migrations.upgrade(path, "broker.migrations")
    await migrations.check(path, "broker.migrations", Base.metadata)


def test_postgresql_can_be_told_all_tables_and_keeps_the_partial_indexes() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    text = [str(CreateTable(table).compile(dialect=dialect)) for table in Base.metadata.sorted_tables]
    text += [
        str(CreateIndex(index).compile(dialect=dialect))
        for table in Base.metadata.sorted_tables
        for index in table.indexes
    ]
    assert "CREATE UNIQUE INDEX uq_attempts_one_current ON attempts (job_id) WHERE is_current" in text
    assert "CREATE UNIQUE INDEX uq_claims_one_grant ON claims (attempt_id) WHERE answer = 'grant'" in text


def attempt_like(row: AttemptRow, number: int) -> AttemptRow:
    return AttemptRow(
        id=ids.new_attempt_id(),
        job_id=row.job_id,
        number=number,
        provider=row.provider,
        pool=row.pool,
        rate_card=row.rate_card,
        state=AttemptState.PUBLISHED,
        is_current=number == 2,
        order_digest="x",
        made_at=row.made_at,
        expires_at=row.expires_at,
    )


async def grant_row(session: AsyncSession, attempt: str) -> ClaimRow:
    known = await claim_store.granted_claim(session, attempt)
    assert known is not None
    values = {column.name: getattr(known, column.name) for column in ClaimRow.__table__.columns}
    return ClaimRow(**(values | {"id": ids.new_claim_id()}))


async def test_a_job_has_one_current_attempt_and_numbers_stand_once(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    row = await world.attempt((await world.job_order()).attempt)
    for number in (1, 2):
        with pytest.raises(IntegrityError):
            async with world.database.write() as session:
                await attempt_store.add_attempt(session, attempt_like(row, number))


async def test_an_attempt_has_one_grant(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    claim = await alice.workers["w1"].claim(world.tenant, (await world.job_order()).attempt)
    await world.hear(alice.name, claim.raw)
    with pytest.raises(IntegrityError):
        async with world.database.write() as session:
            await claim_store.add_claim(session, await grant_row(session, claim.attempt))


async def test_usage_is_kept_once_chained_and_another_content_is_an_alarm(world: World, alice: FakeProvider) -> None:
    await world.submit(ONE_JOB)
    claim = await alice.workers["w1"].claim(world.tenant, (await world.job_order()).attempt)
    rate_card = ids.sha256_hex(alice.rate_card)
    first = claim.usage(world, rate_card)
    second = claim.usage(world, rate_card, quantity="3")
    other = claim.usage(world, rate_card, meter="attempts")
    await world.hear(alice.name, first, first, second, other)
    async with world.database.read() as session:
        rows = await usage_store.facts(session, provider=alice.name)
    assert [row.digest for row in rows] == [ids.sha256_hex(first), ids.sha256_hex(other)]
    assert rows[0].chain == usage_store.link("0" * 64, rows[0].digest, rows[0].received_at)
    assert rows[1].chain == usage_store.link(rows[0].chain, rows[1].digest, rows[1].received_at)


@settings(max_examples=12)
@given(
    order=st.permutations(range(4)), cuts=st.sets(st.integers(1, 7)), repeats=st.lists(st.integers(0, 3), max_size=4)
)
async def test_at_most_one_grant_whatever_the_order_of_claims(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cuts: set[int], repeats: list[int]
) -> None:
    """Claims of four workers, in any order, in any batches, some of them twice."""
    async with open_world(tmp_path_factory.mktemp("grants"), ManualClock()) as world:
        await world.add_project()
        alice = FakeProvider("alice.example", world.issuer, world.clock)
        workers = [alice.hire(f"w{number}") for number in range(4)]
        await world.meet(alice)
        await world.submit(ONE_JOB)
        attempt = (await world.job_order()).attempt
        claims = [await worker.claim(world.tenant, attempt) for worker in workers]
        raws = [claims[index].raw for index in [*order, *repeats]]
        edges = [0, *sorted(cut for cut in cuts if cut < len(raws)), len(raws)]
        for start, end in pairwise(edges):
            await world.hear(alice.name, *raws[start:end])
        said = await world.said()
        assert len([order for order in said if isinstance(order.order, Grant)]) == 1
        assert len(said) == 4
        async with world.database.read() as session:
            answers = [claim.answer for claim in await claim_store.claims_of(session, [attempt])]
        assert sorted(answers, key=str) == [Answer.GRANT, *[Answer.STAND_DOWN] * 3]
