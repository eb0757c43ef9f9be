"""What is handed out, in which order, and when to come back: every account inside its limits, none before another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest

from postier.ledger.entries import Reply, back, free, mark, sent
from postier.ledger.replay import Replays
from tests.ledger.kit import (
    LEASE,
    Ledger,
    all_of,
    data_change,
    finish,
    freed,
    known_pace,
    later,
    ok,
    over,
    parked,
    reset_link,
    take,
    take_one,
)

MakeLedger = Callable[..., Ledger]


def test_a_lane_is_first_in_first_out(ledger: Ledger) -> None:
    ids = ledger.publish_many(50, "main")
    worker = ledger.worker()
    got: list[str] = []
    while handed := worker.claim(1, 7)[1]:
        got += [delivery.id for delivery in all_of(handed)]
        finish(worker, handed)
    assert got == ids


def test_urgent_mail_goes_before_bulk_mail_of_its_account(ledger: Ledger) -> None:
    ledger.publish_many(20, "main")
    (urgent,) = ledger.publish(reset_link()).deliveries
    assert take_one(ledger.worker()).id == urgent


def test_urgent_mail_of_one_account_goes_before_bulk_mail_of_another(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(a={}, b={})
    ledger.publish_many(20, "a")
    ledger.advance(1)
    (urgent,) = ledger.publish(reset_link(), account="b").deliveries
    assert take_one(ledger.worker()).id == urgent


def test_accounts_take_turns(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(a={}, b={}, c={})
    for account, count in (("a", 100), ("b", 10), ("c", 10)):
        ledger.publish_many(count, account)
    worker = ledger.worker()
    served: list[str] = []
    for _ in range(15):
        ledger.advance(0.001)
        handed = worker.claim(1, 1)[1]
        served.append(handed[0].account)
        finish(worker, handed)
    assert Counter(served) == {"a": 5, "b": 5, "c": 5}


def test_an_account_that_is_published_to_all_the_time_gets_its_turn(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(a={}, b={}, c={})
    ledger.publish_many(100, "a")
    ledger.publish_many(100, "b")
    worker = ledger.worker()
    served: Counter[str] = Counter()
    for _ in range(12):
        ledger.publish_many(1, "c")
        ledger.advance(0.001)
        handed = worker.claim(1, 1)[1]
        served[handed[0].account] += 1
        finish(worker, handed)
    assert served["c"] >= 3


def test_a_delivery_behind_5_000_throttled_ones_leaves_with_the_next_claim(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(slow={"per_second": 20}, fast={})
    for _ in range(5):
        ledger.publish_many(1000, "slow", urgent=True)
    worker = ledger.worker()
    finish(worker, worker.claim(8, 16)[1])
    (identity,) = ledger.publish(reset_link(), account="fast").deliveries
    handed = worker.claim(8, 16)[1]
    assert identity in [delivery.id for delivery in all_of(handed)]


def test_a_claim_says_when_the_next_permit_is_due(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(main={"per_second": 5})
    ledger.publish_many(10, "main")
    worker = ledger.worker()
    wait, handed = worker.claim(8, 16)
    finish(worker, handed)
    assert len(all_of(handed)) == 1
    assert 0.15 < wait <= 0.25
    ledger.advance(wait - 0.01)
    assert worker.claim(8, 16)[1] == []
    ledger.advance(0.02)
    assert len(take(worker)) == 1


def test_nothing_to_do_means_a_second_of_waiting(ledger: Ledger) -> None:
    assert ledger.worker().claim(8, 16) == (1.0, [])


def test_a_retry_is_due_when_it_said(ledger: Ledger) -> None:
    ledger.publish()
    worker = ledger.worker()
    _, handed = worker.claim(1, 1)
    worker.settle([later(all_of(handed)[0], 0.4), freed(handed[0])])
    assert worker.claim(1, 1)[0] == pytest.approx(0.4)
    ledger.advance(0.4)
    assert take_one(worker).attempt == 2


def test_concurrency_never_exceeds_the_accounts_cap(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(main={"max_connections": 3})
    ledger.publish_many(100, "main")
    workers = [ledger.worker(f"w{number}") for number in range(3)]
    handed = [conversation for worker in workers for conversation in worker.claim(4, 2)[1]]
    assert len(handed) == 3
    finish(workers[0], handed[:1])
    assert sum(len(worker.claim(4, 2)[1]) for worker in workers) == 1


def test_a_freed_slot_makes_waiting_mail_due_at_once(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(main={"max_connections": 1})
    ledger.publish_many(3, "main")
    worker = ledger.worker()
    first = worker.claim(2, 1)[1]
    assert worker.claim(2, 1)[1] == []
    finish(worker, first)
    assert len(worker.claim(2, 1)[1]) == 1


def test_the_slots_of_a_dead_worker_come_back_after_its_lease(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(main={"max_connections": 2})
    ledger.publish_many(40, "main")
    dead, alive = ledger.worker("dead"), ledger.worker("alive")
    lost = {delivery.id for delivery in take(dead)}
    assert take(alive) == []
    ledger.pass_time(alive, LEASE * 1.4)
    seen: set[str] = set()
    while handed := alive.claim(8, 16)[1]:
        assert len(handed) <= 2
        seen |= {delivery.id for delivery in all_of(handed)}
        finish(alive, handed)
    assert lost <= seen
    assert len(seen) == 40
    assert ledger.store.redis.zcard(ledger.store.key("sending:main")) == 0


def test_slots_whose_outcomes_were_written_before_the_crash_come_back_too(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(main={"max_connections": 1})
    ledger.publish_many(2, "main")
    dead, alive = ledger.worker("dead"), ledger.worker("alive")
    dead.settle([ok(take_one(dead))])
    ledger.pass_time(alive, LEASE * 1.4)
    assert len(take(alive)) == 1


def test_unstarted_deliveries_return_to_the_head_with_their_permit_and_attempt(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(main={"per_second": 100})
    ids = ledger.publish_many(20, "main")
    worker = ledger.worker()
    held = take(worker, 1, 16)
    assert 2 <= len(held) <= 5
    assert [delivery.id for delivery in held] == ids[: len(held)]
    assert take(worker, 1, 16) == []
    worker.settle([back(delivery) for delivery in reversed(held)])
    again = take(worker, 1, 16)
    assert [(delivery.id, delivery.attempt) for delivery in again] == [(delivery.id, 1) for delivery in held]


def test_a_permit_that_returns_late_does_not_add_to_the_rate(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(main={"per_second": 1})
    ledger.publish_many(10, "main")
    worker = ledger.worker()
    (slow,) = take(worker)
    ledger.advance(1.5)
    assert len(take(worker)) == 1
    ledger.advance(0.1)
    worker.settle([back(slow)])
    assert take(worker) == []


def test_a_paused_account_holds_its_mail_and_resumes(ledger: Ledger) -> None:
    ledger.publish_many(3, "main")
    ledger.store.run("manage", ("pause", "main", "ops"))
    worker = ledger.worker()
    assert take(worker) == []
    assert ledger.queries.counts()["waiting"] == 3
    ledger.store.run("manage", ("resume", "main", "ops"))
    assert len(take(worker)) == 3


def test_a_parked_account_keeps_its_mail_while_others_flow(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(a={}, b={})
    ledger.publish_many(3, "a")
    ledger.publish_many(3, "b")
    worker = ledger.worker()
    worker.settle([parked("a", seconds=600)])
    assert {conversation.account for conversation in worker.claim(8, 16)[1]} == {"b"}
    account = ledger.queries.accounts()["a"]
    assert (account["state"], account["reason"], account["waiting_bulk"]) == ("parked", "authentication_failed", 3)
    ledger.advance(599)
    assert take(worker) == []
    ledger.advance(2)
    assert len(take(worker)) >= 1
    assert ledger.queries.accounts()["a"]["state"] == "ready"


def test_the_first_mail_after_a_parking_is_a_single_probe(ledger: Ledger) -> None:
    ledger.publish_many(100, "main")
    worker = ledger.worker()
    worker.settle([parked("main", seconds=600)])
    ledger.advance(601)
    handed = worker.claim(8, 16)[1]
    assert [len(conversation.deliveries) for conversation in handed] == [1]
    assert take(worker) == []
    worker.settle([
        parked("main", seconds=600),
        later(all_of(handed)[0], 1, spend=False),
        freed(handed[0]),
    ])  # fmt: skip
    assert take(worker) == []
    ledger.advance(601)
    handed = worker.claim(8, 16)[1]
    assert len(all_of(handed)) == 1
    finish(worker, handed)
    assert len(worker.claim(8, 16)[1]) == 8


def test_waiting_mail_expires_by_its_deadline_even_when_its_account_is_paused(ledger: Ledger) -> None:
    (identity,) = ledger.publish(reset_link()).deliveries
    ledger.store.run("manage", ("pause", "main", "ops"))
    worker = ledger.worker()
    ledger.pass_time(worker, 60)
    assert ledger.state(identity) == "waiting"
    ledger.advance(3600)
    worker.claim(8, 16)
    assert ledger.state(identity) == "expired"


def test_mail_that_expires_while_it_is_sent_keeps_its_outcome(ledger: Ledger) -> None:
    ledger.publish(reset_link())
    worker = ledger.worker()
    held = take_one(worker)
    ledger.advance(3600)
    worker.claim(8, 16)
    worker.settle([("mark", held.id, held.fence), ok(held)])
    assert ledger.state(held.id) == "sent"


def test_a_retry_beyond_the_deadline_makes_a_last_attempt_before_it(ledger: Ledger) -> None:
    (identity,) = ledger.publish(reset_link()).deliveries
    worker = ledger.worker()
    worker.settle([later(take_one(worker), 7200)])
    status = ledger.status(identity)
    assert status.due is not None
    assert 0 < status.facts["deadline"] - status.due <= 10
    ledger.advance(status.due - ledger.now / 1e6 + 0.1)
    worker.settle([later(take_one(worker), 60)])
    assert ledger.state(identity) == "expired"


def test_mail_replayed_after_it_expired_in_its_lane_is_handed_out_once(ledger: Ledger) -> None:
    (identity,) = ledger.publish(reset_link()).deliveries
    ledger.store.run("manage", ("pause", "main", "ops"))
    ledger.advance(3700)
    worker = ledger.worker()
    worker.claim(8, 16)
    assert ledger.state(identity) == "expired"
    assert replay(ledger, identity) == [1]
    ledger.store.run("manage", ("resume", "main", "ops"))
    assert [delivery.id for delivery in take(worker)] == [identity]
    assert take(worker) == []


def replay(ledger: Ledger, *ids: str) -> list[int]:
    """As a person would, whatever the event said about its use."""
    rows = [value for identity in ids for value in (identity, int(3600e6), 0)]
    head = ("start", Replays.new_id(), "ops", 0, 0, "", 1, 3600)
    answers: list[int] = ledger.store.run("replay", (*head, *rows))
    return answers


def test_a_stale_place_in_the_lane_does_not_bring_a_retry_forward(ledger: Ledger) -> None:
    (identity,) = ledger.publish(reset_link()).deliveries
    ledger.publish_many(1, "main", urgent=True)
    ledger.store.run("manage", ("pause", "main", "ops"))
    ledger.advance(3700)
    worker = ledger.worker()
    worker.claim(8, 16)
    replay(ledger, identity)
    ledger.store.run("manage", ("resume", "main", "ops"))
    held = take(worker, 1, 1)
    if [delivery.id for delivery in held] != [identity]:
        worker.settle([ok(delivery) for delivery in held])
        held = take(worker, 1, 1)
    worker.settle([later(held[0], 600)])
    assert identity not in [delivery.id for delivery in take(worker)]


def test_a_failed_delivery_keeps_its_payload_and_is_replayed_as_new(ledger: Ledger) -> None:
    (identity,) = ledger.publish(data_change()).deliveries
    worker = ledger.worker()
    held = take_one(worker)
    worker.settle([over(held)])
    assert ledger.store.redis.get(ledger.store.key(f"payload:{identity}")) == held.payload
    assert replay(ledger, identity) == [1]
    assert replay(ledger, identity) == [0]
    again = take_one(worker)
    assert (again.id, again.attempt, again.payload) == (identity, 1, held.payload)
    assert again.message_id == held.message_id
    assert again.fence > held.fence


def test_one_claim_touches_a_bounded_number_of_entries(ledger: Ledger) -> None:
    ids = ledger.publish_many(1500, "main")
    for start in range(0, 1500, 500):
        ledger.store.run("manage", ("discard", "ops", "test", *ids[start : start + 500]))
    worker = ledger.worker()
    calls = 0
    while ledger.store.redis.llen(ledger.store.key("lane:main:b")):
        before = ledger.store.redis.llen(ledger.store.key("lane:main:b"))
        assert take(worker) == []
        calls += 1
        assert 0 < before - ledger.store.redis.llen(ledger.store.key("lane:main:b")) <= 8 * 16 + 200
    assert calls >= math.ceil(1500 / (8 * 16 + 200))


def test_many_threads_and_long_conversations_are_served_in_one_claim(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(main={"max_connections": 500})
    known_pace(ledger, 0.0001)
    for _ in range(4):
        ledger.publish_many(2300, "main")
    assert len(take(ledger.worker(), 100, 100)) == 9200


@pytest.mark.parametrize(("each", "held"), [(0.0005, 64), (0.01, 25), (0.1, 2), (5.0, 2)])
def test_a_conversation_holds_what_a_quarter_of_a_second_sends(ledger: Ledger, each: float, held: int) -> None:
    known_pace(ledger, each)
    ledger.publish_many(100, "main")
    assert len(take(ledger.worker(), 1, 64)) == held


def test_a_conversation_of_unknown_pace_is_short(ledger: Ledger) -> None:
    ledger.publish_many(100, "main")
    assert len(take(ledger.worker(), 1, 64)) == 16


def test_one_idle_worker_watches_the_clock_for_all(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(main={"per_second": 10})
    ledger.publish_many(20, "main")
    keeper, other = ledger.worker("keeper"), ledger.worker("other")
    finish(keeper, keeper.claim(8, 1)[1])
    assert keeper.claim(8, 1)[0] < 0.2
    assert other.claim(8, 1)[0] == 2.0


def test_who_leaves_the_nearest_due_time_behind_watches_for_it(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(main={"per_second": 10})
    first, second = ledger.worker("first"), ledger.worker("second")
    assert first.claim(4, 1)[0] == 1.0, "it will look in a second"
    ledger.publish_many(20, "main")
    wait, handed = second.claim(4, 1)
    assert handed
    assert wait < 0.2, "or the account stood still until the first one looks"
    assert first.claim(4, 1)[0] == 2.0


def test_a_publish_leaves_a_wake_up_and_never_more_than_two(ledger: Ledger) -> None:
    for _ in range(10):
        ledger.publish()
    assert 1 <= ledger.store.redis.llen(ledger.store.key("wake")) <= 2


def test_names_that_workers_of_before_read_otherwise_stay_theirs(ledger: Ledger) -> None:
    # They took a value under these for one that Redis lets expire, and stood still before one that says it itself.
    worker = ledger.worker()
    worker.renew((), ())
    for _ in range(3):
        ledger.publish()
        finish(worker, worker.claim(8, 16)[1])
        ledger.advance(60.0)
    names = {key.decode().removeprefix(ledger.store.prefix) for key in ledger.store.redis.scan_iter(count=1000)}
    assert "fresh:fleet" in names
    assert not names & {"fleet", "memory", "timekeeper", "hold"}


@pytest.mark.parametrize("verdict", ["good", "none", "bad"])
def test_entries_of_all_kinds_may_stand_in_one_call(
    ledger: Ledger, verdict: Literal["good", "none", "bad"], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    run = ledger.store.run

    def watched(script: str, args: Sequence[Any]) -> Any:
        ran.append(script)
        return run(script, args)

    ledger.publish()
    ledger.publish()
    worker = ledger.worker()
    (handed,) = worker.claim(1, 2)[1]
    first, second = handed.deliveries
    monkeypatch.setattr(ledger.store, "run", watched)
    assert worker.settle([mark(first), mark(second), ok(first)]) == [1, 1, 1]
    assert worker.settle([mark(second), later(second)]) == [1, 1]
    assert worker.settle([free(handed.name, handed.account, verdict)]) == [1]
    assert ran == ["usual", "settle", "settle" if verdict == "bad" else "usual"]
    assert ledger.state(first.id) == "sent"
    assert ledger.state(second.id) == "waiting"


def test_a_sent_mail_without_a_providers_id_shows_none(ledger: Ledger) -> None:
    ledger.publish()
    worker = ledger.worker()
    held = take_one(worker)
    assert worker.settle([sent(held.id, held.fence, Reply(250), provider_id=None, took=1)]) == [1]
    assert "provider_id" not in ledger.status(held.id).facts
    assert ledger.status(held.id).words == ""
