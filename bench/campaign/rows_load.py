"""F46–F49: the same event a thousand times, the herd after an outage, dead tenants, a large backlog."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import textwrap
import time

from campaign.kit import Arena, data_change, eventually, memory, reset_link, row, smtp
from campaign.server import Peer
from postier.schemas.errors import IdempotencyConflict, LedgerUnavailable

SAME = """
import sys, time
from datetime import UTC, datetime
from postier.client import Postier
from postier.schemas.errors import LedgerUnavailable
from postier.schemas.events import DataChange, Entity, Recipient
from postier.schemas.events.data_change import Change
from postier.settings.config import Settings
url, key, count = sys.argv[1:]
client = Postier(settings=Settings(redis_url=url, namespace="faults", seal_keys=key))
event = DataChange(subscription_id="marks", recipients=(Recipient(address="one@example.org"),),
    entity=Entity(type="room", id="1", label="Room 1"), changed_at=datetime(2026, 1, 1, tzinfo=UTC),
    changes=(Change(field="room", label="Room", old="A", new="B"),))
answers = set()
for number in range(int(count)):
    while True:
        try:
            answers.add(client.publish(event, tenant="school", idempotency_key="one").deliveries)
            break
        except LedgerUnavailable:
            time.sleep(0.05)
print(answers, flush=True)
"""


@row(
    "F46",
    "the same event 1,000x by 8 processes, also while Redis pauses",
    "1 mail, equal answers; another body -> conflict",
)
def same_event(arena: Arena) -> None:
    server = arena.server()
    redis = arena.redis(fsync="everysec")
    arena.house(redis.url, main=smtp(server.port))
    arena.worker()
    count = int(arena.scaled(1_000, 250, "publishes by each of 8"))
    command = [sys.executable, "-c", textwrap.dedent(SAME), redis.url, arena.seal_key, str(count)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    callers = [subprocess.Popen(command, stdout=subprocess.PIPE, env=env) for _ in range(8)]
    assert redis.pid
    time.sleep(1.2)
    for _ in range(2):
        os.kill(redis.pid, signal.SIGSTOP)
        time.sleep(arena.scaled(6, 2))
        os.kill(redis.pid, signal.SIGCONT)
        time.sleep(0.3)
    answers = {caller.communicate(timeout=120)[0].decode().strip() for caller in callers}
    arena.check(f"equal answers ({len(answers)})", len(answers) == 1)
    (known,) = arena.home.queries.deliveries_of("school", "one")
    arena.accepted[known] = time.time()
    arena.all_sent(20)
    arena.check("1 mail", len(server.log) == 1)
    conflicts = 0
    for _ in range(20):
        try:
            arena.client.publish(data_change(), tenant="school", idempotency_key="one")
        except IdempotencyConflict:
            conflicts += 1
    arena.check(f"another body is a conflict ({conflicts} of 20)", conflicts == 20)


@row(
    "F47",
    "provider away 20 min with 10,000 waiting, then back",
    "rate <= 1.1x limit in any 1 s; connections <= cap; drained in limit time + 10 %",
)
def herd(arena: Arena) -> None:
    count, rate = (10_000, 200) if arena.full else (1_500, 150)
    arena.notes.append(f"{count} waiting, {rate}/s")
    server = arena.server(listening=False)
    limits = {"per_second": rate, "max_connections": 6}
    arena.house(arena.redis(fsync="everysec").url, main=smtp(server.port, limits=limits))
    arena.worker(threads=8)
    arena.worker(threads=8, machine="two")
    ids = [one for _ in range(count // 100) for one in arena.burst(100)]
    time.sleep(arena.scaled(1200, 8))
    server.listen()
    keys, store = arena.home.store.redis, arena.home.store
    keys.zadd(store.key("parked"), {"main": 1}, xx=True)  # the breaker's probe is due
    eventually(lambda: len(server.log) >= 1, 30)
    began = time.time()
    keys_due = [one for one, state in arena.states(ids).items() if state == "waiting"]
    arena.bring_forward(keys_due[:100])
    # Asking the ledger for all states, again and again, keeps Redis and these servers' threads from their work.
    eventually(lambda: len(server.log) >= count, 2 * count / rate + 60)
    arena.all_sent(60)
    times = sorted(taken.at for taken in server.log)
    peak = max(sum(1 for at in times[index : index + 2 * rate] if at < times[index] + 1) for index in range(len(times)))
    took = times[-1] - began
    arena.check(f"peak {peak}/s <= 1.1 x {rate}", peak <= 1.1 * rate)
    arena.check(f"connections {server.most_open} <= 6", server.most_open <= 6)
    bound = 1.1 * count / rate + (0 if arena.full else 2)
    arena.check(f"drained in {took:.1f} s, bound {bound:.1f} s", took <= bound)


@row("F48", "half of all tenants dead (never banner)", "healthy p95 <= 2x idle and <= 5 s")
def half_dead(arena: Arena) -> None:
    def nothing(peer: Peer, line: str) -> None:
        peer.wait_until_gone()

    good, dead = arena.server(), arena.server(BANNER=nothing)
    accounts = {f"well{n}": smtp(good.port) for n in range(10)} | {f"dead{n}": smtp(dead.port) for n in range(10)}
    arena.house(arena.redis(fsync="everysec").url, **accounts)
    arena.worker(threads=8)
    arena.worker(threads=8, machine="two")

    def p95() -> float:
        ids = []
        for number in range(200):
            ids += arena.publish(reset_link(), account=f"well{number % 10}")
            time.sleep(0.01)
        arena.all_sent(30, ids)
        waits = sorted(taken.at - arena.accepted[taken.id] for taken in good.log if taken.id in set(ids))
        return waits[int(0.95 * len(waits))]

    idle = p95()
    for number in range(10):
        arena.burst(50, account=f"dead{number}")
    time.sleep(0.5)
    loaded = p95()
    arena.notes.append(f"p95 idle {idle * 1000:.1f} ms, half dead {loaded * 1000:.1f} ms")
    arena.check("<= 2x idle (or 10 ms)", loaded <= max(2 * idle, 0.010))
    arena.check("<= 5 s", loaded <= 5)
    arena.may_wait = True


@row(
    "F49",
    "1,000,000 backlog",
    "publish p99 <= 50 ms; RSS <= 150 MB flat; urgent p95 <= 5 s; status <= 1 s; boot <= 30 s",
)
def backlog(arena: Arena) -> None:
    count = int(arena.scaled(1_000_000, 30_000, "waiting"))
    server = arena.server()
    redis = arena.redis(fsync="everysec", maxmemory="8gb")
    accounts = {"main": smtp(server.port), "slow": smtp(server.port, limits={"per_minute": 60})}
    arena.house(redis.url, **accounts)
    ids: list[str] = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for _ in range(count // 500):
            ids += pool.submit(arena.burst, 500, data_change, account="slow").result()
    redis.stop()
    began = time.monotonic()
    redis.start()
    arena.check(f"boot <= 30 s ({time.monotonic() - began:.1f} s)", time.monotonic() - began <= 30)
    worker = arena.worker(threads=8)
    urgent, publish_times = arena.publish(reset_link()), []
    eventually(lambda: arena.count(urgent) == {"sent": 1}, 20)
    size = memory(worker.pid)
    for _ in range(300):
        began = time.monotonic()
        urgent += arena.publish(reset_link())
        publish_times.append(time.monotonic() - began)
        time.sleep(0.01)
    arena.check("urgent mail is sent", eventually(lambda: arena.count(urgent) == {"sent": 301}, 20))
    waits = sorted(taken.at - arena.accepted[taken.id] for taken in server.log if taken.id in set(urgent))
    p99, p95 = sorted(publish_times)[296], waits[int(0.95 * len(waits))]
    began = time.monotonic()
    arena.status(ids[-1])
    arena.home.queries.counts()
    asked = time.monotonic() - began
    arena.check(f"publish p99 <= 50 ms ({p99 * 1000:.1f})", p99 <= 0.05)
    arena.check(f"urgent p95 <= 5 s ({p95 * 1000:.0f} ms)", p95 <= 5)
    arena.check(f"status <= 1 s ({asked * 1000:.0f} ms)", asked <= 1)
    grown = memory(worker.pid) - size
    arena.check(f"RSS <= 150 MB ({memory(worker.pid):.0f})", memory(worker.pid) <= 150)
    arena.check(f"and flat ({grown:+.1f} MB)", grown <= 8)
    arena.may_wait = True


assert LedgerUnavailable
