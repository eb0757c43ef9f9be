"""A worker that is asked to end: what it sends ends in order, and it keeps nothing that others could use meanwhile."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import dramatiq
import pytest
from dramatiq.worker import Worker

from postier.ledger.claims import Claims
from postier.ledger.entries import Handed
from postier.schemas.errors import LedgerUnavailable
from postier.workers.broker import ACTOR, QUEUE, LaneBroker
from tests.conftest import PATIENCE, until
from tests.drivers.kit import Peer, ScriptedServer, polite
from tests.governor.kit import MakeGovernor
from tests.governor.test_health import heard
from tests.ledger.kit import LEASE, Ledger, data_change, reset_link
from tests.workers.kit import House, copies, smtp

MakeHouse = Callable[..., House]
TAKEN = "250 2.0.0 Ok: queued as 4XyZ12345"


class Slow:
    """A server that answers bodies once it is `opened`, each after its own time."""

    def __init__(self, seconds: Callable[[int], float] = lambda _: 0.0) -> None:
        self.seconds = seconds
        self.count = 0
        self.opened = threading.Event()

    def __call__(self, peer: Peer, line: str) -> str:
        self.count += 1
        seconds = self.seconds(self.count)
        self.opened.wait(4 * PATIENCE)
        time.sleep(seconds)
        return TAKEN


def test_every_send_may_take_the_whole_drain_time(make_house: MakeHouse) -> None:
    """Dramatiq alone took the time that earlier threads needed off each later one's share anew."""
    slow = Slow(lambda number: 4.0 if number == 7 else 1.5)
    with ScriptedServer(polite(DOT=slow)) as server:
        house = make_house(**{f"a{number}": smtp(server.port) for number in range(7)})
        worker = house.start_worker(drain_seconds=10, threads=8)
        ids = []
        for number in range(7):  # one after the other, so that threads take them in the order they are joined in
            ids += house.publish(data_change(), account=f"a{number}")
            until(lambda wanted=number + 1: slow.count == wanted)
        worker.send_signal(signal.SIGTERM)
        slow.opened.set()
        assert worker.wait(PATIENCE) == 0
        assert house.states(ids) == {"sent": 7}


def test_the_next_worker_sends_for_an_account_whose_slow_sends_are_not_over(make_house: MakeHouse) -> None:
    slow = Slow()
    with ScriptedServer(polite(DOT=slow)) as server:
        house = make_house(slow=smtp(server.port), other=smtp(server.port))
        old = house.start_worker(threads=2, drain_seconds=4 * PATIENCE)
        ids = house.publish(*(reset_link() for _ in range(5)), account="slow")
        until(lambda: slow.count == 1)
        time.sleep(1.5)  # it counts as hanging
        old.send_signal(signal.SIGTERM)
        house.start_worker(threads=2, data_dir=house.folder / "another-machine")
        until(lambda: slow.count >= 2, what="another worker's first mail")
        assert old.poll() is None, "while the old one still sends"
        slow.opened.set()
        assert house.wait_for_the_end(ids) == {"sent": 5}
        assert old.wait(PATIENCE) == 0
        assert copies(server) == dict.fromkeys(ids, 1)


def test_the_next_worker_need_not_wait_for_connections_that_nobody_uses(make_house: MakeHouse) -> None:
    slow = Slow()
    with ScriptedServer(polite(DOT=slow)) as server, ScriptedServer(polite()) as one_at_a_time:
        narrow = smtp(one_at_a_time.port, limits={"max_connections": 1})
        house = make_house(narrow=narrow, slow=smtp(server.port))
        old = house.start_worker(drain_seconds=4 * PATIENCE)
        house.wait_for(*house.publish(reset_link(), account="narrow"), "sent")
        house.publish(reset_link(), account="slow")
        until(lambda: slow.count == 1)
        old.send_signal(signal.SIGTERM)
        house.start_worker(data_dir=house.folder / "another-machine")
        house.wait_for(*house.publish(reset_link(), account="narrow"), "sent")
        assert old.poll() is None
        slow.opened.set()
        assert old.wait(PATIENCE) == 0


# --- what the ledger makes of it


def fleet(ledger: Ledger, name: str, threads: int) -> Claims:
    worker = Claims(ledger.store, name, lease=LEASE, crash_limit=3, keep_sent=60, threads=threads)
    worker.renew((), ())
    return worker


def drain(worker: Claims, *handed: Handed) -> None:
    held = [delivery for item in handed for delivery in item.deliveries]
    assert worker.renew([(item.account, item.name) for item in handed], held, drains=True) == set()


@pytest.mark.parametrize("threads", [2, 4, 16])
def test_what_a_draining_worker_sends_takes_no_share_of_the_others_threads(
    make_governor: MakeGovernor, threads: int
) -> None:
    ledger = make_governor(main={"limits": {"max_connections": 40}}, other={})
    heard(ledger, "main")
    ledger.publish_many(200, "main")
    old, new = fleet(ledger, "old", threads), fleet(ledger, "new", threads)
    held = old.claim(threads, 1)[1]
    assert len(held) == threads, "half of the threads of both"
    assert new.claim(threads, 1)[1] == []
    drain(old, *held)
    ledger.advance(2.5)
    drain(old, *held)
    assert len(new.claim(threads, 1)[1]) == 1, "nobody knows whether it hangs"
    ledger.advance(0.3)
    heard(ledger, "main")
    assert len(new.claim(threads, 1)[1]) == threads // 2 - 1


def test_what_a_draining_worker_sends_counts_at_the_provider(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"max_connections": 3}}, other={})
    heard(ledger, "main")
    ledger.publish_many(50, "main")
    old, new = fleet(ledger, "old", 4), fleet(ledger, "new", 8)
    held = old.claim(2, 1)[1]
    drain(old, *held)
    heard(ledger, "main")
    assert len(new.claim(8, 1)[1]) == 1
    assert new.claim(8, 1)[1] == []


def test_an_account_whose_first_mail_is_with_a_draining_worker_is_tried_by_another(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"max_connections": 9}}, other={})
    ledger.store.redis.hdel(ledger.store.key("account:main"), "proven")
    ledger.publish_many(9, "main")
    old, new = fleet(ledger, "old", 4), fleet(ledger, "new", 4)
    held = old.claim(4, 1)[1]
    assert new.claim(4, 1)[1] == []
    drain(old, *held)
    assert len(held) == len(new.claim(4, 1)[1]) == 1


def test_an_account_in_trouble_is_tried_by_one_worker_however_many_drain(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"max_connections": 9}}, other={})
    ledger.store.redis.hset(ledger.store.key("account:main"), "trouble", 1)
    ledger.publish_many(9, "main")
    old, new = fleet(ledger, "old", 4), fleet(ledger, "new", 4)
    held = old.claim(4, 1)[1]
    assert len(held) == 1
    drain(old, *held)
    assert new.claim(4, 1)[1] == []


def test_accounts_that_hang_leave_half_of_the_next_workers_threads(make_governor: MakeGovernor) -> None:
    names = [f"dies{number}" for number in range(10)]
    ledger = make_governor(**{name: {} for name in names})
    for name in names:
        ledger.publish_many(50, name)
    heard(ledger, *names)
    ledger.advance(1)
    old, new = fleet(ledger, "old", 16), fleet(ledger, "new", 16)
    drain(old, *old.claim(10, 1)[1])
    ledger.advance(2.5)
    assert len(new.claim(16, 4)[1]) == 8


# --- leases and slots


@pytest.fixture
def broker(make_governor: MakeGovernor) -> Iterator[tuple[LaneBroker, Ledger]]:
    ledger = make_governor(main={})
    broker = LaneBroker(ledger.worker(), threads=2, size=4, seconds=5)
    yield broker, ledger
    broker.close()


def test_what_comes_while_a_worker_begins_to_drain_goes_back_with_its_slot(
    broker: tuple[LaneBroker, Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes, ledger = broker
    ids = ledger.publish_many(3, "main")
    claim = lanes.claims.claim

    def late(conversations: int, size: int) -> tuple[float, list[Handed]]:
        wait, handed = claim(conversations, size)
        assert handed
        lanes.draining = True
        return wait, handed

    monkeypatch.setattr(lanes.claims, "claim", late)
    assert lanes.claim()[1] == []
    assert lanes.is_idle
    assert {ledger.state(identity) for identity in ids} == {"waiting"}
    assert ledger.store.redis.zcard(ledger.store.key("sending:main")) == 0


def test_a_renewal_that_failed_is_repeated_while_the_lease_lasts(
    broker: tuple[LaneBroker, Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply that is waited for in vain takes 4 of the shipping lease's 15 seconds, and a usual pause 5 more."""
    lanes, _ = broker
    pauses: list[float] = []

    def unreachable(*_: object, **__: object) -> set[str]:
        raise LedgerUnavailable("no answer")

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) > 4

    monkeypatch.setattr(lanes.claims, "lease", 15.0)
    monkeypatch.setattr(lanes.claims, "renew", unreachable)
    monkeypatch.setattr(lanes._closed, "wait", pause)
    lanes._renew()
    assert pauses[0] == 5.0
    assert all(5.0 + 4.0 + again + 4.0 < 15.0 for again in pauses[1:])


def test_a_drain_that_fails_still_lets_sends_end(
    broker: tuple[LaneBroker, Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes, ledger = broker
    begun, over = threading.Event(), threading.Event()

    def send(conversation: str) -> None:
        begun.set()
        time.sleep(1.0)
        over.set()

    def fail(worker: Worker) -> None:
        raise RuntimeError("can't start new thread")

    dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE, broker=lanes)(send)
    monkeypatch.setattr(lanes, "drain_seconds", PATIENCE)
    monkeypatch.setattr(lanes, "drain", fail)
    ledger.publish_many(1, "main")
    worker = Worker(lanes, worker_threads=2)
    worker.start()
    assert begun.wait(PATIENCE)
    worker.stop(timeout=1)
    assert over.is_set()
