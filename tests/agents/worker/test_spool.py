"""A log on disk is the log: every byte once, and cut the same way however often it is sent."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.worker.journal.spool import Cut, Spool, SpoolReader, delete_spool, spooled_claims
from schemas import ids, limits

pieces = st.lists(st.binary(min_size=1, max_size=300) | st.just(b"x" * 70_000), max_size=12)


def _cut_all(spool: Spool, now: int) -> list[Cut]:
    cuts = []
    while (cut := spool.cut(now)) is not None:
        cuts.append(cut)
    return cuts


@given(before=pieces, after=pieces)
def test_cuts_cover_every_byte_once_across_a_restart(
    tmp_path_factory: object, before: list[bytes], after: list[bytes]
) -> None:
    directory = tmp_path_factory.mktemp("spool")  # type: ignore[attr-defined]
    first = Spool(directory, "c1")
    for piece in before:
        first.append(piece)
        first.cut(1)
    first.close()
    second = Spool(directory, "c1")
    for piece in after:
        second.append(piece)
    _cut_all(second, 2)
    whole = b"".join(before + after)
    cuts = list(second.cuts(0, second.length))
    assert b"".join(second.read(cut) for cut in cuts) == whole
    assert second.sha256 == ids.sha256_hex(whole)
    assert all(0 < cut.length <= limits.LOG_CHUNK_BYTES for cut in cuts)
    second.close()


def test_a_range_gives_the_messages_that_hold_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "c1")
    for _ in range(10):
        spool.append(b"0123456789")
        spool.cut(7)
    assert [cut.offset for cut in spool.cuts(25, 41)] == [20, 30, 40]
    assert list(spool.cuts(100, 200)) == []
    spool.close()


def test_records_of_bytes_that_a_power_cut_took_are_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "c1")
    for _ in range(3):
        spool.append(b"0123456789")
        spool.cut(7)
    spool.close()
    with (tmp_path / "c1.log").open("r+b") as log:
        log.truncate(15)
    with (tmp_path / "c1.cuts").open("ab") as cuts:
        cuts.write(b"half a record")
    again = Spool(tmp_path, "c1")
    assert (again.length, again.cut_to) == (15, 10)
    assert again.cut(8) == Cut(10, 5, 8)
    again.close()


def test_logs_are_for_their_owner_alone_and_can_be_removed(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", "c1")
    assert (tmp_path / "spool" / "c1.log").stat().st_mode & 0o777 == 0o600
    assert spooled_claims(tmp_path / "spool") == ["c1"]
    spool.close()
    delete_spool(tmp_path / "spool", "c1")
    assert spooled_claims(tmp_path / "spool") == []


def test_a_log_is_read_while_it_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "c1")
    spool.append(b"first")
    spool.cut(1)
    reader = SpoolReader(tmp_path, "c1")
    spool.append(b"second")
    spool.cut(2)
    assert [reader.read(cut) for cut in reader.cuts(0, 99)] == [b"first", b"second"]
    reader.close()
    spool.close()


def test_half_a_record_is_taken_back_so_that_the_next_ones_are_read_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    spool = Spool(tmp_path, "c1")
    spool.append(b"0123456789")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
        with pytest.raises(OSError, match="No space"):
            spool.cut(7)
    assert spool.cut(8) == Cut(0, 10, 8)
    assert list(spool.cuts(0, 10)) == [Cut(0, 10, 8)]
    spool.close()
