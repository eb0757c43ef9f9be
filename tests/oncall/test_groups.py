"""Failures in groups: counted as they happen, uncounted when they are over, found by every filter."""

from __future__ import annotations

import random

import pytest

from postier.ledger.groups import Groups
from postier.ledger.manage import Management
from postier.ledger.search import Filters
from tests.ledger.kit import Ledger, contact_form, data_change, reset_link
from tests.oncall.kit import end_claimed, replay

ENDS = [
    ("failed", "refused"),
    ("unknown", "outcome_unknown"),
    ("suppressed", "recipient_refused"),
    ("failed", "render"),
]


def counted(ledger: Ledger, **filters: object) -> dict[tuple[str, str, str, str], int]:
    found = Groups(ledger.store).find(Filters(**filters))  # type: ignore[arg-type]
    return {(one.state, one.cause, one.account, one.kind): one.count for one in found}


def test_failures_are_grouped_by_cause_account_and_kind_with_first_and_last(ledger: Ledger) -> None:
    worker = ledger.worker()
    ledger.publish_many(3, "main")
    end_claimed(worker)
    first = ledger.now / 1e6
    ledger.advance(60)
    ledger.publish_many(2, "main")
    end_claimed(worker)
    ledger.publish_many(4, "spare")
    end_claimed(worker, cause="email_refused", code=554, enhanced="5.7.1", words="looks like spam")
    ledger.publish(reset_link())
    end_claimed(worker)

    groups = Groups(ledger.store).find(Filters())

    assert {(one.cause, one.account, one.kind): one.count for one in groups} == {
        ("recipient_refused", "main", "data_change"): 5,
        ("email_refused", "spare", "data_change"): 4,
        ("recipient_refused", "main", "reset_link"): 1,
    }
    largest = groups[0]
    assert (largest.first, largest.last) == (pytest.approx(first), pytest.approx(first + 60))
    assert (largest.code, largest.enhanced, largest.words) == (550, "5.1.1", "no such user here")


def test_what_ran_out_of_time_without_an_attempt_is_of_the_class_expired(ledger: Ledger) -> None:
    ledger.publish(reset_link())
    ledger.advance(3601)
    ledger.worker().claim(8, 16)

    assert counted(ledger, cause="expired") == {("expired", "", "main", "reset_link"): 1}


def test_a_group_shrinks_with_every_replay_and_discard_and_goes_with_the_last(ledger: Ledger) -> None:
    ledger.publish_many(3, "main")
    first, second, third = end_claimed(ledger.worker())

    replay(ledger, [first])
    assert list(counted(ledger).values()) == [2]
    assert dict(Management(ledger.store, "ann").discard([second], "gone")) == {second: "done"}
    assert list(counted(ledger).values()) == [1]
    replay(ledger, [third])

    assert counted(ledger) == {}
    assert not ledger.store.redis.exists(ledger.store.key("groups"))
    assert not list(ledger.store.redis.scan_iter(ledger.store.key("group:*").replace("{", "\\{"), count=1000))


def test_groups_are_filtered_by_account_kind_tenant_class_time_and_text(ledger: Ledger) -> None:
    worker = ledger.worker()
    ledger.publish_many(2, "main")
    end_claimed(worker, words="Mailbox FULL of [odd] %s")
    middle = ledger.now / 1e6 + 30
    ledger.advance(60)
    ledger.publish(contact_form(), account="spare")
    end_claimed(worker, state="unknown", cause="outcome_unknown", code=0, enhanced="", words="")

    main, spare = (
        ("failed", "recipient_refused", "main", "data_change"),
        ("unknown", "outcome_unknown", "spare", "contact_form"),
    )
    assert counted(ledger) == {main: 2, spare: 2}
    assert counted(ledger, account="main") == {main: 2}
    assert counted(ledger, kind="contact_form") == {spare: 2}
    assert counted(ledger, tenant="shop") == {}
    assert counted(ledger, cause="outcome_unknown") == {spare: 2}
    assert counted(ledger, until=middle) == {main: 2}
    assert counted(ledger, since=middle) == {spare: 2}
    assert counted(ledger, text="full of [odd] %s") == {main: 2}
    assert counted(ledger, text="550 5.1.1") == {main: 2}
    assert counted(ledger, text="other") == {}


def test_a_group_is_walked_in_slices_oldest_first_or_newest_first(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postier.ledger.search.SLICE", 3)
    worker, ids = ledger.worker(), []
    for _ in range(8):
        ledger.publish_many(1, "main")
        ids += end_claimed(worker)
        ledger.advance(1)
    groups = Groups(ledger.store)
    (group,) = groups.find(Filters())

    assert list(groups.members(Filters(), group=group.id)) == ids
    assert list(groups.members(Filters(), group=group.id, newest_first=True)) == ids[::-1]
    later = Filters(since=ledger.now / 1e6 - 4.5)
    assert list(groups.members(later, group=group.id)) == ids[4:]
    assert list(groups.members(later, group=group.id, newest_first=True)) == ids[:3:-1]
    assert [one.id for one in ledger.queries.failures(Filters(), limit=3)] == ids[:4:-1]


def test_groups_say_what_records_say_after_any_mixture_of_ends(ledger: Ledger) -> None:
    chance = random.Random(5)
    worker, manage = ledger.worker(), Management(ledger.store, "ann")
    for _ in range(40):
        ledger.publish(data_change(), account=chance.choice(["main", "spare"]))
        state, cause = chance.choice(ENDS)
        end_claimed(worker, state=state, cause=cause)
        waiting = [one.id for one in ledger.queries.failures(Filters(), limit=100)]
        if chance.random() < 0.3:
            list(manage.discard([chance.choice(waiting)], "test"))
        if chance.random() < 0.3:
            replay(ledger, [chance.choice(waiting)], unknown_too=True)
        if chance.random() < 0.2:
            list(manage.resolve([chance.choice(waiting)]))

    counts = ledger.queries.counts()
    expected = sum(counts[state] for state in ("failed", "unknown", "expired", "suppressed"))
    assert expected > 5
    assert sum(counted(ledger).values()) == expected
