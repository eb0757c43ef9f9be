"""Indexes that say something else than the records are found and mended, and a ledger at work looks sound."""

from __future__ import annotations

import pytest

from postier.ledger.groups import Groups
from postier.ledger.repair import Indexes
from postier.ledger.search import Filters
from tests.ledger.kit import Ledger, data_change, finish, later, take
from tests.oncall.kit import end_claimed


@pytest.fixture
def busy(ledger: Ledger) -> dict[str, str]:
    """One delivery in each place it can be in."""
    worker = ledger.worker()
    places: dict[str, str] = {}
    (places["failed"],) = ledger.publish_many(1, "main")
    end_claimed(worker)
    (places["sent"],) = ledger.publish_many(1, "main")
    finish(worker, worker.claim(1, 1)[1])
    (places["scheduled"],) = ledger.publish_many(1, "main")
    worker.settle([later(take(worker)[0], 60)])
    (places["leased"],) = ledger.publish_many(1, "main")
    take(worker)
    places["lane"] = ledger.publish(data_change()).deliveries[0]
    return places


def test_a_sound_ledger_is_found_sound(ledger: Ledger, busy: dict[str, str]) -> None:
    found = Indexes(ledger.store).examine()

    assert (found.wrong, found.looked) == ({}, 5)


def test_what_is_lost_from_an_index_is_put_back(ledger: Ledger, busy: dict[str, str]) -> None:
    redis, key = ledger.store.redis, ledger.store.key
    redis.delete(key("lane:main:b"), key("scheduled"), key("lease"), key("deadline"), key("groups"))
    redis.zrem(key("ended:failed"), busy["failed"])
    redis.zadd(key("ended:unknown"), {busy["sent"]: 1, "nobody": 1})

    found = Indexes(ledger.store).examine()
    assert found.wrong["in no lane"] == 2
    assert found.wrong["not in lease"] == 1
    assert found.wrong["not in deadline"] == 3
    assert found.wrong["wrongly in ended:unknown"] == 2
    assert found.wrong["not in its group"] == 1
    mended = Indexes(ledger.store).examine(mend=True)
    assert mended.wrong == found.wrong

    assert Indexes(ledger.store).examine().wrong == {}
    assert [one.count for one in Groups(ledger.store).find(Filters())] == [1]
    worker = ledger.worker("w2")
    ledger.pass_time(worker, 25)
    assert sorted(one.id for one in take(worker)) == sorted([busy["lane"], busy["scheduled"], busy["leased"]])


def test_mending_a_sound_ledger_changes_nothing(ledger: Ledger, busy: dict[str, str]) -> None:
    before = {one: ledger.state(one) for one in busy.values()}
    redis, key = ledger.store.redis, ledger.store.key
    sizes = [
        redis.zcard(key(name)) for name in ("lease", "deadline", "scheduled", "ended:sent", "ended:failed", "forget")
    ]

    Indexes(ledger.store).examine(mend=True)

    assert {one: ledger.state(one) for one in busy.values()} == before
    assert sizes == [
        redis.zcard(key(name)) for name in ("lease", "deadline", "scheduled", "ended:sent", "ended:failed", "forget")
    ]
