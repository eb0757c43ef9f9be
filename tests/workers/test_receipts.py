"""Proofs on disk: written at once, replayed once, never taken from a living process."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import pytest

from postier.ledger.entries import Entry, Reply, sent
from postier.schemas.errors import LedgerUnavailable
from postier.workers.receipts import ReceiptFile, replay_receipts


def proof(number: int) -> Entry:
    return sent(f"d{number}", 1, Reply(250, "2.0.0", "taken"), provider_id="4X", took=1000)


class Told:
    """Notes what the ledger is told."""

    def __init__(self, *, fails: bool = False) -> None:
        self.entries: list[Entry] = []
        self.fails = fails

    def __call__(self, entries: Sequence[Entry]) -> None:
        if self.fails:
            raise LedgerUnavailable("away")
        self.entries.extend(entries)


def abandoned(folder: Path, *entries: Entry) -> Path:
    """The receipts of a process that died."""
    living = ReceiptFile(folder, "w1")
    for entry in entries:
        living.write(entry)
    path = folder / "w1.receipts"
    copy = folder / "dead.receipts"
    copy.write_bytes(path.read_bytes())
    living.close()
    return copy


def test_receipts_of_a_dead_worker_are_told_once_and_removed(tmp_path: Path) -> None:
    path = abandoned(tmp_path, proof(1), proof(2))
    told = Told()
    assert replay_receipts(tmp_path, told) == 2
    assert told.entries == [proof(1), proof(2)]
    assert not path.exists()
    assert replay_receipts(tmp_path, told) == 0


def test_a_line_torn_by_the_crash_is_left_out(tmp_path: Path) -> None:
    path = abandoned(tmp_path, proof(1), proof(2))
    path.write_bytes(path.read_bytes()[:-20] + b"\n\xff\xfe\n[1]\n{}\n")
    with path.open("ab") as file:  # as a bad disk may give back
        file.write(b'["sent",null,1,250,"","","",1,""]\n["sent","d3",{},250,"","","",1,""]\n')
    told = Told()
    replay_receipts(tmp_path, told)
    assert told.entries == [proof(1)]


def test_receipts_stay_while_the_ledger_is_away(tmp_path: Path) -> None:
    path = abandoned(tmp_path, proof(1))
    with pytest.raises(LedgerUnavailable):
        replay_receipts(tmp_path, Told(fails=True))
    assert path.exists()


def test_receipts_of_a_living_worker_are_left_alone(tmp_path: Path) -> None:
    living = ReceiptFile(tmp_path, "w1")
    living.write(proof(1))
    told = Told()
    assert replay_receipts(tmp_path, told) == 0
    assert (tmp_path / "w1.receipts").exists()
    living.close()
    living.close()
    assert not (tmp_path / "w1.receipts").exists()


def test_a_disk_that_cannot_be_written_costs_no_delivery(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    receipts = ReceiptFile(blocked, "w1")
    receipts.write(proof(1))
    receipts.close()


def test_a_file_is_cut_only_when_everything_in_it_is_settled(tmp_path: Path) -> None:
    receipts = ReceiptFile(tmp_path, "w1")
    long = sent("d", 1, Reply(250, "2.0.0", "x" * 300), provider_id="p" * 200, took=1)
    for _ in range(2500):
        receipts.write(long)
    path = tmp_path / "w1.receipts"
    size = path.stat().st_size
    receipts.trim(settled=lambda: False)
    assert path.stat().st_size == size > 1_000_000
    receipts.trim(settled=lambda: True)
    assert path.stat().st_size == 0
    receipts.write(proof(1))
    assert path.read_bytes().count(b"\n") == 1
    receipts.close()


def test_a_disk_that_became_read_only_keeps_no_worker_from_starting_or_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned(tmp_path, proof(1))
    receipts = ReceiptFile(tmp_path, "w2")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr("os.ftruncate", refuse)
    monkeypatch.setattr("postier.workers.receipts._ENOUGH", 1)
    told = Told()
    assert replay_receipts(tmp_path, told) == 1
    assert told.entries == [proof(1)]
    receipts.write(proof(2))
    receipts.trim(settled=lambda: True)
    assert receipts.since(0) == [proof(2)]
    receipts.close()
