"""One mail, found by whatever a person has of it."""

from __future__ import annotations

from postier.ledger.entries import Reply, sent
from tests.ledger.kit import Ledger, data_change, finish, reset_link, somebody, take, take_one


def find(ledger: Ledger, wanted: str, *tenants: str) -> list[str]:
    return [one.id for one in ledger.queries.find(wanted, tenants or ("school", "shop"))]


def test_a_delivery_is_found_by_each_of_its_names(ledger: Ledger) -> None:
    accepted = ledger.publish(reset_link(), event_id="event-7", idempotency_key="order 7/reset")
    (one,) = accepted.deliveries
    held = take_one(ledger.worker())
    ledger.worker().settle([sent(held.id, held.fence, Reply(250, "2.0.0", "ok"), provider_id="0100-abc", took=1)])

    for name in (one, held.message_id, held.message_id.strip("<>"), "event-7", "order 7/reset", "0100-abc", f" {one} "):
        assert find(ledger, name) == [one], name
    assert find(ledger, "event-7", "shop") == []
    assert find(ledger, one, "shop") == []
    assert find(ledger, "event-8") == []


def test_all_recipients_of_an_event_and_of_a_shared_mail_are_found(ledger: Ledger) -> None:
    event = data_change(somebody(), somebody()).model_copy(update={"together": True})
    ids = ledger.publish(event, event_id="event-1").deliveries
    worker = ledger.worker()
    worker.settle([sent(one.id, one.fence, Reply(250), provider_id="packet-1", took=1) for one in take(worker)])

    assert sorted(find(ledger, "event-1")) == sorted(ids)
    assert sorted(find(ledger, "packet-1")) == sorted(ids)


def test_any_number_of_deliveries_is_read_and_sorted_out_page_by_page(ledger: Ledger) -> None:
    ids = ledger.publish_many(1203, "main")
    finish(worker := ledger.worker(), worker.claim(1, 1)[1])
    (gone,) = set(ids) - {one.id for one in ledger.queries.deliveries(states=["waiting"], limit=2000)}

    assert [one.id for one in ledger.queries.statuses([*ids, "nobody"])] == ids
    assert list(ledger.queries.in_state(["nobody", *ids], "waiting")) == [one for one in ids if one != gone]
    assert list(ledger.queries.in_state(ids, "sent")) == [gone]


def test_what_is_forgotten_leaves_no_trace_of_the_provider_s_id(ledger: Ledger) -> None:
    ledger.publish(data_change())
    worker = ledger.worker()
    finish(worker, worker.claim(1, 1)[1])
    assert len(find(ledger, "p")) == 1

    ledger.advance(3601)
    worker.claim(0, 1)

    assert find(ledger, "p") == []
    assert ledger.store.redis.hlen(ledger.store.key("provider")) == 0
    assert ledger.store.redis.hgetall(ledger.store.key("forgotten")) == {b"sent": b"1"}
