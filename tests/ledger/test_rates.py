"""Rates over random limits and many claims: no window of time holds more permits than its limit."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postier.ledger.accounts import pace
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.entries import Handed, back
from postier.ledger.store import Store
from postier.settings.seal import Sealer
from tests.ledger.kit import Ledger, freed, move_time_by_hand, ok, registry

_names = itertools.count(1)


@pytest.fixture(scope="module")
def hand_clock() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        move_time_by_hand(patch)
        yield


def most_within(times: list[int], window: float) -> int:
    """The most events that any half-open window (seconds) holds; `times` rise and are microseconds."""
    return max((bisect_left(times, at + window * 1e6) - index for index, at in enumerate(times)), default=0)


limits = st.fixed_dictionaries(
    {},
    optional={
        "per_second": st.one_of(st.integers(1, 300), st.floats(0.2, 20)),
        "per_minute": st.one_of(st.integers(1, 2000), st.floats(0.5, 60)),
        "max_connections": st.integers(1, 6),
    },
)
# seconds until the next look, how many conversations, how long each, and what becomes of the deliveries
looks = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0.0005, 0.3), st.floats(0.3, 8)),
        st.integers(1, 8),
        st.integers(1, 16),
        st.sampled_from(["sent", "sent", "sent", "back", "kept"]),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits, looks)
def test_no_window_holds_more_mails_than_its_limit(
    hand_clock: None,
    valkey: EmbeddedServer,
    sealer: Sealer,
    limits: dict[str, float],
    looks: list[tuple[float, int, int, str]],
) -> None:
    store = Store(valkey.url, namespace=f"rate{next(_names)}")
    ledger = Ledger(store, sealer, registry(main=limits))
    ledger.publish_many(400, "main")
    worker = ledger.worker(lease=300)
    left: list[int] = []
    kept: list[Handed] = []
    cap = limits.get("max_connections", 8)
    for pause, wanted, size, then in looks:
        ledger.advance(pause)
        for conversation in worker.claim(wanted, size)[1]:
            if then == "kept":
                kept.append(conversation)
                continue
            if then == "sent":
                left += [ledger.now] * len(conversation.deliveries)
                entries = [ok(delivery) for delivery in conversation.deliveries]
            else:
                entries = [back(delivery) for delivery in reversed(conversation.deliveries)]
            worker.settle([*entries, freed(conversation)])
        if len(kept) >= cap:  # late: what was kept goes back while others may have been handed out
            for late in kept:
                worker.settle([*(back(delivery) for delivery in reversed(late.deliveries)), freed(late)])
            kept.clear()
    for name, window in (("per_second", 1.0), ("per_minute", 60.0)):
        if name in limits:
            assert most_within(left, window) <= max(1, math.ceil(limits[name])), (name, limits[name])
    store.redis.delete(*store.redis.keys(store.key("*")))
    store.close()


@settings(deadline=None)
@given(st.one_of(st.integers(1, 10_000), st.floats(0.01, 10_000)), st.sampled_from([1.0, 60.0]))
def test_interval_fits_into_every_window_however_late_the_looks(limit: float, window: float) -> None:
    interval = pace(limit, window)
    late = 0.015 * window + 0.05  # a late look that is made up for, and a mail that leaves late
    assert 1 + math.floor((window + late) * 1e6 / interval - 1e-9) <= max(1, math.ceil(limit))
    if interval > 100:  # a microsecond is what it is rounded up to
        assert (window * 1e6) / (interval - 1) >= 0.938 * limit


@pytest.mark.parametrize(
    ("limits", "seconds"), [({"per_second": 20}, 10), ({"per_second": 200}, 10), ({"per_minute": 60}, 600)]
)
def test_a_steady_limit_is_used_nearly_whole(
    limits: dict[str, float], seconds: int, hand_clock: None, store: Store, sealer: Sealer
) -> None:
    ledger = Ledger(store, sealer, registry(main={**limits, "max_connections": 50}))
    window, limit = (1.0, limits["per_second"]) if "per_second" in limits else (60.0, limits["per_minute"])
    ledger.publish_many(math.ceil(limit * seconds / window) + 50, "main")
    workers = [ledger.worker(name, lease=300) for name in ("one", "two")]
    late = itertools.cycle((0.002, 0.0005, 0.007, 0.014, 0.001))
    left: list[int] = []
    start, worker = ledger.now, itertools.cycle(workers)
    while ledger.now < start + seconds * 1e6:
        waits = []
        for one in itertools.islice(worker, 2):
            wait, handed = one.claim(8, 16)
            waits.append(wait)
            for conversation in handed:
                left += [ledger.now] * len(conversation.deliveries)
                one.settle([*map(ok, conversation.deliveries), freed(conversation)])
        ledger.advance(max(0.001, min(waits) + next(late)))
    assert most_within(left, window) <= limit
    assert len(left) >= 0.93 * limit * seconds / window


def test_both_rates_hold_over_several_workers(hand_clock: None, store: Store, sealer: Sealer) -> None:
    ledger = Ledger(store, sealer, registry(main={"per_second": 10, "per_minute": 120, "max_connections": 50}))
    ledger.publish_many(400, "main")
    workers = [ledger.worker(f"w{number}", lease=300) for number in range(5)]
    left: list[int] = []
    for step in range(900):
        ledger.advance(0.1)
        for conversation in workers[step % 5].claim(8, 16)[1]:
            left += [ledger.now] * len(conversation.deliveries)
            workers[step % 5].settle([*map(ok, conversation.deliveries), freed(conversation)])
    assert most_within(left, 1.0) <= 10
    assert most_within(left, 60.0) <= 120
    assert len(left) >= 150
