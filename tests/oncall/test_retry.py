"""Once the cause is gone, what waits for its next attempt is tried now; what waits otherwise keeps its time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from postier.ledger.audit import Audit
from postier.ledger.entries import park
from postier.ledger.manage import Management
from tests.ledger.kit import Ledger, contact_form, finish, freed, later, over, reset_link, take
from tests.oncall.kit import replay

PROVIDER_WAS_ILL = 600.0


def tried_in_vain(ledger: Ledger, count: int, account: str = "main") -> list[str]:
    """Deliveries that wait ten minutes for their next attempt."""
    worker = ledger.worker()
    ids = ledger.publish_many(count, account)
    while handed := worker.claim(8, 64)[1]:
        for conversation in handed:
            waits = (later(one, PROVIDER_WAS_ILL) for one in conversation.deliveries)
            worker.settle([*waits, freed(conversation)])
    return ids


def left(ledger: Ledger) -> list[str]:
    """What leaves now, in its order."""
    worker = ledger.worker("w2")
    ids: list[str] = []
    while handed := worker.claim(1, 64)[1]:
        ids += [one.id for conversation in handed for one in conversation.deliveries]
        finish(worker, handed)
    return ids


def test_it_leaves_now_in_the_order_it_was_accepted_and_the_timeline_says_who_hurried_it(ledger: Ledger) -> None:
    ids = tried_in_vain(ledger, 5)
    ledger.advance(1)

    answers = dict(Management(ledger.store, "anna").retry(reversed(ids)))

    assert answers == dict.fromkeys(ids, "done")
    assert left(ledger) == ids
    assert [(line["what"], line.get("by")) for line in ledger.status(ids[0]).history] == [
        ("retried", None), ("hurried", "anna"),
    ]  # fmt: skip
    assert ledger.status(ids[0]).attempt == 2
    (entry, *_) = Audit(ledger.store).entries()
    assert (entry.who, entry.what, entry.count) == ("anna", "deliveries.hurried", 5)


def test_a_worker_that_waits_is_woken(ledger: Ledger) -> None:
    (one,) = tried_in_vain(ledger, 1)
    ledger.store.redis.delete(ledger.store.key("wake"))
    list(Management(ledger.store, "anna").retry([one]))
    assert ledger.store.redis.llen(ledger.store.key("wake")) == 1


def test_saying_it_twice_says_it_once_in_the_timeline(ledger: Ledger) -> None:
    (one,) = tried_in_vain(ledger, 1)
    management = Management(ledger.store, "anna")
    for _ in range(2):
        assert dict(management.retry([one])) == {one: "done"}
    assert [line["what"] for line in ledger.status(one).history].count("hurried") == 1
    assert left(ledger) == [one]


def test_what_was_never_tried_keeps_the_time_that_a_publisher_or_a_replay_gave_it(ledger: Ledger) -> None:
    worker, management = ledger.worker(), Management(ledger.store, "anna")
    at = ledger.publish(
        contact_form(), not_before=datetime.fromtimestamp(ledger.now / 1e6, UTC) + timedelta(minutes=5)
    ).deliveries
    failed = ledger.publish_many(3, "main")
    worker.settle([over(one) for one in take(worker)])
    replay(ledger, failed, pace=0.1)
    (lane,) = ledger.publish(reset_link()).deliveries

    answers = dict(management.retry([*at, *failed, lane, "nobody"]))

    assert answers == {**dict.fromkeys([*at, *failed, lane], "not_possible"), "nobody": "unknown_id"}
    assert list(management.between_attempts()) == []
    assert sorted(left(ledger)) == sorted([failed[0], lane])
    ledger.advance(400)
    assert set(at) <= set(left(ledger))


def test_all_of_an_account_are_found_and_no_others(ledger: Ledger) -> None:
    ours, theirs = tried_in_vain(ledger, 250), tried_in_vain(ledger, 3, "spare")
    management = Management(ledger.store, "anna")
    assert sorted(management.between_attempts("main")) == ours
    assert sorted(management.between_attempts()) == sorted([*ours, *theirs])

    assert set(dict(management.retry(management.between_attempts("main"))).values()) == {"done"}

    assert sorted(left(ledger)) == ours
    assert sorted(management.between_attempts()) == sorted(theirs)


def test_mail_of_a_provider_that_asked_to_wait_is_found_too(ledger: Ledger) -> None:
    worker = ledger.worker()
    (one,) = ledger.publish_many(1, "main")
    worker.settle([later(delivery, PROVIDER_WAS_ILL, spend=False) for delivery in take(worker)])
    assert ledger.status(one).attempt == 0

    assert list(Management(ledger.store, "anna").between_attempts()) == [one]
    assert dict(Management(ledger.store, "anna").retry([one])) == {one: "done"}


def test_it_waits_for_an_account_that_stands_still(ledger: Ledger) -> None:
    (one,) = tried_in_vain(ledger, 1)
    worker, management = ledger.worker(), Management(ledger.store, "anna")
    worker.settle([park("main", state="parked", seconds=3600, cause="authentication_failed", words="535")])
    list(management.retry([one]))
    assert left(ledger) == []
    management.resume("main")
    assert left(ledger) == [one]


def test_a_step_of_the_clock_that_nobody_noticed_yet_costs_no_hour(ledger: Ledger) -> None:
    (one,) = tried_in_vain(ledger, 1)
    worker = ledger.worker("w2")
    worker.claim(0, 1)
    ledger.step(3600)
    list(Management(ledger.store, "anna").retry([one]))
    ledger.advance(1)
    assert [delivery.id for delivery in take(worker)] == [one]


def test_a_useless_hurry_changes_no_deadline(ledger: Ledger) -> None:
    (one,) = tried_in_vain(ledger, 1)
    before = ledger.status(one).facts["deadline"]
    list(Management(ledger.store, "anna").retry([one]))
    assert ledger.status(one).facts["deadline"] == before
