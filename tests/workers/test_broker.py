"""The broker inside Dramatiq, and the traps of the stock one that it keeps out of."""

from __future__ import annotations

import time
from collections.abc import Iterator

import dramatiq
import pytest
from dramatiq.errors import BrokerError
from dramatiq.worker import Worker

from postier.ledger.claims import Claims
from postier.ledger.store import Store
from postier.workers.broker import ACTOR, QUEUE, LaneBroker
from tests.conftest import PATIENCE, until
from tests.workers.kit import LEASE


def nothing(conversation: str) -> None:
    """Work that is none."""


@pytest.fixture
def broker(store: Store) -> Iterator[LaneBroker]:
    claims = Claims(store, "w1", lease=LEASE, crash_limit=3, keep_sent=3600)
    broker = LaneBroker(claims, threads=2, size=4, seconds=5)
    yield broker
    broker.close()


def test_no_delay_queue_is_announced_so_nothing_waits_in_a_workers_memory(broker: LaneBroker) -> None:
    dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE, broker=broker)(nothing)
    assert broker.get_declared_queues() == {QUEUE}
    assert broker.get_declared_delay_queues() == set()
    worker = Worker(broker, worker_threads=1)
    worker.start()
    try:
        assert set(worker.consumers) == {QUEUE}
    finally:
        worker.stop(timeout=5000)


@pytest.mark.parametrize("delay", [None, 1000])
def test_dramatiq_messages_are_refused(broker: LaneBroker, delay: int | None) -> None:
    actor = dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE, broker=broker)(nothing)
    with pytest.raises(BrokerError):
        actor.send_with_options(args=("x",), delay=delay)


def test_none_of_dramatiqs_retries_limits_or_results_takes_part(broker: LaneBroker) -> None:
    names = {type(middleware).__name__ for middleware in broker.middleware}
    assert not names & {"Retries", "AgeLimit", "TimeLimit", "Results", "Callbacks", "Pipelines", "Shutdown"}


def test_a_worker_without_mail_hardly_asks(broker: LaneBroker, store: Store) -> None:
    dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE, broker=broker)(nothing)
    worker = Worker(broker, worker_threads=2)
    worker.start()
    try:
        began, before = time.monotonic(), scripts(store)
        until(lambda: scripts(store) - before >= 4, what="a few questions")
        assert time.monotonic() - began > 0.7
    finally:
        worker.stop(timeout=5000)


def scripts(store: Store) -> int:
    stats = store.redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


def test_idle_worker_threads_sleep_and_still_end_at_once(broker: LaneBroker) -> None:
    dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE, broker=broker)(nothing)
    worker = Worker(broker, worker_threads=12, worker_timeout=30_000)
    worker.start()
    until(lambda: QUEUE in worker.consumers and worker.consumers[QUEUE].consumer is not None)
    began = time.monotonic()
    worker.stop(timeout=60_000)
    assert time.monotonic() - began < 15  # and not the half minute that they may sleep
    assert not any(thread.is_alive() for thread in worker.workers)


def test_a_paced_account_is_looked_at_on_time(broker: LaneBroker) -> None:
    took = []
    for _ in range(40):
        began = time.monotonic()
        broker.idle(0.005)
        took.append(time.monotonic() - began)
    assert sorted(took)[10] < 0.05  # Redis itself would end each of these waits up to a tenth of a second late


def test_a_wake_up_is_left_to_others_when_the_threads_went_meanwhile(
    broker: LaneBroker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.redis.lpush(store.key("wake"), "1")
    wait = broker.wakes.wait

    def wait_while_threads_go(seconds: float, *, listen: bool) -> bool:
        woken = wait(seconds, listen=listen)
        broker.threads = 0
        return woken

    monkeypatch.setattr(broker.wakes, "wait", wait_while_threads_go)
    assert broker.idle(PATIENCE)
    assert store.redis.llen(store.key("wake")) == 1
