"""What is kept and how it goes: retention by tenant, export, purge of exactly that."""

from __future__ import annotations

import json

from postier.ledger.audit import Audit
from postier.ledger.records import Records
from postier.ledger.retention import tell_retention
from postier.ledger.search import Filters
from tests.ledger.kit import Ledger, data_change, finish
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
