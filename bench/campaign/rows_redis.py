"""F10–F19: Redis dies, stalls, is cut off, fails over, or is full."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import redis as client_library

from campaign.audit import inconsistencies
from campaign.kit import Arena, console, data_change, eventually, reset_link, row, smtp
from campaign.server import slowly
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.store import Store
from postier.schemas.errors import LedgerUnavailable

PUBLISH_BOUND = 5.0


def outages(arena: Arena, fsync: str, *aways: float) -> None:
    """Redis is killed in mid-run and away for a while, several times; mail flows before, between and after."""
    server = arena.server(DOT=slowly(0.01))
    redis = arena.redis(fsync=fsync)
    arena.house(redis.url, main=smtp(server.port))
    worker = arena.worker()
    stream = arena.stream(50)
    for away in aways:
        before = len(server.log)
        eventually(lambda before=before: len(server.log) >= before + 30, 20)  # type: ignore[misc]
        redis.kill()
        time.sleep(away)
        redis.start()
        back = time.time()
        eventually(lambda back=back: arena.first_copy(back) is not None, 30)  # type: ignore[misc]
        arena.recovered(arena.first_copy(back) or 99.0, 15)
        if arena.recovery == 99.0:
            arena.notes.append(arena.last_error)
        time.sleep(0.5)
    stream.end()
    worst = max((seconds for _, seconds, _ in stream.trouble), default=0.0)
    arena.check(f"publish answers an error <= 5 s ({worst:.2f} s)", stream.trouble and worst <= PUBLISH_BOUND)
    arena.all_sent(3 * arena.lease + 20)
    # A send in flight whose verdict could not be written may be on the wire once more; the ledger must say unknown.
    arena.allowed_extra = min(4 * len(aways), arena.unknowns())
    arena.check("the worker lives", worker.poll() is None)


@row(
    "F10",
    "kill -9 Redis, AOF always, away 1/45/300 s",
    "L 0, D <= 1 per send in flight; back <= 15 s, publish errors <= 5 s",
)
def killed_always(arena: Arena) -> None:
    outages(arena, "always", 1, arena.scaled(45, 6), arena.scaled(300, 12))


@row("F11", "kill -9 Redis, AOF everysec", "L 0 for a process kill")
def killed_everysec(arena: Arena) -> None:
    outages(arena, "everysec", 2)


def newest_log(redis: EmbeddedServer) -> Path:
    """The append-only file that grows."""
    return max(redis.folder.glob("appendonlydir/*.incr.aof"), key=lambda path: path.stat().st_mtime)


@row(
    "F12",
    "power cut: the AOF cut back to its size 2 s ago (everysec)",
    "only the last 2 s of accepts gone; D <= sends forgotten",
)
def power_cut(arena: Arena) -> None:
    server = arena.server()
    redis = arena.redis(fsync="everysec")
    arena.house(redis.url, main=smtp(server.port))
    arena.worker()
    stream = arena.stream(40)
    time.sleep(2.0)
    at = time.time()
    # While it syncs it may keep what it accepted to itself: that is no loss of the cut.
    eventually(lambda: arena.home.store.redis.info("persistence")["aof_buffer_length"] == 0, 20)
    size = newest_log(redis).stat().st_size
    time.sleep(2.0)
    redis.kill()
    stream.end()
    os.truncate(newest_log(redis), size)
    redis.start()
    gone = [one for one, state in arena.states().items() if not state]
    arena.check("gone are accepts of the last 2 s alone", all(arena.accepted[one] >= at - 0.05 for one in gone))
    forgotten = {one for one, state in arena.states().items() if state != "sent" and arena.copies()[one]}
    arena.notes.append(f"{len(gone)} event ids to publish again, {len(forgotten)} sends forgotten by the ledger")
    arena.drop(gone)
    repeated = arena.publish(*(reset_link() for _ in gone))
    arena.all_sent(3 * arena.lease + 20)
    arena.check("publishers repeat what is gone", arena.count(repeated) == ({"sent": len(gone)} if gone else {}))
    arena.forgive(forgotten)
    arena.check("0 inconsistencies", not inconsistencies(arena.home.store))
    told = eventually(lambda: "ledger.went_back" in arena.log(), 10)
    arena.check("a worker says that the ledger went back", told or not gone)


def tear(arena: Arena, redis: EmbeddedServer, most: int) -> list[str]:
    """Cut the last octets off, start again; what must hold then, and which accepted deliveries are gone."""
    log = newest_log(redis)
    os.truncate(log, log.stat().st_size - arena.random.randint(3, most))
    redis.start()
    said = (redis.folder / "server.log").read_text("utf-8", "replace")
    arena.check("Redis dropped a torn tail", "runcat" in said)
    found = inconsistencies(arena.home.store)
    arena.check(f"0 inconsistencies {found[:3]}", not found)
    report = doctor(arena, "--indexes")
    arena.check(f"the doctor finds the same ({report[-200:]})", "wrong" not in report and "Traceback" not in report)
    return [one for one, state in arena.states().items() if not state]


@row("F13", "AOF tail torn in mid record", "Redis starts with the tail dropped, the doctor finds 0 inconsistencies")
def torn(arena: Arena) -> None:
    server = arena.server()
    redis = arena.redis(fsync="always")
    arena.house(redis.url, main=smtp(server.port))
    worker = arena.worker()
    stream = arena.stream(60)
    time.sleep(1.5)
    redis.kill()
    stream.end()
    worker.kill()
    gone = tear(arena, redis, 400)  # in mid traffic: a settlement or a claim
    arena.check(f"a torn tail is a write or two ({len(gone)})", len(gone) <= 3)
    arena.drop(gone)
    last = arena.publish(*(data_change() for _ in range(3)))
    redis.kill()
    gone = tear(arena, redis, 300)  # nobody else writes: the last accept
    arena.check(f"the torn accept is gone as a whole, and nothing else ({len(gone)})", gone == last[-1:])
    arena.drop(gone)
    forgotten = [one for one, state in arena.states().items() if state != "sent" and arena.copies()[one]]
    arena.check(f"a write or two of sends forgotten ({len(forgotten)})", len(forgotten) <= 8)
    arena.forgive(forgotten)
    arena.worker(machine="two")
    arena.all_sent(3 * arena.lease + 20)


@row("F14", "maxmemory hit by publishers", "publish refused at 75 %; draining goes on; L 0; back without hands")
def publishers_fill(arena: Arena) -> None:
    server = arena.server()
    redis = arena.redis(fsync="everysec", maxmemory="12mb")
    arena.house(redis.url, main=smtp(server.port))
    refused = 0
    while refused < 3:
        try:
            arena.burst(100, data_change)
        except LedgerUnavailable as error:
            refused += 1
            assert error.retry_after
            time.sleep(0.6)
    info = arena.home.store.redis.info("memory")
    share = info["used_memory"] / info["maxmemory"]
    # The refused batch was in memory itself while the ledger looked: a hundredth of so small a server.
    arena.check(f"refused at 75 % ({share:.1%})", 0.72 <= share < 0.85)
    arena.worker()
    arena.all_sent(90)
    back = time.time()

    def accepted() -> bool:
        try:
            return bool(arena.burst(1, data_change))
        except LedgerUnavailable:
            return False

    arena.check("publishing goes on without hands <= 15 s", eventually(accepted, 15))
    arena.notes.append(f"accepted again {time.time() - back:.1f} s after the last mail")
    arena.all_sent(10)


def fill(redis: EmbeddedServer) -> None:
    """Foreign data until Redis refuses more."""
    with client_library.Redis.from_url(redis.url) as foreign:
        for size in (1_000_000, 10_000, 500):
            try:
                for number in range(100_000):
                    foreign.set(f"foreign:{size}:{number}", b"x" * size)
            except client_library.ResponseError:
                continue


def empty(redis: EmbeddedServer) -> None:
    """Take the foreign data away."""
    with client_library.Redis.from_url(redis.url) as foreign:
        for key in foreign.scan_iter("foreign:*", count=1000):
            foreign.delete(key)


def doctor(arena: Arena, *options: str) -> str:
    """What `postier doctor` prints."""
    return console(arena, "doctor", *options)


@row("F15", "foreign data fills Redis to 100 %", "status `redis_full` <= 10 s; no loss; resumes <= 15 s after room")
def foreign_data(arena: Arena) -> None:
    server = arena.server(DOT=slowly(0.02))
    redis = arena.redis(fsync="always", maxmemory="32mb")
    arena.house(redis.url, main=smtp(server.port))
    worker = arena.worker()
    stream = arena.stream(40)
    eventually(lambda: len(server.log) >= 20, 20)
    fill(redis)
    full = time.time()
    arena.check("publishers are told", eventually(lambda: stream.trouble, 10))
    said = eventually(lambda: "redis_full" in arena.log(), 15)
    took = time.time() - full
    arena.check(f"status redis_full <= 10 s ({took:.1f} s)", said and took <= 10)
    arena.check("doctor says so", "redis_full" in doctor(arena))
    empty(redis)
    room = time.time()
    eventually(lambda: arena.first_copy(room + 0.2) is not None, 20)
    arena.recovered((arena.first_copy(room + 0.2) or 99.0) + 0.2, 15)
    stream.end()
    arena.all_sent(30)
    arena.check("the worker lives", worker.poll() is None)


@row("F16", "Redis SIGSTOP 30 s", "L 0, D <= unknowns in flight, 0 double publishes, no storm of lost leases")
def paused(arena: Arena) -> None:
    server = arena.server(DOT=slowly(0.02))
    redis = arena.redis(fsync="always")
    arena.house(redis.url, main=smtp(server.port))
    arena.worker()
    stream = arena.stream(50)
    eventually(lambda: len(server.log) >= 30, 20)
    assert redis.pid
    os.kill(redis.pid, signal.SIGSTOP)
    time.sleep(arena.scaled(30, 8))
    os.kill(redis.pid, signal.SIGCONT)
    back = time.time()
    eventually(lambda: arena.first_copy(back + 0.1) is not None, 30)
    arena.recovered((arena.first_copy(back + 0.1) or 99.0) + 0.1, 15)
    time.sleep(0.5)
    stream.end()
    arena.all_sent(3 * arena.lease + 20)
    arena.allowed_extra = min(4, arena.unknowns())
    records = sum(1 for _ in arena.home.store.redis.scan_iter(arena.home.store.key("delivery:*"), count=1000))
    arena.check(f"0 double publishes ({records} records)", records == len(arena.accepted))
    lost = sum(line["what"] in ("crashed", "unknown") for one in arena.accepted for line in arena.status(one).history)
    arena.check(f"no storm: {lost} leases lost", lost <= 4)


@row(
    "F17",
    "partition worker - Redis 60 s",
    "nothing starts once leases cannot be renewed (<= 20 s); D <= 1 per send past its body",
)
def worker_cut_off(arena: Arena) -> None:
    server = arena.server(DOT=slowly(0.05))
    redis = arena.redis(fsync="always")
    arena.house(redis.url, main=smtp(server.port))
    wire = arena.proxy(redis.port)
    arena.worker(url=f"redis://127.0.0.1:{wire.port}/0")
    ids = arena.burst(200)
    eventually(lambda: len(server.log) >= 20, 20)
    wire.hole()
    cut = time.time()
    length, stops = arena.scaled(60, 10), 20 if arena.full else arena.lease
    eventually(lambda: time.time() > cut + stops, stops + 1)
    before = len(server.log)
    eventually(lambda: time.time() > cut + stops + 2, 3)
    late = len(server.log) - before
    arena.check(f"nothing starts {stops:g} s after the cut ({late})", not late and before < len(ids))
    arena.worker(machine="two")  # on the other side of the partition
    went_on = eventually(lambda: len(server.log) > before, arena.taken_back_within)
    arena.check("the other worker goes on", went_on)
    eventually(lambda: time.time() > cut + length, length)
    wire.heal()
    arena.all_sent(arena.taken_back_within + 20)
    time.sleep(1.0)
    arena.allowed_extra = arena.unknowns()


@row("F18", "partition publisher - Redis", "typed error <= 5 s; nothing blocks for ever")
def publisher_cut_off(arena: Arena) -> None:
    server = arena.server()
    redis = arena.redis(fsync="always")
    arena.house(redis.url, main=smtp(server.port))
    arena.worker()
    wire = arena.proxy(redis.port)
    client = arena.publisher_at(f"redis://127.0.0.1:{wire.port}/0")
    stream = arena.stream(20, client=client)
    eventually(lambda: len(server.log) >= 10, 20)
    wire.hole()
    time.sleep(arena.scaled(30, 12))
    wire.heal()
    back = time.time()
    eventually(lambda: arena.first_copy(back) is not None, 15)
    arena.recovered(arena.first_copy(back) or 99.0, 15)
    stream.end()
    worst = max((seconds for _, seconds, _ in stream.trouble), default=0.0)
    arena.check(f"typed errors <= 5 s ({worst:.2f} s)", stream.trouble and worst <= PUBLISH_BOUND)
    arena.check("errors are LedgerUnavailable", {name for _, _, name in stream.trouble} == {"LedgerUnavailable"})
    arena.all_sent(20)


@row(
    "F19", "failover to a replica that lags", "loss bounded by the lag; sends the ledger forgot are shown; never silent"
)
def failover(arena: Arena) -> None:
    server = arena.server()
    main, spare = arena.redis(fsync="always"), arena.redis(fsync="always")
    replica = client_library.Redis.from_url(spare.url)
    link = arena.proxy(main.port)
    replica.execute_command("REPLICAOF", "127.0.0.1", link.port)
    arena.check(
        "the replica follows", eventually(lambda: replica.info("replication")["master_link_status"] == "up", 20)
    )
    front = arena.proxy(main.port)
    arena.house(f"redis://127.0.0.1:{front.port}/0", main=smtp(server.port))
    arena.worker()
    stream = arena.stream(40)
    time.sleep(1.5)
    lag = time.time()
    link.hole()
    time.sleep(arena.scaled(5, 1))
    main.kill()
    stream.end()
    replica.execute_command("REPLICAOF", "NO", "ONE")
    front.target = spare.port
    front.cut()
    arena.home.store = Store(arena.home.settings.redis_url, namespace="faults", timeout=2.0)
    arena.home.queries._store, arena.home.queries._redis = arena.home.store, arena.home.store.redis
    gone = [one for one, state in arena.states().items() if not state]
    arena.check("gone is what was accepted within the lag", all(arena.accepted[one] >= lag - 0.5 for one in gone))
    silent = [one for one in gone if arena.copies()[one]]
    forgotten = [one for one, state in arena.states().items() if state and state != "sent" and arena.copies()[one]]
    arena.notes.append(f"{len(gone)} accepts gone, {len(silent)} of them on the wire, {len(forgotten)} sends forgotten")
    back = time.time()
    more = arena.publish(*(reset_link() for _ in range(5)))
    arena.check("mail flows again", eventually(lambda: arena.copies()[more[-1]] > 0, 15))
    words = eventually(lambda: "ledger.went_back" in arena.log(), 10)
    arena.check("the worker says that the ledger forgot", words or not silent)
    arena.drop(gone)
    arena.all_sent(3 * arena.lease + 20)
    arena.forgive(forgotten)
    arena.recovered((arena.first_copy(back, more) or 99.0), 15)
