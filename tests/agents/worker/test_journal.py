"""What was journalled is there after a crash, once, and nothing happens twice because of it."""

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agents.worker.journal.claims import ClaimState, Journal, KeptReport, NewClaim, OrderMark, Outgoing
from agents.worker.journal.file import JournalFile
from agents.worker.journal.outbox import JournalOutbox
from identity.trust.replay import Seen
from runtime.errors import OurFault
from schemas import frame, ids
from schemas.refusals import Reason, Refusal
from tests.agents.worker.jobs import TENANT, make_job
from tests.clocks import START
from tests.outbox_contract import OutboxContract, Shelf

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


def _new_claim(**changes: object) -> NewClaim:
    job = make_job(**changes)
    return NewClaim(ids.new_claim_id(), TENANT, job, frame.seal(job, KEY, "token"), START)


def _mark(new: NewClaim, digest: str = "d") -> OrderMark:
    return OrderMark.of(new.job, digest)


def _outgoing(body: bytes = b"x") -> Outgoing:
    return Outgoing("replies", body, "a")


@pytest_asyncio.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = await Journal.open(tmp_path / "journal.sqlite")
    yield journal
    await journal.close()


async def _reopen(tmp_path: Path) -> Journal:
    """A second look at the same file, as after the process was killed: nothing was closed or flushed."""
    return await Journal.open(tmp_path / "journal.sqlite")


async def _granted(journal: Journal) -> NewClaim:
    new = _new_claim()
    await journal.add_claim(new, _mark(new))
    await journal.confirm_claim(new.claim)
    assert await journal.grant(new.claim, replace(_mark(new), key="grant"), START)
    return new


async def test_a_claim_survives_a_crash_whole(journal: Journal, tmp_path: Path) -> None:
    new = _new_claim()
    assert await journal.add_claim(new, _mark(new)) is Seen.NEW
    after = await _reopen(tmp_path)
    (entry,) = await after.claims()
    assert (entry.claim, entry.tenant, entry.state) == (new.claim, TENANT, ClaimState.CLAIMING)
    assert entry.job == new.job
    await after.close()


async def test_the_same_job_again_is_a_redelivery(journal: Journal) -> None:
    new = _new_claim()
    await journal.add_claim(new, _mark(new))
    again = replace(new, claim=ids.new_claim_id())
    assert await journal.add_claim(again, _mark(again)) is Seen.REDELIVERY
    assert [entry.claim for entry in await journal.claims()] == [new.claim]


async def test_another_job_under_the_same_attempt_is_an_alarm(journal: Journal) -> None:
    new = _new_claim()
    await journal.add_claim(new, _mark(new))
    answer = await journal.add_claim(replace(new, claim=ids.new_claim_id()), _mark(new, "other"))
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.EQUIVOCATION


async def test_a_released_job_that_is_delivered_again_may_be_claimed_again(journal: Journal) -> None:
    new = _new_claim()
    await journal.add_claim(new, _mark(new))
    await journal.release(new.claim, _outgoing())
    assert await journal.add_claim(replace(new, claim=ids.new_claim_id()), _mark(new)) is Seen.NEW


async def test_a_claim_starts_once(journal: Journal, tmp_path: Path) -> None:
    new = await _granted(journal)
    after = await _reopen(tmp_path)
    assert not await after.grant(new.claim, replace(_mark(new), key="another grant"), START)
    await after.close()


async def test_a_released_claim_never_starts(journal: Journal) -> None:
    new = _new_claim()
    await journal.add_claim(new, _mark(new))
    await journal.release(new.claim, _outgoing())
    assert not await journal.grant(new.claim, replace(_mark(new), key="grant"), START)


async def test_a_release_is_forgotten_and_said_in_one_step(journal: Journal, tmp_path: Path) -> None:
    new = _new_claim()
    await journal.add_claim(new, _mark(new))
    await journal.release(new.claim, _outgoing(b"released"))
    after = await _reopen(tmp_path)
    assert await after.claims() == []
    assert [message.body for message in await JournalOutbox(after.file).pending(9, ())] == [b"released"]
    await after.close()


async def test_an_end_is_noted_and_said_in_one_step_and_once(journal: Journal, tmp_path: Path) -> None:
    new = await _granted(journal)
    report = KeptReport(await journal.next_sequence(new.claim, START), b"finished")
    assert await journal.finish(new.claim, START, report, [_outgoing(b"finished"), _outgoing(b"usage")])
    assert not await journal.finish(new.claim, START, KeptReport(9, b"other"), [_outgoing(b"other")])
    after = await _reopen(tmp_path)
    assert [message.body for message in await JournalOutbox(after.file).pending(9, ())] == [b"finished", b"usage"]
    assert await after.kept_reports(new.claim, [0, 1, 9]) == [b"finished"]
    await after.close()


async def test_no_sequence_number_is_given_twice(journal: Journal, tmp_path: Path) -> None:
    new = await _granted(journal)
    before = [await journal.next_sequence(new.claim, START) for _ in range(3)]
    after = await _reopen(tmp_path)
    assert [*before, await after.next_sequence(new.claim, START)] == [0, 1, 2, 3]
    await after.close()


async def test_a_running_claim_is_not_forgotten(journal: Journal) -> None:
    new = await _granted(journal)
    assert not await journal.forget(new.claim)
    await journal.finish(new.claim, START, KeptReport(0, b"finished"), [])
    assert await journal.count_unsettled(TENANT) == 1
    assert await journal.forget(new.claim)
    assert await journal.kept_reports(new.claim, [0]) == []
    assert await journal.count_unsettled(TENANT) == 0


async def test_marks_of_expired_orders_are_pruned(journal: Journal) -> None:
    new = _new_claim()
    await journal.remember(_mark(new))
    await journal.prune(START + timedelta(minutes=59))
    assert await journal.look_up(_mark(new)) is Seen.REDELIVERY
    await journal.prune(START + timedelta(hours=2))
    assert await journal.look_up(_mark(new)) is Seen.NEW


async def test_the_journal_is_for_its_owner_alone(journal: Journal, tmp_path: Path) -> None:
    assert (tmp_path / "journal.sqlite").stat().st_mode & 0o777 == 0o600


async def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(OurFault, match="version 99"):
        await JournalFile(path).open()


class TestJournalOutbox(OutboxContract):
    """The promises that every outbox's store keeps."""

    @pytest.fixture
    def shelf(self, journal: Journal) -> Shelf:
        async def put(destination: str, body: bytes, correlation_id: str, expires_at: datetime | None) -> None:
            await journal.enqueue([Outgoing(destination, body, correlation_id, expires_at)])

        return Shelf(JournalOutbox(journal.file), put)
