"""What is kept and how it goes: retention by tenant, export, purge of exactly that, erasure of one person."""

from __future__ import annotations

import json

import pytest

from postier.ledger.audit import Audit
from postier.ledger.records import Records
from postier.ledger.retention import tell_retention
from postier.ledger.search import Filters
from postier.settings.seal import Sealer
from tests.ledger.kit import Ledger, contact_form, data_change, finish, later, ok, over, take
from tests.oncall.kit import end_claimed, replay


def keys_of(ledger: Ledger, delivery_id: str) -> set[str]:
    names = ("delivery", "history", "payload")
    return {name for name in names if ledger.store.redis.exists(ledger.store.key(f"{name}:{delivery_id}"))}


def test_each_tenant_s_ended_mail_is_kept_as_long_as_it_says(ledger: Ledger) -> None:
    tenants = dict(ledger.registry.tenants)
    tenants["shop"] = tenants["shop"].model_copy(update={"keep_days": 2})
    tell_retention(ledger.store, ledger.registry.model_copy(update={"tenants": tenants}))
    worker = ledger.worker()
    worker.claim(0, 1)
    (school,) = ledger.publish(data_change()).deliveries
    (shop,) = ledger.publish(data_change(), tenant="shop").deliveries
    finish(worker, worker.claim(8, 16)[1])

    ledger.advance(3601)  # what the worker was told to keep for all others
    worker.claim(0, 1)
    assert (keys_of(ledger, school), keys_of(ledger, shop)) == (set(), {"delivery"})
    ledger.advance(2 * 86_400)
    worker.claim(0, 1)
    assert keys_of(ledger, shop) == set()
    assert ledger.queries.counts()["sent"] == 0


def test_what_waits_for_a_person_is_kept_however_long_it_takes(ledger: Ledger) -> None:
    worker = ledger.worker()
    ledger.publish_many(1, "main")
    (one,) = end_claimed(worker)
    ledger.pass_time(worker, 10)
    ledger.advance(400 * 86_400)
    worker.claim(0, 1)

    assert keys_of(ledger, one) == {"delivery", "history", "payload"}
    assert ledger.store.redis.ttl(ledger.store.key(f"delivery:{one}")) == -1


def test_purge_removes_exactly_what_was_exported_and_has_not_changed_since(ledger: Ledger) -> None:
    worker = ledger.worker()
    ledger.publish_many(3, "main")
    kept, changed, gone = end_claimed(worker)
    records = Records(ledger.store, "ann")
    exported = [json.loads(json.dumps(line)) for line in records.export([changed, gone])]
    assert exported[1]["history"][0]["words"] == "no such user here"
    ledger.advance(5)
    replay(ledger, [changed])
    end_claimed(worker)

    assert dict(records.purge(exported)) == {changed: "not_possible", gone: "done"}
    assert dict(records.purge(exported)) == {changed: "not_possible", gone: "unknown_id"}

    assert keys_of(ledger, gone) == set()
    assert keys_of(ledger, kept) == keys_of(ledger, changed) == {"delivery", "history", "payload"}
    assert sorted(one.id for one in ledger.queries.failures(Filters())) == sorted([kept, changed])
    assert next((line.what, line.count) for line in Audit(ledger.store).entries()) == ("records.purged", 1)


def test_erasing_a_person_leaves_nothing_of_them_and_nothing_of_others_goes(ledger: Ledger, sealer: Sealer) -> None:
    worker = ledger.worker()
    events = [ledger.publish(contact_form()).deliveries for _ in range(4)]
    mine, others = [ids[0] for ids in events], [ledger.publish(data_change()).deliveries[0], events[0][1]]
    held = {one.id: one for one in take(worker, 20, 20)}
    failed, waiting, under_way, sent = mine
    worker.settle([ok(held[sent]), later(held[waiting], 600)])
    assert end_claimed(worker) == []
    worker.settle([over(held[failed]), over(held[others[0]])])
    address = " Office@School.example".strip()

    done = Records(ledger.store, "ann").erase(address, "school", sealer)

    assert (done.erased, done.under_way) == (3, 1)
    for one in (failed, waiting, sent):
        status = ledger.status(one)
        assert (status.recipient, status.words) == ("(erased)", "")
        assert "payload" not in keys_of(ledger, one)
        assert not any("words" in line or "reason" in line for line in status.history)
        assert ledger.store.redis.hget(ledger.store.key(f"delivery:{one}"), "rkey") is None
    assert [ledger.state(one) for one in mine] == ["discarded", "discarded", "leased", "sent"]
    assert "payload" in keys_of(ledger, others[0])
    assert ledger.status(others[0]).recipient != "(erased)"
    worker.settle([ok(held[under_way])])
    again = Records(ledger.store, "ann").erase(address, "school", sealer)
    assert (again.erased, again.under_way) == (1, 0)
    assert address.lower() not in str(Audit(ledger.store).entries()).lower()


@pytest.mark.parametrize("tenant", ["shop"])
def test_a_person_s_data_in_another_tenant_stays(ledger: Ledger, sealer: Sealer, tenant: str) -> None:
    (one, _) = ledger.publish(contact_form()).deliveries

    assert Records(ledger.store, "ann").erase("office@school.example", tenant, sealer).erased == 0
    assert keys_of(ledger, one) >= {"delivery", "payload"}


def test_a_person_is_found_under_every_seal_key_that_was_ever_first(ledger: Ledger, seal_key: str) -> None:
    ledger.publish(contact_form())
    rotated = Sealer.from_text(f"{Sealer.new_key('k9')},{seal_key}")

    assert Records(ledger.store, "ann").erase("office@school.example", "school", rotated).erased == 1
