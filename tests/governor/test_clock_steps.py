"""Redis' clock steps by an hour: nobody waits for it, nothing leaves early or twice, nothing expires that is of use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from postier.ledger.entries import back, mark, park, slow
from tests.governor.kit import MakeGovernor, bad, field, send, send_for, set_clock, standing, tell
from tests.ledger.kit import LEASE, Ledger, data_change, later, ok, reset_link
from tests.ledger.test_rates import most_within

HOUR = 3600.0
there_and_back = pytest.mark.parametrize("step", [HOUR, -HOUR, 86_400.0, -86_400.0])


def field_of(ledger: Ledger, identity: str, name: str) -> str:
    return str(ledger.store.redis.hget(ledger.store.key(f"delivery:{identity}"), name).decode())


def steps(ledger: Ledger, step: float) -> list[int]:
    """A second at a time, with the clock set wrong after the third and right after the sixth; when mail really left."""
    worker, left = ledger.worker(), []
    for second in range(12):
        if second in (3, 6):
            ledger.step(step if second == 3 else -step)
        for _ in range(20):
            left += [ledger.true_now] * len(send(worker))
            ledger.advance(0.05)
    return left


@there_and_back
def test_a_rate_goes_on_as_if_nothing_had_happened(make_governor: MakeGovernor, step: float) -> None:
    ledger = make_governor(main={"limits": {"per_second": 10}})
    ledger.publish_many(200, "main")
    left = steps(ledger, step)
    assert most_within(left, 1.0) <= 10
    assert 100 <= len(left) <= 120
    assert all(second - first < 1_000_000 for first, second in pairwise(left)), "it stood still"


@there_and_back
def test_an_hours_quota_counts_the_same_hour(make_governor: MakeGovernor, step: float) -> None:
    ledger = make_governor(main={"limits": {"per_hour": 5}})
    ledger.publish_many(20, "main")
    worker = ledger.worker()
    assert len(send(worker)) == 5
    for wrong in (step, -step):
        ledger.step(wrong)
        assert send_for(ledger, worker, 1500, step=300) == []
    assert len(send_for(ledger, worker, 700, step=100)) == 5


@there_and_back
def test_retries_pauses_and_parking_last_as_long_as_they_were_to(make_governor: MakeGovernor, step: float) -> None:
    ledger = make_governor(retried={}, slowed={}, parked={}, broken={})
    worker = ledger.worker()
    for name in ("retried", "slowed", "parked", "broken"):
        ledger.publish_many(1, name)
    handed = {item.account: item for item in worker.claim(8, 1)[1]}
    worker.settle([later(handed["retried"].deliveries[0], 50)])
    worker.settle([back(handed["slowed"].deliveries[0]), slow("slowed", seconds=50)])
    worker.settle([back(handed["parked"].deliveries[0]),
                   park("parked", state="parked", seconds=50, cause="quota_exhausted", words="no")])  # fmt: skip
    bad(worker, handed["broken"])
    for _ in range(2):
        bad(worker, worker.claim(1, 1)[1][0])
    assert field(ledger, "broken", "state") == "parked"
    worker.claim(0, 1)
    ledger.step(step)
    worker.claim(0, 1)
    shown = standing(ledger, "parked")["until"] - ledger.now / 1e6
    assert 49 < shown <= 50, "people are told the time by the clock on the wall"
    left: dict[str, float] = {}
    for second in range(60):
        ledger.advance(1)
        left |= {ledger.status(one.id).account: second + 1 for one in send(worker)}
    assert set(left) == {"retried", "slowed", "parked", "broken"}
    assert all(49 <= left[name] <= 52 for name in ("retried", "slowed", "parked")), left
    assert 11 <= left["broken"] <= 19


@there_and_back
def test_no_lease_is_taken_from_the_living_and_a_dead_workers_come_back_in_time(
    make_governor: MakeGovernor, step: float
) -> None:
    ledger = make_governor(main={"limits": {"max_connections": 8}})
    ledger.publish_many(2, "main")
    alive, dead = ledger.worker("alive"), ledger.worker("dead")
    held, lost = alive.claim(1, 1)[1][0], dead.claim(1, 1)[1][0]
    alive.settle([mark(held.deliveries[0])])
    ledger.step(step)
    alive.renew([(held.account, held.name)], held.deliveries)  # the first to come by after the step
    seen = []
    for _ in range(30):
        ledger.advance(LEASE / 20)
        seen += alive.claim(1, 1)[1]
        assert alive.renew([(item.account, item.name) for item in (held, *seen)],
                           [one for item in (held, *seen) for one in item.deliveries]) == set()  # fmt: skip
    assert [one.id for item in seen for one in item.deliveries] == [lost.deliveries[0].id]
    assert alive.settle([ok(held.deliveries[0])]) == [1]
    assert dead.settle([ok(lost.deliveries[0])]) == [0]


@there_and_back
@pytest.mark.parametrize("first", ["settle", "claim"])
def test_a_link_for_half_an_hour_is_of_use_for_half_an_hour_whoever_comes_first(
    make_governor: MakeGovernor, step: float, first: str
) -> None:
    ledger = make_governor(main={}, other={})
    worker = ledger.worker()
    half = timedelta(minutes=30)
    old = ledger.publish(reset_link(lasts=half), account="main").deliveries[0]
    ledger.store.run("manage", ("pause", "main", "ops"))
    ledger.publish_many(1, "other")
    (handed,) = worker.claim(1, 1)[1]
    ledger.step(step)
    if first == "settle":
        worker.settle([later(handed.deliveries[0], 40)])
    for minute in range(1, 35):
        worker.claim(0, 1)
        assert ledger.state(old) == ("waiting" if minute <= 30 else "expired") or minute == 31
        ledger.advance(60)
        if first == "settle" and minute == 1:
            assert [one.id for one in send(worker)] == [handed.deliveries[0].id], "the retry came in its time"


@there_and_back
def test_an_event_that_comes_right_after_a_step_has_its_full_time(make_governor: MakeGovernor, step: float) -> None:
    ledger = make_governor(main={})
    worker = ledger.worker()
    worker.claim(0, 1)
    ledger.step(step)
    (identity,) = ledger.publish(data_change()).deliveries
    worker.claim(0, 1)
    assert [one.id for one in send(worker)] == [identity], "and leaves at once"
    has = float(field_of(ledger, identity, "deadline")) / 1e6 - ledger.ledger_now / 1e6
    assert 48 * HOUR - 1 < has <= 48 * HOUR + max(0.0, step), "at most a step more, until a worker knew"


@there_and_back
def test_what_was_not_to_leave_before_a_moment_leaves_then_by_redis_clock(
    make_governor: MakeGovernor, step: float
) -> None:
    ledger = make_governor(main={})
    worker = ledger.worker()
    worker.claim(0, 1)
    ledger.step(step)
    worker.claim(0, 1)
    due = datetime.fromtimestamp(ledger.now / 1e6, UTC) + timedelta(seconds=90)
    (identity,) = ledger.publish(data_change(), not_before=due).deliveries
    status = ledger.status(identity)
    assert status.due is not None
    assert abs(status.due - due.timestamp()) < 0.001
    assert abs(status.accepted_at - ledger.now / 1e6) < 0.001
    assert send_for(ledger, worker, 89, step=10) == []
    assert len(send_for(ledger, worker, 2)) == 1
    assert abs(ledger.status(identity).ended_at - ledger.now / 1e6) < 2  # type: ignore[operator]


def test_a_day_still_ends_by_the_clock_on_the_wall(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"per_day": 3}})
    set_clock(ledger, datetime(2026, 6, 1, 20, tzinfo=UTC))
    ledger.publish_many(9, "main")
    worker = ledger.worker()
    assert len(send(worker)) == 3
    ledger.step(HOUR)
    worker.claim(0, 1)
    tell(ledger)
    assert send_for(ledger, worker, 2.9 * HOUR, step=600) == []
    assert len(send_for(ledger, worker, 0.2 * HOUR, step=60)) == 3


def test_time_that_really_passed_is_no_step(make_governor: MakeGovernor) -> None:
    """An hour without Redis, or asleep with the whole machine, is an hour: links are over then."""
    ledger = make_governor(main={})
    worker = ledger.worker()
    worker.claim(0, 1)
    link = ledger.publish(reset_link(lasts=timedelta(minutes=30))).deliveries[0]
    change = ledger.publish(data_change()).deliveries[0]
    ledger.advance(HOUR)
    assert [one.id for one in send(worker)] == [change]
    assert ledger.state(link) == "expired"
    assert ledger.store.ahead() == 0


def test_a_request_that_was_held_up_for_minutes_misleads_nobody_for_long(make_governor: MakeGovernor) -> None:
    """A stopped Redis answers what was sent before it stopped: that worker's word is old."""
    ledger = make_governor(main={"limits": {"per_second": 10}})
    late, prompt = ledger.worker("late"), ledger.worker("prompt")
    late.claim(0, 1), prompt.claim(0, 1)
    before = ledger.true_now
    ledger.advance(600)
    late._clock = lambda: before / 1e6  # it asked ten minutes ago
    late.claim(0, 1)
    late._clock = prompt._clock
    moved = ledger.store.ahead()
    for _ in range(4):
        prompt.claim(0, 1)
        late.claim(0, 1)
    assert ledger.store.ahead() == moved, "nobody quarrels about it"
    ledger.publish_many(50, "main")
    assert most_within(send_for(ledger, prompt, 4, step=0.05), 1.0) <= 10


def test_a_ledger_that_people_look_at_after_a_step_shows_their_time(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"per_hour": 1}})
    worker = ledger.worker()
    ledger.publish_many(2, "main")
    send(worker)
    ledger.step(-HOUR)
    worker.claim(0, 1)
    assert abs(standing(ledger)["quota"]["hour"]["frees_at"] - (ledger.now / 1e6 + HOUR)) < 1
    (identity,) = ledger.publish(data_change()).deliveries
    deadline = ledger.status(identity).facts["deadline"]
    assert abs(deadline - ledger.now / 1e6 - 48 * HOUR) < 1
