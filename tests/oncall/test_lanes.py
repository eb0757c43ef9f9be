"""What people give up while it waits does not stand in its lane: the lane is as long as what waits."""

from __future__ import annotations

from postier.ledger.lanes import tidy_lanes
from postier.ledger.manage import Management
from postier.ledger.replay import Replays
from tests.ledger.kit import Ledger, take
from tests.oncall.kit import end_claimed, replay


def test_a_lane_is_as_long_as_what_waits_in_it_and_keeps_its_order(ledger: Ledger) -> None:
    manage = Management(ledger.store, "ann")
    ids = ledger.publish_many(2500, "main")
    other = ledger.publish_many(3, "spare")
    manage.pause("main")
    gone = {*ids[:3], *ids[998:1002], *ids[::7], ids[-1]}

    assert set(dict(manage.discard(sorted(gone), "not wanted")).values()) == {"done"}

    assert ledger.queries.counts()["waiting"] == len(ids) - len(gone) + len(other)
    assert ledger.queries.accounts()["main"]["waiting_bulk"] == len(ids) - len(gone)
    left = ledger.store.redis.lrange(ledger.store.key("lane:main:b"), 0, -1)
    assert [one.decode() for one in left] == [one for one in ids if one not in gone]
    assert tidy_lanes(ledger.store) == 0
    manage.resume("main")
    assert {one.id for one in take(ledger.worker(), 20, 16)} <= {*ids, *other} - gone


def test_a_stopped_replay_leaves_the_lane_it_stood_in(ledger: Ledger) -> None:
    ids = ledger.publish_many(5, "main")
    end_claimed(ledger.worker())
    Management(ledger.store, "ann").pause("spare")
    assert set(replay(ledger, ids, replay_id="r-1", account="spare").values()) == {"done"}
    assert ledger.queries.counts()["waiting"] == 5

    assert Replays(ledger.store, "ann").stop("r-1") == 5

    assert (ledger.queries.counts()["waiting"], ledger.queries.counts()["failed"]) == (0, 5)


def test_what_waits_for_a_retry_is_given_up_without_a_look_at_lanes_that_are_tidy(ledger: Ledger) -> None:
    (one,) = ledger.publish_many(1, "main")

    assert dict(Management(ledger.store, "ann").discard([one, one, "nobody"], "no"))["nobody"] == "unknown_id"

    assert ledger.queries.counts()["waiting"] == 0
    assert ledger.store.redis.exists(ledger.store.key("untidy"), ledger.store.key("lane:main:b")) == 0
