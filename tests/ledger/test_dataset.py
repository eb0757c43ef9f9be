"""A ledger that was flushed or restored from a backup stops workers until a person accepts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from postier.ledger.dataset import Dataset, LedgerChanged, accept_dataset, why_stopped
from postier.ledger.entries import FORGOTTEN, OK
from postier.ledger.store import Store
from tests.ledger.kit import Ledger, ok, take_one


@pytest.fixture
def watched(store: Store, tmp_path: Path) -> Store:
    """A worker's store that has seen this ledger before."""
    dataset = Dataset(store, tmp_path)
    dataset.beat()
    store.guard = Dataset(store, tmp_path).check
    return store


def reconnect(store: Store) -> None:
    store.forget_connections()
    store.run("claim", ("w", 0, 1, 1_000_000, 10, 3, 3600, "w.1"))


def test_the_known_ledger_is_worked_on(watched: Store) -> None:
    reconnect(watched)
    assert why_stopped(watched) is None


def test_a_flushed_ledger_stops_every_worker_until_a_person_accepts_it(watched: Store, tmp_path: Path) -> None:
    watched.redis.delete(watched.key("dataset"))
    with pytest.raises(LedgerChanged, match="empty"):
        reconnect(watched)
    with pytest.raises(LedgerChanged, match="empty"):
        Dataset(watched, tmp_path / "another-machine").beat()
    assert why_stopped(watched) is not None
    assert accept_dataset(watched)
    assert not accept_dataset(watched)
    again = Dataset(watched, tmp_path)
    again.beat()
    watched.guard = again.check
    reconnect(watched)


def test_a_backup_of_yesterday_stops_workers_before_they_send_it_again(watched: Store) -> None:
    watched.redis.hset(watched.key("dataset"), "seen", watched.now() - 86_400_000_000)
    with pytest.raises(LedgerChanged, match="went back"):
        reconnect(watched)
    accept_dataset(watched)
    reconnect(watched)


def test_the_seconds_that_a_power_cut_costs_stop_nobody(watched: Store) -> None:
    watched.redis.hset(watched.key("dataset"), "seen", watched.now() - 3_000_000)
    reconnect(watched)
    assert why_stopped(watched) is None


def test_other_data_under_the_same_address_stops_workers(watched: Store, tmp_path: Path) -> None:
    watched.redis.hset(watched.key("dataset"), "id", "another")
    with pytest.raises(LedgerChanged, match="other data"):
        Dataset(watched, tmp_path).beat()


def test_a_proof_of_acceptance_holds_in_an_older_copy_of_the_ledger(ledger: Ledger) -> None:
    (identity,) = ledger.publish_many(1, "main")
    worker = ledger.worker()
    held = take_one(worker)
    key = ledger.store.key(f"delivery:{identity}")
    ledger.store.redis.hset(key, mapping={"state": "waiting", "fence": 0, "attempt": 0})  # as it was before the claim
    ledger.store.redis.rpush(ledger.store.key("lane:main:b"), identity)
    assert worker.settle([ok(held)]) == [OK]
    assert ledger.state(identity) == "sent"
    ledger.store.redis.delete(key)
    assert worker.settle([ok(held)]) == [FORGOTTEN]
