"""Do accounts at their limits cost the others anything, and does the ledger stay flat however much waits?

    python bench/fairness.py [--deliveries 10000] [--processes 2] [--threads 8] [--healthy 40] [--seconds 20] [--full]

Three limited accounts (20/s; 600/min; 500 an hour over 2 connections) get `--deliveries` together; 40 healthy ones
then get reset links, 40 a second. The same stream runs first on the idle system. Prints the excess over any cap,
latency from publish to the SMTP server, CPU while everything waits, publish p99 at the backlog, urgent p95 behind the
backlog's own bulk, and the time and memory a delivery costs at growing backlogs. `--full` is 100,000 deliveries,
8 processes, and backlogs up to 1,000,000 (needs about 3 GB).
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from typing import Any

from isolation import most_in_a_second
from stage import TENANTS, Stage, account, percentile, reset_link, stage

from postier.client import DataChange, Recipient
from postier.ledger.store import Store
from postier.schemas.events import Entity
from postier.schemas.events.data_change import Change

LIMITED = {
    "persecond": ("per_second = 20", 1.0, 20),
    "perminute": ("per_minute = 600", 60.0, 600),
    "perhour": ("per_hour = 500, max_connections = 2", 3600.0, 500),
}


def change(number: int) -> DataChange:
    """A bulk mail."""
    return DataChange(
        subscription_id="marks", recipients=(Recipient(address=f"user{number}@example.com"),),
        entity=Entity(type="room", id="1", label="Room 1"), changed_at=datetime.now(UTC),
        changes=(Change(field="room", label="Room", old="A", new="B"),),
    )  # fmt: skip


def most_within(times: list[float], window: float) -> int:
    """The most events in any window of so many seconds."""
    return most_in_a_second([at / window for at in times])


def fill(play: Stage, name: str, count: int, base: int = 0) -> list[float]:
    """Publish bulk mail in batches of 200; seconds per batch."""
    took = []
    for start in range(0, count, 200):
        events = [change(base + start + i) for i in range(min(200, count - start))]
        at = time.perf_counter()
        play.client.publish_many(events, tenant="school", account=name)
        took.append(time.perf_counter() - at)
    return took


def stream(play: Stage, seconds: float, healthy: int, per_second: float = 40.0) -> tuple[list[float], list[float]]:
    """Reset links round all healthy accounts: ms from publish to the server, ms a publish took."""
    published: dict[str, float] = {}
    publishing: list[float] = []
    began = time.time()
    for number in range(int(seconds * per_second)):
        time.sleep(max(0.0, began + number / per_second - time.time()))
        at = time.time()
        name = f"healthy{number % healthy}"
        answer = play.client.publish(reset_link(number), tenant="school", account=name)
        publishing.append((time.time() - at) * 1000)
        published[answer.deliveries[0]] = at
    time.sleep(1.0)
    arrived = {message.strip("<>").split("@")[0]: at for at, _, message in play.sink.log()}
    return [(arrived.get(key, at + 3600) - at) * 1000 for key, at in published.items()], publishing


def measure(play: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Idle, then the same stream beside the backlog."""
    stream(play, 5, options.healthy)
    idle, _ = stream(play, options.seconds, options.healthy)
    each = options.deliveries // 3
    for number, name in enumerate(LIMITED):
        fill(play, name, each, number * each)
    store = Store(play.redis.url)
    for verb in ("pause", "resume"):
        for name in LIMITED:
            store.run("manage", (verb, name, "bench"))
        if verb == "pause":
            time.sleep(5)
            before, began = play.cpu(), time.monotonic()
            time.sleep(10)
            after, waited = play.cpu(), time.monotonic() - began
    store.close()
    busy, publishing = stream(play, options.seconds, options.healthy)
    urgent = {}
    for number in range(20):
        answer = play.client.publish(reset_link(number), tenant="school", account="persecond")
        urgent[answer.deliveries[0]] = time.time()
        time.sleep(0.2)
    time.sleep(2)
    log = play.sink.log()
    arrived = {message.strip("<>").split("@")[0]: at for at, _, message in log}
    behind = [arrived.get(key, at + 3600) - at for key, at in urgent.items()]
    excess = {
        name: max(0, most_within([at for at, sender, _ in log if sender.startswith(name)], window) - most)
        for name, (_, window, most) in LIMITED.items()
    }
    return {
        "waiting": each * 3,
        "excess_over_any_cap": excess,
        "sent_by_limited": {name: sum(sender.startswith(name) for _, sender, _ in log) for name in LIMITED},
        "idle_ms": _spread(idle),
        "healthy_ms": _spread(busy),
        "urgent_behind_own_bulk_p95_s": round(percentile(behind, 0.95), 2),
        "publish_ms": _spread(publishing),
        "cpu_percent_while_waiting": {
            name: round(100 * (after[name] - before[name]) / waited, 2) for name in ("workers", "redis")
        },
    }


def growth(play: Stage, sizes: list[int]) -> list[dict[str, float]]:
    """What a delivery costs at growing backlogs of a slow account: publishing, one claim, memory."""
    store = Store(play.redis.url)
    rows, there = [], 0
    for size in sizes:
        used = store.redis.info("memory")["used_memory"]
        took = fill(play, "slow", size - there, there)
        singles = []
        for number in range(200):
            at = time.perf_counter()
            play.client.publish(change(number), tenant="school", account="slow")
            singles.append((time.perf_counter() - at) * 1000)
        grown = store.redis.info("memory")["used_memory"] - used
        rows.append({
            "waiting": size,
            "publish_us_each": round(1e6 * sum(took[-20:]) / (200 * len(took[-20:])), 1),
            "publish_p99_ms": round(percentile(singles, 0.99), 2),
            "claim_us": round(claim_cost(store), 1),
            "bytes_each": round(grown / (size - there + 200)),
        })  # fmt: skip
        there = size
        print(json.dumps(rows[-1]), flush=True)
    store.close()
    return rows


def claim_cost(store: Store, seconds: float = 5.0) -> float:
    """Microseconds of Redis time a script call takes now, over all that workers do."""

    def scripts() -> tuple[int, int]:
        stats = store.redis.info("commandstats")["cmdstat_evalsha"]
        return stats["calls"], stats["usec"]

    before = scripts()
    time.sleep(seconds)
    after = scripts()
    return (after[1] - before[1]) / max(1, after[0] - before[0])


def _spread(values: list[float]) -> dict[str, float]:
    return {"p50": round(percentile(values, 0.5), 2), "p99": round(percentile(values, 0.99), 2),
            "max": round(max(values), 2)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--healthy", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--sizes", default="1000,10000,50000")
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    if options.full:
        options.deliveries, options.processes, options.sizes = 100_000, 8, "1000,10000,100000,1000000"
    accounts = "".join(account(name, limits=limits) for name, (limits, _, _) in LIMITED.items())
    accounts += "".join(account(f"healthy{number}") for number in range(options.healthy))
    accounts += account("slow", limits="per_minute = 6") + TENANTS
    with stage(accounts, processes=options.processes, threads=options.threads, maxmemory="6gb") as play:
        result = measure(play, options)
        result["growth"] = growth(play, [int(size) for size in options.sizes.split(",")])
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
