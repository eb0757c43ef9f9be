"""Accepting events: each whole or not at all, once per key, sealed, and never more than memory takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from postier.ledger.embedded import EmbeddedServer
from postier.ledger.publish import Accepted
from postier.ledger.store import Argument, Store, script_source
from postier.schemas.errors import IdempotencyConflict, LedgerUnavailable
from postier.schemas.events import Recipient
from postier.settings.seal import Sealer
from tests.ledger.kit import (
    Ledger,
    contact_form,
    data_change,
    freed,
    known_pace,
    later,
    ok,
    registry,
    reset_link,
    somebody,
    take,
    take_one,
)


def test_publishing_twice_answers_as_the_first_time_and_queues_one_delivery(ledger: Ledger) -> None:
    event = reset_link()
    first = ledger.publish(event, idempotency_key="order-1")
    second = ledger.publish(event, idempotency_key="order-1")
    assert (second.id, second.deliveries, second.duplicate) == (first.id, first.deliveries, True)
    assert not first.duplicate
    assert [delivery.id for delivery in take(ledger.worker())] == list(first.deliveries)


def test_a_key_that_stands_for_other_content_is_refused_and_nothing_is_queued(ledger: Ledger) -> None:
    first = ledger.publish(reset_link(token="one"), idempotency_key="order-1")
    answer = ledger.publisher.publish([ledger.admitted(reset_link(token="two"), idempotency_key="order-1")])[0]
    assert isinstance(answer, IdempotencyConflict)
    assert [delivery.id for delivery in take(ledger.worker())] == list(first.deliveries)


def test_one_key_twice_in_a_batch_is_one_event(ledger: Ledger) -> None:
    event = reset_link()
    answers = ledger.publisher.publish([ledger.admitted(event, idempotency_key="k") for _ in range(3)])
    assert [isinstance(answer, Accepted) and answer.duplicate for answer in answers] == [False, True, True]
    assert len(take(ledger.worker())) == 1


def test_the_same_key_of_two_tenants_stands_for_two_events(ledger: Ledger) -> None:
    event = reset_link()
    answers = [ledger.publish(event, idempotency_key="k", tenant=tenant) for tenant in ("school", "shop")]
    assert not any(answer.duplicate for answer in answers)
    assert len(take(ledger.worker())) == 2


def test_a_batch_is_one_round_trip(ledger: Ledger) -> None:
    ledger.publish()
    batch = [ledger.admitted(reset_link()) for _ in range(100)]
    before = scripts_run(ledger.store)
    ledger.publisher.publish(batch)
    assert scripts_run(ledger.store) - before == 1


def scripts_run(store: Store) -> int:
    stats = store.redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


@pytest.mark.parametrize(("events", "people"), [(1, 1000), (12, 1000), (3000, 1)])
def test_large_batches_are_accepted_whole(ledger: Ledger, events: int, people: int) -> None:
    known_pace(ledger, 0.0001)
    crowd = tuple(Recipient(address=f"p{number}@example.org") for number in range(people))
    batch = [ledger.admitted(data_change(*crowd)) for _ in range(events)]
    answers = ledger.publisher.publish(batch)
    assert all(isinstance(answer, Accepted) and len(answer.deliveries) == people for answer in answers)
    assert ledger.queries.counts()["waiting"] == events * people
    assert len(take(ledger.worker(), 4, 100)) == 400


def test_each_recipient_gets_a_delivery_and_a_message_id(ledger: Ledger) -> None:
    accepted = ledger.publish(data_change(*(somebody() for _ in range(5))))
    claimed = take(ledger.worker())
    assert [delivery.id for delivery in claimed] == list(accepted.deliveries)
    assert len({delivery.message_id for delivery in claimed}) == 5


def test_redis_never_sees_an_address_a_name_or_a_link(tmp_path: Path, sealer: Sealer, namespace: str) -> None:
    with EmbeddedServer(tmp_path, fsync="always") as server:
        ledger = Ledger(Store(server.url, namespace=namespace), sealer, registry())
        event = reset_link(Recipient(address="canary.person@example.org", name="Canary Person"), token="canary-token")
        ledger.publish(event, reply_to="canary.reply@example.org", idempotency_key="k")
        ledger.publish(contact_form("canary-message"))
        ledger.store.close()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"evalsha" in written.lower() or b"delivery:" in written
    for canary in (b"canary.person", b"Canary Person", b"canary-token", b"canary.reply", b"canary-message"):
        assert canary not in written


def test_mail_for_later_leaves_when_its_time_comes_and_not_before(ledger: Ledger) -> None:
    starts = datetime.fromtimestamp(ledger.now / 1e6, UTC) + timedelta(minutes=10)
    (identity,) = ledger.publish(data_change(), not_before=starts).deliveries
    worker = ledger.worker()
    assert take(worker) == []
    assert ledger.status(identity).due == pytest.approx(starts.timestamp(), abs=0.001)
    ledger.advance(599)
    assert take(worker) == []
    ledger.advance(1.1)
    assert [delivery.id for delivery in take(worker)] == [identity]


def test_a_newer_reset_link_takes_the_place_of_a_waiting_one(ledger: Ledger) -> None:
    person = somebody()
    (older,) = ledger.publish(reset_link(person, token="old")).deliveries
    (newer,) = ledger.publish(reset_link(person, token="new")).deliveries
    assert [delivery.id for delivery in take(ledger.worker())] == [newer]
    status = ledger.status(older)
    assert (status.state, status.cause, status.facts["by"]) == ("discarded", "superseded", newer)
    assert not ledger.store.redis.exists(ledger.store.key(f"payload:{older}"))


def test_the_last_of_several_reset_links_in_a_batch_leaves(ledger: Ledger) -> None:
    person = somebody()
    answers = ledger.publisher.publish([ledger.admitted(reset_link(person, token=str(n))) for n in range(3)])
    ids = [answer.deliveries[0] for answer in answers if isinstance(answer, Accepted)]
    assert [delivery.id for delivery in take(ledger.worker())] == ids[-1:]
    assert [ledger.state(identity) for identity in ids] == ["discarded", "discarded", "leased"]
    keys = {key.decode().rpartition(":")[2] for key in ledger.store.redis.keys(ledger.store.key("payload:*"))}
    assert keys == {ids[-1]}
    assert ledger.store.redis.zrange(ledger.store.key("deadline"), 0, -1) == [ids[-1].encode()]


def test_reset_links_of_other_people_and_tenants_stay(ledger: Ledger) -> None:
    person = somebody()
    kept = [
        ledger.publish(reset_link(person)).deliveries[0],
        ledger.publish(reset_link(person), tenant="shop").deliveries[0],
        ledger.publish(reset_link()).deliveries[0],
    ]
    assert [delivery.id for delivery in take(ledger.worker())] == kept


def test_a_reset_link_superseded_while_leased_may_not_be_handed_over(ledger: Ledger) -> None:
    person, worker = somebody(), ledger.worker()
    ledger.publish(reset_link(person))
    held = take_one(worker)
    ledger.publish(reset_link(person))
    assert worker.settle([("mark", held.id, held.fence)]) == [2]
    assert ledger.state(held.id) == "leased"


def test_a_reset_link_superseded_while_it_is_sent_is_not_tried_again(ledger: Ledger) -> None:
    person, worker = somebody(), ledger.worker()
    ledger.publish(reset_link(person))
    held = take_one(worker)
    worker.settle([("mark", held.id, held.fence)])
    (newer,) = ledger.publish(reset_link(person)).deliveries
    worker.settle([later(held, 1.0)])
    ledger.advance(2)
    claimed = {delivery.id: delivery for delivery in take(worker)}
    assert newer in claimed
    if held.id in claimed:
        assert worker.settle([("mark", held.id, claimed[held.id].fence)]) == [2]
    else:
        assert ledger.state(held.id) == "discarded"


def test_one_event_never_supersedes_its_own_recipients(ledger: Ledger) -> None:
    accepted = ledger.publish(data_change(somebody(), somebody(), somebody()), supersedes="room-1")
    assert [delivery.id for delivery in take(ledger.worker())] == list(accepted.deliveries)


def test_a_newer_event_supersedes_every_waiting_delivery_of_the_older(ledger: Ledger) -> None:
    older = ledger.publish(data_change(somebody(), somebody()), supersedes="room-1")
    newer = ledger.publish(data_change(somebody()), supersedes="room-1")
    assert [delivery.id for delivery in take(ledger.worker())] == list(newer.deliveries)
    assert {ledger.state(identity) for identity in older.deliveries} == {"discarded"}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server with little memory."""
    with EmbeddedServer(tmp_path, fsync="no", maxmemory="24mb") as server:
        yield server


def fill(store: Store, share: float) -> None:
    """Let foreign data take memory up to a share of the limit."""
    number = 0
    while True:
        memory = store.redis.info("memory")
        room = int(share * memory["maxmemory"] - memory["used_memory"])
        if room < 20_000:
            break
        store.redis.set(f"foreign:{number}", b"x" * min(room // 2 + 1, 500_000))
        number += 1
    store.redis.delete(store.key("fresh:memory"))


def test_publish_is_busy_at_three_quarters_of_the_memory(small: EmbeddedServer, sealer: Sealer) -> None:
    ledger = Ledger(Store(small.url), sealer, registry())
    event = reset_link()
    ledger.publish(event, idempotency_key="early")
    fill(ledger.store, 0.77)
    busy, known = ledger.publisher.publish(
        [ledger.admitted(reset_link()), ledger.admitted(event, idempotency_key="early")]
    )
    assert isinstance(busy, LedgerUnavailable)
    assert busy.retry_after > 0
    assert isinstance(known, Accepted)
    assert known.duplicate
    assert ledger.queries.counts()["waiting"] == 1
    ledger.store.close()


def test_fast_publishers_do_not_fill_the_memory_between_two_looks_at_it(small: EmbeddedServer, sealer: Sealer) -> None:
    ledger = Ledger(Store(small.url), sealer, registry())
    fill(ledger.store, 0.7)
    accepted, used = 0, 0.0
    for _ in range(150):  # the rest of the memory within half a second
        answers = ledger.publisher.publish([ledger.admitted(data_change()) for _ in range(100)])
        accepted += sum(isinstance(answer, Accepted) for answer in answers)
        if not any(isinstance(answer, Accepted) for answer in answers):
            break
        memory = ledger.store.redis.info("memory")
        used = memory["used_memory"] / memory["maxmemory"]
    assert accepted
    assert used < 0.8
    ledger.store.close()


def test_many_recipients_are_written_in_several_calls_and_what_was_accepted_stays_so(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    run = ledger.store.run

    def counted(script: str, args: Sequence[Argument]) -> Any:
        calls.append(int(args[1]))
        if len(calls) == 4:
            raise LedgerUnavailable("away")
        return run(script, args)

    monkeypatch.setattr("postier.ledger.publish._AT_ONCE", 10)
    monkeypatch.setattr(ledger.store, "run", counted)
    events = [
        *(ledger.admitted(data_change(*(somebody() for _ in range(count)))) for count in (4, 6, 1, 25, 3)),
        ledger.admitted(data_change()),
    ]
    answers = ledger.publisher.publish(events)
    assert calls == [2, 1, 1, 2]
    assert [len(one.deliveries) for one in answers if isinstance(one, Accepted)] == [4, 6, 1, 25]
    assert [type(one) for one in answers[4:]] == [LedgerUnavailable] * 2
    assert [one.duplicate for one in ledger.publisher.publish(events) if isinstance(one, Accepted)] == (
        [True] * 4 + [False] * 2
    )


def test_a_full_memory_still_drains(small: EmbeddedServer, sealer: Sealer) -> None:
    ledger = Ledger(Store(small.url), sealer, registry())
    ids = ledger.publish_many(200, "main")
    fill_to_the_brim(ledger.store)
    with pytest.raises(LedgerUnavailable):
        ledger.publish()
    worker = ledger.worker()
    sent: list[str] = []
    while claimed := worker.claim(8, 16)[1]:
        for conversation in claimed:
            for held in conversation.deliveries:
                assert worker.settle([("mark", held.id, held.fence), ok(held)]) == [1, 1]
                sent.append(held.id)
            worker.settle([freed(conversation)])
    assert sorted(sent) == sorted(ids)
    ledger.store.close()


def fill_to_the_brim(store: Store) -> None:
    fill(store, 0.98)
    for size in (50_000, 1_000):
        for number in range(2_000):
            try:
                store.redis.set(f"brim:{size}:{number}", b"x" * size)
            except redis.OutOfMemoryError:
                break


def test_what_is_not_admitted_leaves_no_trace(ledger: Ledger) -> None:
    before = sorted(ledger.store.redis.keys(ledger.store.key("*")))
    with pytest.raises(Exception, match="host"):
        ledger.publish(reset_link().model_copy(update={"action_url": "https://elsewhere.example/reset"}))
    assert sorted(ledger.store.redis.keys(ledger.store.key("*"))) == before


def test_scripts_neither_list_keys_nor_loop_without_a_bound() -> None:
    for name in ("publish", "claim", "settle", "renew", "manage", "configure"):
        code = [line.partition("--")[0] for line in script_source(name)[0].splitlines()]
        assert not any("'KEYS'" in line or "'SCAN'" in line for line in code)
        assert not any(line.split()[:1] in (["while"], ["repeat"]) for line in code)
