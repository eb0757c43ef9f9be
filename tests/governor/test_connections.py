"""Connections that stay open between mails count: never more than the cap over all workers; none is hoarded."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from postier.drivers.session_pool import SessionPool
from postier.ledger.claims import Claims
from postier.ledger.entries import Entry, Handed, Kept, back, free, keep
from postier.workers.connections import Connections
from tests.conftest import PATIENCE, until
from tests.drivers.kit import Peer, ScriptedServer, polite
from tests.governor.kit import MakeGovernor
from tests.governor.test_health import heard
from tests.governor.test_sharing import MakeHouse
from tests.ledger.kit import LEASE, Ledger, ok, reset_link
from tests.workers.kit import smtp

STEPS = [*("publish", "time", "die"), *2 * ("claim", "connect", "end", "tell")]


class Process:
    """A worker process as its provider sees it: a pool of idle connections, and one for each conversation."""

    def __init__(self, ledger: Ledger, name: str, threads: int) -> None:
        self.claims = Claims(ledger.store, name, lease=LEASE, crash_limit=3, keep_sent=60, threads=threads,
                             clock=lambda: ledger.true_now / 1e6)  # fmt: skip
        self.threads = threads
        self.idle = self.at = 0
        self.begun: list[tuple[Handed, bool]] = []  # with whether it has a connection
        self.unsaid: list[Entry] = []
        self.claims.renew((), ())

    @property
    def open(self) -> int:
        return self.idle + sum(connected for _, connected in self.begun)

    def kept(self) -> Kept:
        self.at += 1
        return Kept(self.idle, self.at)

    def claim(self) -> list[Handed]:
        handed = self.claims.claim(self.threads - len(self.begun), 2)[1]
        self.begun += [(item, False) for item in handed if item.name]
        for item in handed:
            if not item.name:
                self.idle = 0
                self.unsaid.append(keep(self.claims.worker, item.account, self.kept()))
        return handed

    def connect(self, number: int) -> None:
        handed, connected = self.begun[number]
        if not connected:
            self.idle = max(0, self.idle - 1)
            self.begun[number] = (handed, True)

    def end(self, number: int, *, stays: bool) -> None:
        handed, connected = self.begun.pop(number)
        self.idle += connected and stays
        entries = map(ok, handed.deliveries) if connected else map(back, reversed(handed.deliveries))
        self.unsaid += [*entries, free(handed.name, handed.account, "good" if connected else "none", kept=self.kept())]

    def tell(self) -> None:
        if self.unsaid:
            self.claims.settle(self.unsaid)
        self.unsaid = []


@pytest.mark.parametrize("cap", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_no_life_of_workers_opens_more_than_the_cap_or_leaves_mail_behind_idle_connections(
    make_governor: MakeGovernor, cap: int, seed: int
) -> None:
    ledger = make_governor(main={"limits": {"max_connections": cap}}, other={})
    chance = random.Random(seed)
    workers = [Process(ledger, f"w{number}", chance.choice([1, 2, 8])) for number in range(4)]
    for _ in range(250):
        worker = chance.choice(workers)
        match chance.choice(STEPS):
            case "publish":
                ledger.publish_many(chance.randint(1, 6), "main")
            case "claim":
                worker.claim()
            case "connect" if worker.begun:
                worker.connect(chance.randrange(len(worker.begun)))
            case "end" if worker.begun:
                worker.end(chance.randrange(len(worker.begun)), stays=chance.random() < 0.8)
            case "tell":
                worker.tell()
            case "time":
                ledger.advance(chance.choice([0.01, 0.3, 1.1]))
                for one in workers:
                    one.claims.renew([(item.account, item.name) for item, _ in one.begun],
                                     [delivery for item, _ in one.begun for delivery in item.deliveries])  # fmt: skip
            case "die" if chance.random() < 0.1:
                workers[workers.index(worker)] = Process(ledger, f"n{chance.random()}", 2)
        assert sum(one.open for one in workers) <= cap
    for _ in range(200):
        for worker in workers:
            worker.claim()
            while worker.begun:
                worker.connect(0)
                assert sum(one.open for one in workers) <= cap
                worker.end(0, stays=True)
            worker.tell()
            worker.claims.renew((), ())
        counts = ledger.queries.counts()
        if not counts["waiting"] and not counts["in_hand"]:
            break
        ledger.advance(1.1)
    assert (counts["waiting"], counts["in_hand"]) == (0, 0)


def test_who_keeps_the_connection_sends_over_it_and_who_has_no_thread_closes_it(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"max_connections": 1}}, other={})
    first, second = Process(ledger, "first", 2), Process(ledger, "second", 2)

    def one_by(worker: Process) -> None:
        ledger.publish_many(1, "main")
        assert len(worker.claim()) == 1
        worker.connect(0)
        worker.end(0, stays=True)
        worker.tell()

    one_by(first)
    ledger.publish_many(1, "main")
    assert second.claim() == []
    assert ledger.store.redis.lpop(ledger.store.key("wake:first")) == b"1", "it is asked"
    assert [item.account for item in first.claim()] == ["main"], "it has the connection"
    first.connect(0)
    first.end(0, stays=True)
    first.tell()

    heard(ledger, "other")
    ledger.publish_many(4, "other")
    assert len(first.claim()) == 2
    ledger.publish_many(1, "main")
    assert second.claim() == []
    assert [(item.name, item.account) for item in first.claim()] == [("", "main")]
    assert second.claim() == [], "not before it is closed"
    first.tell()
    assert [item.account for item in second.claim()] == ["main"]


def test_a_quiet_account_sends_over_what_is_kept_and_over_what_is_not(make_governor: MakeGovernor) -> None:
    """Nobody heard of its server for a while: one mail goes first, over a new connection where that is allowed."""
    ledger = make_governor(main={"limits": {"max_connections": 4}}, other={})
    first, second = Process(ledger, "first", 8), Process(ledger, "second", 8)
    heard(ledger, "main")
    ledger.publish_many(2, "main")
    for worker in (first, second):
        assert worker.claims.claim(0, 1)[1] == []
    first.claim()
    first.connect(0)
    first.end(0, stays=True)
    first.tell()
    ledger.advance(60)
    for worker in (first, second):
        worker.claims.renew((), ())
        ledger.publish_many(1, "main")
        assert [item.account for item in worker.claim()] == ["main"]
        worker.connect(0)
        worker.end(0, stays=True)
        worker.tell()
        ledger.advance(60)


def test_workers_that_keep_more_than_a_lowered_cap_do_not_wait_for_each_other(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"max_connections": 4}}, other={})
    workers = [Process(ledger, "first", 8), Process(ledger, "second", 8)]
    for worker in workers:
        worker.idle = 2
        worker.claims.settle([keep(worker.claims.worker, "main", worker.kept())])
    ledger.store.redis.hset(ledger.store.key("account:main"), "cap", 1)
    ledger.publish_many(1, "main")
    for _ in range(4):
        for worker in workers:
            worker.claim()
            worker.tell()
        ledger.advance(1)
    assert sum(len(worker.begun) for worker in workers) == 1
    for worker in workers:
        if worker.begun:
            worker.connect(0)
    assert sum(worker.open for worker in workers) == 1


def test_the_idle_connections_of_a_dead_worker_are_nobodys_after_a_lease(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"max_connections": 1}})
    dead, alive = Process(ledger, "dead", 2), Process(ledger, "alive", 2)
    ledger.publish_many(3, "main")
    dead.claim()
    dead.connect(0)
    dead.end(0, stays=True)
    dead.tell()
    assert alive.claim() == []
    for _ in range(12):
        ledger.advance(1)
        alive.claims.renew((), ())
        if alive.claim():
            break
    assert len(alive.begun) == 1


def test_an_older_word_about_connections_does_not_undo_a_later_one(make_governor: MakeGovernor) -> None:
    ledger = make_governor(main={"limits": {"max_connections": 2}})
    worker, other = ledger.worker("a"), Process(ledger, "other", 4)
    worker.renew((), ())
    heard(ledger, "main")
    worker.settle([keep("a", "main", Kept(2, 5)), keep("a", "main", Kept(0, 4))])
    ledger.publish_many(4, "main")
    assert other.claim() == []
    worker.settle([keep("a", "main", Kept(1, 6))])
    assert len(other.claim()) == 1


class Counting:
    """Connections a server has open, from its own point of view: those that said QUIT are over, read or not."""

    def __init__(self) -> None:
        self.most = self.all = 0
        self._open: list[Peer] = []
        self._lock = threading.Lock()

    @contextmanager
    def one(self, peer: Peer) -> Iterator[None]:
        with self._lock:
            self._open.append(peer)
            self.all += 1
            self.most = max(self.most, sum(not has_left(one) for one in self._open))
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(peer)


def has_left(peer: Peer) -> bool:
    """Whether the other side said goodbye, or hung up, and this thread's turn to hear of it is yet to come."""
    try:
        return peer.sock.recv(64, socket.MSG_PEEK | socket.MSG_DONTWAIT)[:4] in (b"QUIT", b"")
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize(("cap", "processes"), [(1, 4), (3, 2)])
def test_worker_processes_together_never_have_more_connections_open_than_the_account_may(
    make_house: MakeHouse, cap: int, processes: int
) -> None:
    counting, converse = Counting(), polite()

    def counted(peer: Peer) -> None:
        with counting.one(peer):
            converse(peer)

    with ScriptedServer(counted) as server:
        house = make_house(main=smtp(server.port, limits={"max_connections": cap}), other=smtp(server.port))
        for _ in range(processes):
            house.start_worker()
        ids: list[str] = []

        def most_are_sent() -> bool:
            return house.states(ids)["sent"] >= len(ids) - 4

        for _ in range(15):
            ids += house.publish(*(reset_link() for _ in range(8)), account="main")
            until(most_are_sent, what="most of the burst")
        assert house.wait_for_the_end(ids) == {"sent": 120}
        assert counting.most <= cap
        assert counting.all <= 40, "connections are used again"


class Leaving:
    """An idle session whose server takes its time to close."""

    mails, idle_since, is_clean = 0, 0.0, True

    def __init__(self) -> None:
        self.wire = self
        self.left, self.closed = threading.Event(), threading.Event()

    def is_quiet(self) -> bool:
        return True

    def say_goodbye(self) -> None:
        self.left.set()

    def wait_until_gone(self, seconds: float) -> None:
        self.closed.wait(60)

    leave = drop = say_goodbye


def test_no_connection_is_opened_while_one_that_was_given_up_is_still_closing() -> None:
    pool: SessionPool[Leaving] = SessionPool(size=4, idle_seconds=60, max_mails=100, clock=lambda: 0.0)
    session = Leaving()
    pool.give_back(session)
    closing = threading.Thread(target=pool.close_idle, kwargs={"keep": 0})
    closing.start()
    assert session.left.wait(PATIENCE)
    assert len(pool) == 1, "its server still counts it"
    found: list[object] = []
    taking = threading.Thread(target=lambda: found.append(pool.take()))
    taking.start()
    taking.join(0.1)
    assert found == []
    session.closed.set()
    taking.join(PATIENCE)
    closing.join(PATIENCE)
    assert found == [None], "now a new one may be opened"
    assert len(pool) == 0


class Rooms:
    """A keeper whose connections close as soon as they are given up."""

    def __init__(self) -> None:
        self.idle: dict[str, int] = {}

    def idle_connections(self, name: str) -> int:
        return self.idle.get(name, 0)

    def close_idle(self, name: str, *, keep: int | None = None) -> None:
        self.idle[name] = keep or 0


def test_a_process_with_many_accounts_keeps_the_connections_it_used_last() -> None:
    rooms, told = Rooms(), list[Entry]()
    connections = Connections("w1", rooms, told.extend, most=10)
    for number in range(40):
        rooms.idle[f"a{number}"] = 2
        connections.kept(f"a{number}")
        rooms.idle["busy"] = 1
        connections.kept("busy")
        until(lambda: sum(rooms.idle.values()) <= 10, what="the end of those unused longest")
    until(lambda: len(told) == 36, what="all being told")
    assert {name for name, count in rooms.idle.items() if count} == {"busy", "a36", "a37", "a38", "a39"}
    assert [entry[:4] for entry in connections.all_closed()] == [
        ("keep", "w1", name, rooms.idle[name]) for name in ("a36", "a37", "a38", "a39", "busy")
    ]
