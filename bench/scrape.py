"""What does one look of `postier metrics` cost, and does it grow with the ledger?

    python bench/scrape.py [--accounts 100] [--records 0,100000] [--looks 50] [--json]

Every account has limits of all kinds and mail in both lanes; 60 % of the records failed, in ten causes of three kinds
by every account. A look is what the page does when it is read: connect, ask, write the exposition. CPU of Redis is what
it says of itself (INFO), over all looks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from million import load
from prometheus_client import generate_latest

from postier.console.exposition import LedgerCollector
from postier.ledger.accounts import configure
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.store import Store
from postier.schemas.account import Registry
from postier.settings.config import Settings
from postier.settings.seal import Sealer

LIMITS = {"per_second": 20, "per_minute": 600, "per_hour": 10_000, "per_day": 100_000}
WAITING = 10


def fill_lanes(store: Store, accounts: list[str]) -> None:
    """Mail of an hour ago in every lane."""
    then = store.now() - 3600 * 1_000_000
    pipe = store.redis.pipeline(transaction=False)
    for name in accounts:
        for lane in "ub":
            for number in range(WAITING):
                identity = f"{name}-{lane}-{number}"
                pipe.hset(store.key(f"delivery:{identity}"), mapping={"state": "waiting", "accepted_at": then})
                pipe.rpush(store.key(f"lane:{name}:{lane}"), identity)
            pipe.zadd(store.key(f"due:{lane}"), {name: then})
    pipe.execute()


def redis_cpu(store: Store) -> tuple[float, int]:
    """Seconds of CPU it has used, and commands it has run."""
    cpu, stats = store.redis.info("cpu"), store.redis.info("stats")
    return cpu["used_cpu_user"] + cpu["used_cpu_sys"], stats["total_commands_processed"]


def measure(accounts: int, records: int, looks: int) -> dict[str, Any]:
    """Fill a ledger, look at it."""
    with tempfile.TemporaryDirectory(prefix="postier-bench-") as name, EmbeddedServer(
        Path(name), fsync="no", maxmemory="4gb"
    ) as server:  # fmt: skip
        store = Store(server.url, timeout=30)
        names = [f"a{number:02}" for number in range(accounts)]
        sender = {"address": "post@example.org"}
        configure(store, Registry.model_validate({
            "accounts": {one: {"driver": "null", "sender": sender, "limits": LIMITS} for one in names},
            "tenants": {"school": {"allowed_hosts": ["app.example.org"]}},
        }))  # fmt: skip
        fill_lanes(store, names)
        load(store, records, 0.6, accounts, Sealer.from_text(Sealer.new_key()))
        collector = LedgerCollector(Settings(redis_url=server.url))
        generate_latest(collector)
        time.sleep(1)
        walls = []
        redis, commands = redis_cpu(store)
        own = time.process_time()
        for _ in range(looks):
            began = time.monotonic()
            text = generate_latest(collector)
            walls.append(time.monotonic() - began)
        own = time.process_time() - own
        after, ran = redis_cpu(store)
        groups = store.redis.hlen(store.key("groups"))
        store.close()
    return {
        "accounts": accounts, "records": records, "groups": groups,
        "wall_ms": {"min": round(min(walls) * 1e3, 1), "median": round(statistics.median(walls) * 1e3, 1)},
        "exporter_cpu_ms": round(own / looks * 1e3, 1), "redis_cpu_ms": round((after - redis) / looks * 1e3, 2),
        "commands": (ran - commands) // looks, "series": sum(not line.startswith(b"#") for line in text.splitlines()),
        "kB": round(len(text) / 1000),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=100)
    parser.add_argument("--records", default="0,100000", help="numbers of ended records, separated by commas")
    parser.add_argument("--looks", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for records in map(int, options.records.split(",")):
        row = measure(options.accounts, records, options.looks)
        if options.json:
            print(json.dumps(row))
            continue
        print(f"{row['accounts']} accounts, {row['records']} records, {row['groups']} groups of failures:")
        print(f"  a look: {row['wall_ms']['min']} ms at best, {row['wall_ms']['median']} ms mostly")
        print(
            f"  CPU: {row['exporter_cpu_ms']} ms here, {row['redis_cpu_ms']} ms of Redis for {row['commands']} commands"
        )
        print(f"  told: {row['series']} series, {row['kB']} kB")


if __name__ == "__main__":
    main()
