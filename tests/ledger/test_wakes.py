"""Workers that wait: nobody sleeps through a wake-up, keeps one it cannot use, or waits longer than it wanted to."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from postier.ledger.embedded import EmbeddedServer
from postier.ledger.store import Store
from postier.ledger.wakes import Wakes
from tests.conftest import until

LONG = 30.0
MakeWakes = Callable[[str], Wakes]


@pytest.fixture
def make_wakes(store: Store) -> Iterator[MakeWakes]:
    made: list[Wakes] = []

    def make(worker: str) -> Wakes:
        made.append(Wakes(store, worker))
        return made[-1]

    yield make
    for wakes in made:
        wakes.close()


def wake(store: Store, worker: str = "") -> None:
    store.redis.lpush(store.key(f"wake:{worker}" if worker else "wake"), "1")


def unread(store: Store) -> int:
    return int(store.redis.llen(store.key("wake")))


def listeners(store: Store) -> int:
    return int(store.redis.info("clients")["blocked_clients"])


def test_a_wake_up_for_anybody_or_for_this_worker_ends_the_wait(store: Store, make_wakes: MakeWakes) -> None:
    wakes = make_wakes("w1")
    with ThreadPoolExecutor(1) as pool:
        for worker in ("", "w1", ""):
            waits = pool.submit(wakes.wait, LONG, listen=True)
            wake(store, worker)
            assert waits.result(LONG)
    assert unread(store) == 0


def test_a_wake_up_that_came_between_two_waits_is_not_lost(store: Store, make_wakes: MakeWakes) -> None:
    wakes = make_wakes("w1")
    assert not wakes.wait(0.01, listen=True)
    wake(store)
    assert wakes.wait(LONG, listen=True)
    assert not wakes.wait(0.01, listen=True), "it counts once"


def test_one_for_another_worker_does_not_end_it(store: Store, make_wakes: MakeWakes) -> None:
    wake(store, "w2")
    assert not make_wakes("w1").wait(0.05, listen=True)


def test_a_ring_ends_the_wait_or_the_next_one_and_counts_once(make_wakes: MakeWakes) -> None:
    wakes = make_wakes("w1")
    for listen in (True, False):
        wakes.ring()
        wakes.ring()
        assert wakes.wait(LONG, listen=listen)
        assert not wakes.wait(0.01, listen=listen)
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(wakes.wait, LONG, listen=listen)
            until(lambda: wakes._waiting)
            wakes.ring()
            assert waits.result(LONG)
        assert not wakes.wait(0.01, listen=listen)


def test_no_ring_of_many_threads_is_lost(make_wakes: MakeWakes) -> None:
    wakes, rounds = make_wakes("w1"), 2000
    heard = threading.Semaphore(0)

    def ring() -> None:
        for _ in range(rounds):
            wakes.ring()
            assert heard.acquire(timeout=LONG)

    with ThreadPoolExecutor(2) as pool:
        ringing = [pool.submit(ring) for _ in range(2)]
        while not all(one.done() for one in ringing):
            if wakes.wait(0.05, listen=False):
                heard.release(2)
    assert all(one.exception() is None for one in ringing)


def test_who_has_no_thread_free_leaves_wake_ups_to_the_others(store: Store, make_wakes: MakeWakes) -> None:
    full, idle = make_wakes("full"), make_wakes("idle")
    assert not full.wait(0.01, listen=True)
    assert not full.wait(0.01, listen=False), "its question is open no more"
    wake(store)
    assert not full.wait(0.05, listen=False)
    assert idle.wait(LONG, listen=True)


def test_what_came_before_the_threads_were_busy_is_passed_on(store: Store, make_wakes: MakeWakes) -> None:
    full, idle = make_wakes("full"), make_wakes("idle")
    assert not full.wait(0.01, listen=True)
    wake(store)
    until(lambda: unread(store) == 0, what="Redis to answer the open question")
    assert not full.wait(0.01, listen=False)
    assert idle.wait(LONG, listen=True)


def test_a_wake_up_in_hand_can_be_passed_on_once(store: Store, make_wakes: MakeWakes) -> None:
    wakes = make_wakes("w1")
    wake(store)
    assert wakes.wait(LONG, listen=True)
    wakes.pass_on()
    assert unread(store) == 1
    wakes.pass_on()
    assert unread(store) == 1


def test_a_wake_up_that_was_used_is_not_passed_on(store: Store, make_wakes: MakeWakes) -> None:
    wakes = make_wakes("w1")
    wake(store)
    assert wakes.wait(LONG, listen=True)
    assert not wakes.wait(0.01, listen=False)
    assert unread(store) == 0


def test_who_leaves_takes_no_wake_up_along(store: Store, make_wakes: MakeWakes) -> None:
    leaves = make_wakes("leaves")
    assert not leaves.wait(0.01, listen=True)
    wake(store)
    until(lambda: unread(store) == 0, what="Redis to answer the open question")
    leaves.close()
    leaves.close()
    assert unread(store) == 1


def test_a_question_that_redis_ended_is_asked_again(
    store: Store, make_wakes: MakeWakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postier.ledger.wakes._ASKED_FOR", 0.05)
    wakes = make_wakes("w1")
    assert not wakes.wait(0.5, listen=True)
    wake(store)
    assert wakes.wait(LONG, listen=True)


def test_a_killed_connection_ends_the_wait_and_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postier.ledger.wakes._AGAIN", 0.0)
    with EmbeddedServer(tmp_path, fsync="no") as redis, ThreadPoolExecutor(1) as pool:
        store = Store(redis.url, timeout=LONG)
        wakes = Wakes(store, "w1")
        waits = pool.submit(wakes.wait, LONG, listen=True)
        until(lambda: listeners(store) == 1)
        store.redis.client_kill_filter(_type="normal", skipme=True)
        assert waits.result(LONG), "so that the ledger is looked at"
        assert store.lost_connections == 1
        waits = pool.submit(wakes.wait, LONG, listen=True)
        wake(store)
        assert waits.result(LONG)
        wakes.close()
        store.close()


def test_without_redis_it_still_hears_rings_and_keeps_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postier.ledger.wakes._AGAIN", LONG)  # it does not ask again between two lines of this test
    with EmbeddedServer(tmp_path, fsync="no") as redis:
        store = Store(redis.url, timeout=LONG)
        wakes = Wakes(store, "w1")
        assert not wakes.wait(0.01, listen=True)
    assert wakes.wait(LONG, listen=True), "the connection broke"
    assert not wakes.wait(0.01, listen=True)
    wakes.ring()
    assert wakes.wait(LONG, listen=True)
    wakes.pass_on()
    wakes.close()
    store.close()


def test_a_redis_that_stands_still_does_not_hold_the_wait_up(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, fsync="no") as redis:
        assert redis.pid is not None
        store = Store(redis.url, timeout=20.0)
        wakes = Wakes(store, "w1")
        assert not wakes.wait(0.01, listen=True)
        os.kill(redis.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert not wakes.wait(0.05, listen=True)
            assert time.monotonic() - began < 10, "and not as long as a command may take"
        finally:
            os.kill(redis.pid, signal.SIGCONT)
        wakes.close()
        store.close()
