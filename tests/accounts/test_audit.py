"""The audit keeps who did what, when, to how many."""

from __future__ import annotations

import time

from postier.ledger.audit import Audit
from postier.ledger.store import Store


def test_the_audit_tells_the_newest_line_first_with_everything_it_was_told(store: Store) -> None:
    audit = Audit(store)
    audit.record(who="anna", what="account.added", subject="office")
    audit.record(who="ben", what="deliveries.replayed", subject="failed", count=412, details={"cause": "quota"})

    newest, oldest = audit.entries()

    assert (newest.who, newest.what, newest.subject, newest.count) == ("ben", "deliveries.replayed", "failed", 412)
    assert newest.details == {"cause": "quota"}
    assert (oldest.who, oldest.count, oldest.details) == ("anna", 1, {})
    assert abs(newest.at - time.time()) < 60


def test_the_audit_can_be_cut_by_number_and_by_time(store: Store) -> None:
    audit = Audit(store)
    for number in range(5):
        audit.record(who="anna", what="account.edited", subject=str(number))

    assert [entry.subject for entry in audit.entries(limit=2)] == ["4", "3"]
    assert audit.entries(since=time.time() + 3600) == []
    assert len(audit.entries(since=time.time() - 3600)) == 5


def test_a_very_long_detail_is_cut_and_stays_readable(store: Store) -> None:
    Audit(store).record(who="a" * 500, what="account.edited", details={"text": "x" * 10_000})

    (entry,) = Audit(store).entries()

    assert len(entry.who) == 80
    assert len(entry.details["cut"]) == 4000
