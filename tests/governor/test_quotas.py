"""Counted windows: so many an hour, so many a day, whatever the time zone does."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from postier.ledger.entries import back, free
from tests.governor.kit import MakeGovernor, field, group_change, moment, send, send_for, set_clock, tell
from tests.ledger.kit import Ledger, freed, later, ok

PARIS = ZoneInfo("Europe/Paris")


def per_day(ledger: Ledger, left: list[int], zone: ZoneInfo, reset: timedelta) -> list[int]:
    """How many left on each local day, which begins `reset` after midnight."""
    days: dict[object, int] = {}
    for at in left:
        day = (datetime.fromtimestamp(at / 1e6, zone).replace(tzinfo=None) - reset).date()
        days[day] = days.get(day, 0) + 1
    return list(days.values())


def test_a_day_holds_no_more_than_its_quota_and_the_next_one_begins_at_the_reset_hour(
    make_governor: MakeGovernor,
) -> None:
    ledger = make_governor(main={"limits": {"per_day": 20, "day_resets_at": "06:30", "timezone": "Asia/Kolkata"}})
    set_clock(ledger, moment(2026, 3, 10, 0, 55))  # 06:25 there
    ledger.publish_many(60, "main")
    worker = ledger.worker()
    left = send_for(ledger, worker, 60 * 60, step=30)
    assert len(left) == 40
    assert sum(at < moment(2026, 3, 10, 1, 0).timestamp() * 1e6 for at in left) == 20
    assert min(at for at in left[20:]) < moment(2026, 3, 10, 1, 1).timestamp() * 1e6
    tell(ledger)
    left += send_for(ledger, worker, 24 * 3600, step=600)
    assert per_day(ledger, left, ZoneInfo("Asia/Kolkata"), timedelta(hours=6, minutes=30)) == [20, 20, 20]


@pytest.mark.parametrize("day", [(2026, 3, 29), (2026, 10, 25)], ids=["23 hours", "25 hours"])
@pytest.mark.parametrize("reset", ["00:00", "02:30", "04:00"])
def test_no_day_of_another_length_holds_more_than_its_quota(
    make_governor: MakeGovernor, day: tuple[int, int, int], reset: str
) -> None:
    ledger = make_governor(main={"limits": {"per_day": 5, "day_resets_at": reset, "timezone": "Europe/Paris"}})
    start = datetime(*day, 0, 0, tzinfo=PARIS) - timedelta(hours=13)
    set_clock(ledger, start)
    ledger.publish_many(25, "main")
    worker = ledger.worker()
    left: list[int] = []
    for _ in range(32 * 6):  # workers tell the day's end once a minute; here every ten
        tell(ledger)
        left += send_for(ledger, worker, 600, step=600)
    hour, minute = map(int, reset.split(":"))
    resets = sorted(
        datetime(*(start + timedelta(days=n)).timetuple()[:3], hour, minute, tzinfo=PARIS).timestamp() * 1e6
        for n in range(4)
    )
    windows = [sum(a <= at < b for at in left) for a, b in zip([0, *resets], [*resets, 1e18], strict=True)]
    assert max(windows) == 5
    assert sum(windows) == len(left) >= 10


def test_an_hour_and_a_day_hold_together(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"per_hour": 7, "per_day": 12}})
    set_clock(ledger, moment(2026, 5, 5, 0, 0))
    ledger.publish_many(40, "main")
    left = send_for(ledger, ledger.worker(), 6 * 3600, step=120)
    start = moment(2026, 5, 5, 0, 0).timestamp() * 1e6
    assert [sum(start + h * 3.6e9 <= at < start + (h + 1) * 3.6e9 for at in left) for h in range(6)] == [
        7, 5, 0, 0, 0, 0,
    ]  # fmt: skip


def test_recipients_are_counted_where_the_provider_counts_them(make_governor: MakeGovernor) -> None:
    limits = {"per_day": 100, "counts": "recipients", "max_recipients": 30}
    ledger = make_governor(main={"limits": limits}, other={"limits": {"per_day": 100, "max_recipients": 30}})
    set_clock(ledger, moment(2026, 5, 5, 0, 0))
    ledger.publish(group_change(250), account="main")
    ledger.publish(group_change(250), account="other")
    worker = ledger.worker()
    gone = [delivery.id for _ in range(5) for delivery in send(worker)]
    by_account = [ledger.status(identity).account for identity in gone]
    assert (by_account.count("main"), by_account.count("other")) == (100, 250)
    assert (field(ledger, "main", "day_used"), field(ledger, "other", "day_used")) == ("100", "9")


def test_what_was_granted_before_the_reset_and_leaves_after_it_counts_in_the_new_window(
    make_governor: MakeGovernor,
) -> None:
    ledger = make_governor(main={"limits": {"per_day": 10}})
    set_clock(ledger, moment(2026, 5, 5, 23, 59, 58))
    ledger.publish_many(40, "main")
    worker = ledger.worker(lease=60)
    (held,) = worker.claim(1, 4)[1]
    ledger.advance(5)  # past midnight: four mails of yesterday's quota are still to leave
    tell(ledger)
    after = send_for(ledger, worker, 2)
    worker.settle([*map(ok, held.deliveries), freed(held)])
    after += [ledger.now] * 4
    after += send_for(ledger, worker, 3600, step=60)
    assert len(after) == 10


def test_a_count_given_back_after_the_reset_does_not_enlarge_the_new_window(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"per_day": 10}})
    set_clock(ledger, moment(2026, 5, 5, 23, 59, 58))
    ledger.publish_many(40, "main")
    worker = ledger.worker(lease=60)
    (held,) = worker.claim(1, 4)[1]
    ledger.advance(5)
    left = send_for(ledger, worker, 60)
    worker.settle([*(back(one) for one in reversed(held.deliveries)), free(held.name, "main", "none")])
    left += send_for(ledger, worker, 3600, step=60)
    assert len(left) == 10


def test_what_never_reached_the_provider_is_given_back_to_the_quota(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"per_day": 3, "counts": "recipients", "max_recipients": 3}})
    set_clock(ledger, moment(2026, 5, 5, 8, 0))
    ledger.publish(group_change(3))
    worker = ledger.worker()
    for _ in range(4):
        (held,) = worker.claim(1, 4)[1]
        worker.settle([*(back(one, refund=one is held.deliveries[0]) for one in reversed(held.deliveries)),
                       free(held.name, "main", "none")])  # fmt: skip
    assert len(send(worker)) == 3


def test_a_late_look_at_a_days_end_does_not_start_the_day_twice(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"per_day": 4}})
    set_clock(ledger, moment(2026, 5, 5, 23, 59, 59))
    ledger.publish_many(30, "main")
    worker = ledger.worker()
    ledger.advance(2)
    assert len(send(worker)) == 4
    before = ledger.now
    ledger.now -= int(3e6)
    now = ledger.store.now
    ledger.store.now = lambda: ledger.now  # type: ignore[method-assign]
    from postier.ledger.accounts import configure

    configure(ledger.store, ledger.registry)  # a slow worker reckoned this before midnight
    ledger.store.now = now  # type: ignore[method-assign]
    ledger.now = before
    ledger.advance(60)
    assert send(worker) == []


def test_a_deferred_mail_waits_at_the_head_and_a_split_one_leaves_at_once(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={})
    first, second, third = ledger.publish_many(3, "main")
    worker = ledger.worker()
    (held,) = worker.claim(1, 2)[1]
    one, two = held.deliveries
    worker.settle([later(one, 5, spend=False), later(two, 4, spend=False), freed(held)])
    ledger.advance(6)
    assert [delivery.id for delivery in send(worker, 1, 2)] == [second, first]
    (held,) = worker.claim(1, 1)[1]
    worker.settle([later(held.deliveries[0], 0, spend=False), freed(held)])
    assert ledger.state(third) == "waiting"
    assert [delivery.id for delivery in send(worker)] == [third]


def test_urgent_mail_that_fills_the_rate_leaves_every_tenth_mail_to_bulk(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"per_second": 10}})
    worker = ledger.worker()
    bulk = ledger.publish_many(30, "main")
    sent = []
    for _ in range(400):
        if ledger.queries.accounts()["main"]["waiting_urgent"] < 5:
            ledger.publish_many(10, "main", urgent=True)
        sent += send(worker)
        ledger.advance(0.05)
    shares = [sum(not one.urgent for one in sent[at : at + 10]) for at in range(10, len(sent) - 10, 10)]
    assert len(sent) > 150
    assert set(shares) <= {1, 2}, "a tenth, and never more than a mail beyond it"
    assert [one.id for one in sent if not one.urgent] == bulk[: sum(not one.urgent for one in sent)]


def test_urgent_mail_goes_before_bulk_where_there_is_room_for_both_soon(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"per_second": 10}})
    worker = ledger.worker()
    ledger.publish_many(30, "main")
    send(worker)
    urgent = ledger.publish_many(5, "main", urgent=True)
    left = []
    while len(left) < 5:
        ledger.advance(0.05)
        left += [one.id for one in send(worker)]
    assert left == urgent
