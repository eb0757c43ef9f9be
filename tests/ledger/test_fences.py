"""Only the holder writes: leases that run out, late outcomes, outages, and every write twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postier.ledger.claims import Claims
from postier.ledger.entries import Claimed, Entry, back, mark
from postier.ledger.replay import How, Replays
from postier.schemas.events import Event
from tests.ledger.kit import (
    LEASE,
    Ledger,
    all_of,
    contact_form,
    data_change,
    finish,
    freed,
    later,
    ok,
    over,
    parked,
    reset_link,
    somebody,
    take,
    take_one,
)

MakeLedger = Callable[..., Ledger]


def lose(ledger: Ledger, worker: Claims) -> None:
    """Let the leases run out that `worker` does not hold."""
    ledger.pass_time(worker, LEASE * 1.4)


def held_by_a_dead_worker(ledger: Ledger, event: Event, *, marked: bool) -> Claimed:
    ledger.publish(event)
    dead = ledger.worker("dead")
    held = take_one(dead)
    if marked:
        assert dead.settle([mark(held)]) == [1]
    return held


def test_a_lease_that_runs_out_before_the_hand_over_leaves_once_more(ledger: Ledger) -> None:
    alive = ledger.worker("alive")
    held = held_by_a_dead_worker(ledger, data_change(), marked=False)
    lose(ledger, alive)
    again = take_one(alive)
    assert (again.id, again.crashes, again.attempt) == (held.id, 1, 2)
    assert again.fence > held.fence
    assert again.message_id == held.message_id
    assert [event["what"] for event in ledger.status(held.id).history] == ["crashed"]


def test_a_lease_that_runs_out_while_sending_is_sent_again_where_the_kind_says_so(ledger: Ledger) -> None:
    alive = ledger.worker("alive")
    held = held_by_a_dead_worker(ledger, reset_link(), marked=True)
    lose(ledger, alive)
    again = take_one(alive)
    assert (again.id, again.message_id) == (held.id, held.message_id)
    status = ledger.status(held.id)
    assert (status.cause, status.history[-1]["what"]) == ("outcome_unknown", "unknown")


def test_a_lease_that_runs_out_while_sending_is_held_where_the_kind_says_so(ledger: Ledger) -> None:
    alive = ledger.worker("alive")
    ledger.publish(contact_form())
    dead = ledger.worker("dead")
    started, unstarted = take(dead, 1, 2)
    dead.settle([mark(started)])
    lose(ledger, alive)
    assert [delivery.id for delivery in take(alive)] == [unstarted.id]
    assert ledger.state(started.id) == "unknown"
    assert ledger.store.redis.get(ledger.store.key(f"payload:{started.id}")) == started.payload


@pytest.mark.parametrize("marked", [False, True])
def test_the_third_crash_ends_it_and_there_is_no_fourth_try(ledger: Ledger, marked: bool) -> None:
    (identity,) = ledger.publish(reset_link()).deliveries
    neighbours = ledger.publish_many(5, "main", urgent=True)
    alive = ledger.worker("alive")
    for _ in range(3):
        victim = ledger.worker("victim")
        for conversation in victim.claim(8, 16)[1]:
            held = [delivery for delivery in conversation.deliveries if delivery.id == identity]
            if held and marked:
                victim.settle([mark(held[0])])
            victim.settle([ok(delivery) for delivery in conversation.deliveries if delivery.id != identity])
        lose(ledger, alive)
    status = ledger.status(identity)
    assert (status.state, status.cause, status.facts["crashes"]) == ("failed", "crashed", 3)
    assert take(alive) == []
    assert {ledger.state(neighbour) for neighbour in neighbours} == {"sent"}
    assert ledger.store.redis.exists(ledger.store.key(f"payload:{identity}"))


def test_who_only_stood_beside_the_culprit_is_never_blamed_for_the_third_time(ledger: Ledger) -> None:
    (culprit,) = ledger.publish(reset_link()).deliveries
    neighbours = ledger.publish_many(22, "main", urgent=True)
    alive = ledger.worker("alive")
    for round_number in range(80):
        worker = ledger.worker(f"w{round_number}")
        handed = worker.claim(4, 16)[1]
        if culprit in {delivery.id for conversation in handed for delivery in conversation.deliveries}:
            lose(ledger, alive)  # it takes the worker and all that it holds with it
        else:
            finish(worker, handed)
            ledger.pass_time(alive, 0.3)
    assert (ledger.state(culprit), ledger.status(culprit).cause) == ("failed", "crashed")
    assert {ledger.state(neighbour) for neighbour in neighbours} == {"sent"}


def test_a_suspect_travels_alone(ledger: Ledger) -> None:
    ids = ledger.publish_many(6, "main")
    dead, alive = ledger.worker("dead"), ledger.worker("alive")
    assert len(take(dead, 1, 2)) == 2
    lose(ledger, alive)
    groups = [[delivery.id for delivery in handed.deliveries] for handed in alive.claim(4, 16)[1]]
    assert sorted(group for group in groups if set(group) & set(ids[:2])) == [[ids[0]], [ids[1]]]


def test_a_success_after_a_crash_clears_the_count(ledger: Ledger) -> None:
    alive = ledger.worker("alive")
    held_by_a_dead_worker(ledger, data_change(), marked=False)
    lose(ledger, alive)
    alive.settle([later(take_one(alive), 1)])
    ledger.advance(2)
    assert take_one(alive).crashes == 0


def late(held: Claimed) -> list[tuple[str, Entry]]:
    return [
        ("mark", mark(held)),
        ("sent", ok(held)),
        ("retry", later(held)),
        ("end", over(held)),
        ("back", back(held)),
    ]


@pytest.mark.parametrize("verb", ["mark", "sent", "retry", "end", "back"])
@pytest.mark.parametrize("finished", [False, True])
def test_a_stale_worker_is_refused_every_write(ledger: Ledger, verb: str, finished: bool) -> None:
    alive = ledger.worker("alive")
    stale = held_by_a_dead_worker(ledger, data_change(), marked=False)
    lose(ledger, alive)
    current = take_one(alive)
    if finished:
        alive.settle([over(current)])
    before = ledger.status(stale.id)
    assert ledger.worker("dead").settle([dict(late(stale))[verb]]) == [0]
    assert ledger.status(stale.id) == before
    if not finished:
        assert alive.settle([mark(current), ok(current)]) == [1, 1]


@pytest.mark.parametrize("verb", ["mark", "retry", "end", "back"])
def test_a_worker_that_lost_its_lease_may_not_touch_the_waiting_mail(ledger: Ledger, verb: str) -> None:
    alive = ledger.worker("alive")
    stale = held_by_a_dead_worker(ledger, reset_link(), marked=True)
    lose(ledger, alive)
    before = ledger.status(stale.id)
    ledger.worker("dead").settle([dict(late(stale))[verb]])
    assert ledger.status(stale.id) == before
    assert len(take(alive)) == 1


def test_proof_of_acceptance_ends_waiting(ledger: Ledger) -> None:
    alive = ledger.worker("alive")
    held = held_by_a_dead_worker(ledger, reset_link(), marked=True)
    lose(ledger, alive)
    assert ledger.state(held.id) == "waiting"
    assert alive.settle([ok(held)]) == [1]
    assert ledger.state(held.id) == "sent"
    assert take(alive) == []


def test_proof_of_acceptance_settles_the_unknown(ledger: Ledger) -> None:
    alive = ledger.worker("alive")
    ledger.publish(contact_form())
    dead = ledger.worker("dead")
    held = take(dead)
    dead.settle([mark(delivery) for delivery in held])
    lose(ledger, alive)
    assert ledger.queries.counts()["unknown"] == 2
    assert alive.settle([ok(held[0])]) == [1]
    assert ledger.queries.counts() | {"sent": 1, "unknown": 1} == ledger.queries.counts()


def test_proof_of_acceptance_wins_over_three_crashes(ledger: Ledger) -> None:
    alive = ledger.worker("alive")
    ledger.publish(reset_link())
    held = None
    for _ in range(3):
        dead = ledger.worker("dead")
        held = take_one(dead)
        dead.settle([mark(held)])
        lose(ledger, alive)
    assert held is not None
    assert ledger.state(held.id) == "failed"
    assert alive.settle([ok(held)]) == [1]
    assert (ledger.state(held.id), ledger.queries.counts()["failed"]) == ("sent", 0)


def test_proof_of_acceptance_wins_over_an_expiry_while_waiting_for_another_try(ledger: Ledger) -> None:
    alive = ledger.worker("alive")
    held = held_by_a_dead_worker(ledger, reset_link(), marked=True)
    lose(ledger, alive)
    ledger.pass_time(alive, 60)
    ledger.advance(3600)
    alive.claim(0, 1)
    assert ledger.state(held.id) == "expired"
    assert alive.settle([ok(held)]) == [1]
    assert (ledger.state(held.id), ledger.queries.counts()["expired"]) == ("sent", 0)


def test_proof_of_an_attempt_before_a_replay_says_nothing_about_the_replay(ledger: Ledger) -> None:
    alive = ledger.worker("alive")
    ledger.publish(contact_form())
    dead = ledger.worker("dead")
    held = take_one(dead)
    dead.settle([mark(held)])
    lose(ledger, alive)
    answers = dict(Replays(ledger.store, "ops").start([held.id], How(unknown_too=True), ledger.registry))
    assert answers == {held.id: "done"}
    assert alive.settle([ok(held)]) == [0]
    assert ledger.state(held.id) == "waiting"


@pytest.mark.parametrize("verb", ["mark", "sent", "retry", "end", "back"])
def test_writing_an_outcome_twice_changes_nothing_and_answers_the_same(make_ledger: MakeLedger, verb: str) -> None:
    ledger = make_ledger(main={"per_second": 50})
    ledger.publish(data_change())
    worker = ledger.worker()
    held = take_one(worker)
    if verb not in ("mark", "back"):
        worker.settle([mark(held)])
    entry = dict(late(held))[verb]
    assert worker.settle([entry]) == [1]
    before = snapshot(ledger)
    assert worker.settle([entry, entry]) == [1, 1]
    assert snapshot(ledger) == before


def snapshot(ledger: Ledger) -> dict[str, object]:
    """Everything the ledger holds, but for wake-ups."""
    redis, found = ledger.store.redis, {}
    for key in redis.keys(ledger.store.key("*")):
        name = key.decode().partition(":")[2]
        match redis.type(key):
            case b"hash":
                found[name] = redis.hgetall(key)
            case b"list":
                found[name] = redis.lrange(key, 0, -1)
            case b"zset":
                found[name] = redis.zrange(key, 0, -1, withscores=True)
            case b"string":
                found[name] = redis.get(key)
    found.pop("wake", None)
    return found


def test_freeing_and_parking_twice_is_safe(ledger: Ledger) -> None:
    ledger.publish_many(2, "main")
    worker = ledger.worker()
    handed = worker.claim(1, 1)[1]
    entries = [freed(handed[0]), parked("main", seconds=60)]
    assert worker.settle(entries) == [1, 1]
    assert worker.settle(entries) == [1, 0]
    assert ledger.queries.accounts()["main"]["conversations"] == 0


def test_a_resumed_account_forgets_when_it_would_have_been_tried_again(ledger: Ledger) -> None:
    worker = ledger.worker()
    worker.settle([parked("main", seconds=60)])
    ledger.store.run("manage", ("resume", "main", "ops"))
    worker.settle([parked("main", seconds=0)])
    ledger.pass_time(worker, 120)
    assert ledger.queries.accounts()["main"]["state"] == "parked"


def test_renewed_leases_never_run_out(ledger: Ledger) -> None:
    ledger.publish_many(3, "main")
    slow, alive = ledger.worker("slow"), ledger.worker("alive")
    (handed,) = slow.claim(1, 16)[1]
    for _ in range(30):
        ledger.advance(LEASE / 3)
        assert slow.renew([("main", handed.name)], handed.deliveries) == set()
        assert take(alive) == []
    assert slow.settle([mark(delivery) for delivery in handed.deliveries]) == [1, 1, 1]


def test_renewal_names_what_is_lost(ledger: Ledger) -> None:
    ids = ledger.publish_many(2, "main")
    slow, alive = ledger.worker("slow"), ledger.worker("alive")
    (handed,) = slow.claim(1, 16)[1]
    lose(ledger, alive)
    take(alive)
    assert slow.renew([("main", handed.name)], handed.deliveries) == set(ids)
    assert ledger.queries.accounts()["main"]["conversations"] == 2


def test_an_outage_takes_nothing_from_living_workers(ledger: Ledger) -> None:
    ledger.publish_many(4, "main")
    one, two = ledger.worker("one"), ledger.worker("two")
    (of_one,) = one.claim(1, 2)[1]
    (of_two,) = two.claim(1, 2)[1]
    ledger.advance(300)  # nobody could reach Redis
    assert take(one) == []
    assert one.renew([("main", of_one.name)], of_one.deliveries) == set()
    ledger.advance(LEASE / 3)
    assert two.renew([("main", of_two.name)], of_two.deliveries) == set()
    ledger.advance(LEASE)
    one.renew([("main", of_one.name)], of_one.deliveries)
    two.renew([("main", of_two.name)], of_two.deliveries)
    assert take(one) == []
    assert one.settle([ok(delivery) for delivery in of_one.deliveries]) == [1, 1]
    assert two.settle([ok(delivery) for delivery in of_two.deliveries]) == [1, 1]


def test_the_first_renewal_after_an_outage_guards_the_others_too(ledger: Ledger) -> None:
    ledger.publish_many(4, "main")
    one, two = ledger.worker("one"), ledger.worker("two")
    (of_one,) = one.claim(1, 2)[1]
    (of_two,) = two.claim(1, 2)[1]
    ledger.advance(300)
    assert one.renew([("main", of_one.name)], of_one.deliveries) == set()
    assert take(one) == []
    assert two.renew([("main", of_two.name)], of_two.deliveries) == set()


def test_after_an_outage_the_cap_holds_for_conversations_that_went_on(make_ledger: MakeLedger) -> None:
    ledger = make_ledger(main={"max_connections": 2})
    ledger.publish_many(100, "main")
    one, two = ledger.worker("one"), ledger.worker("two")
    assert len(one.claim(2, 1)[1]) == 2
    ledger.advance(300)
    assert two.claim(2, 1)[1] == []


def test_the_wait_after_an_outage_is_no_spin(ledger: Ledger) -> None:
    ledger.publish_many(1, "main")
    one, two = ledger.worker("one"), ledger.worker("two")
    take(one)
    ledger.advance(300)
    for _ in range(3):
        wait, handed = two.claim(8, 16)
        assert handed == []
        assert wait == pytest.approx(1.0)
    ledger.pass_time(two, LEASE * 1.1)
    assert len(take(two)) == 1


def test_what_a_dead_worker_held_during_an_outage_comes_back_one_lease_later(ledger: Ledger) -> None:
    ids = ledger.publish_many(3, "main")
    take(ledger.worker("dead"))
    ledger.advance(300)
    alive = ledger.worker("alive")
    seen: list[str] = []
    for _ in range(4):
        handed = alive.claim(8, 16)[1]
        seen += [delivery.id for delivery in all_of(handed)]
        finish(alive, handed)
        ledger.pass_time(alive, LEASE / 2.5)
    assert sorted(seen) == sorted(ids)


def test_a_superseded_mail_that_comes_back_is_discarded_and_not_sent(ledger: Ledger) -> None:
    person, worker = somebody(), ledger.worker()
    ledger.publish(reset_link(person, token="old"))
    old = take_one(worker)
    ledger.publish(reset_link(person, token="new"))
    worker.settle([back(old)])
    answers = {held.id: worker.settle([mark(held)])[0] for held in take(worker)}
    assert answers.pop(old.id, 2) == 2
    assert list(answers.values()) == [1]
