"""How fast and at what price events become delivered mail, beside a plain smtplib loop in the same run.

    python bench/throughput.py [--deliveries 10000] [--processes 1] [--threads 8] [--rounds 3] [--fsync everysec]
                               [--waiting 0] [--delay 0] [--connections 0]

Each round publishes N reset links, waits until an SMTP sink on loopback took them all, and then sends N ready-made
mails through smtplib over one reused connection. CPU counts publisher (making the events too), workers and Redis; the
sink, looking whether it has them all and the loop's own rendering are left out. A round ends when the sink took its
last mail, by the sink's log. Latency is measured apart, one event at a time, 100 a second: of publishing, and from
publishing to the server's acceptance.

`--waiting` fills the ledger first, with deliveries of an account that is paused. `--delay` is a distant server: every
reply takes so many seconds; `--connections` is how many the account may have there.
"""

from __future__ import annotations

import argparse
import json
import smtplib
import statistics
import time
from typing import Any

from stage import TENANTS, Stage, account, peak_memory, percentile, reset_link, stage

from postier.ledger.manage import Management


def postier_round(play: Stage, count: int) -> dict[str, float]:
    """Publish and deliver `count` events."""
    had, before, began = play.sink.count(), play.cpu(), time.time()
    for start in range(0, count, 100):
        play.client.publish_many([reset_link(start + i) for i in range(min(100, count - start))], tenant="school")
    published = time.time() - began
    took = play.took(had + count, 300) - began
    after = play.cpu()
    spent = {name: (after[name] - before[name]) / count * 1000 for name in after}
    return {
        "deliveries_per_second": count / took,
        "published_per_second": count / published,
        "cpu_s_per_1000": sum(spent.values()),
        **{f"cpu_s_per_1000_{name}": value for name, value in spent.items()},
    }


def smtplib_round(play: Stage, count: int) -> dict[str, float]:
    """Send `count` copies of one ready-made mail with the standard library."""
    mail = b"From: a@example.org\r\nTo: b@example.com\r\nSubject: hello\r\n\r\n" + b"x" * 70 + b"\r\n" * 1
    mail += (b"y" * 70 + b"\r\n") * 160
    began, spent = time.monotonic(), time.process_time()
    with smtplib.SMTP("127.0.0.1", play.sink.port) as line:
        line.ehlo()
        for _ in range(count):
            line.sendmail("a@example.org", ["b@example.com"], mail)
    took = time.monotonic() - began
    return {"per_second": count / took, "cpu_s_per_1000": (time.process_time() - spent) / count * 1000}


def latency(play: Stage, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds until publish answers, and until the server has the mail, at 100 events a second."""
    answered, published, had = [], {}, play.sink.count()
    for number in range(count):
        at, began = time.time(), time.perf_counter()
        answer = play.client.publish(reset_link(number), tenant="school")
        answered.append((time.perf_counter() - began) * 1000)
        published[answer.deliveries[0]] = at
        time.sleep(max(0.0, 0.01 - answered[-1] / 1000))
    play.took(had + count, 30)
    came = {message_id.strip("<>").split("@")[0]: at for at, _, message_id in reversed(play.sink.log())}
    return answered, [(came[one] - at) * 1000 for one, at in published.items()]


def fill(play: Stage, count: int) -> None:
    """Deliveries that wait for an account that is paused."""
    Management(play.client._store, who="bench").pause("asleep")
    for start in range(0, count, 200):
        events = [reset_link(start + number) for number in range(min(200, count - start))]
        play.client.publish_many(events, tenant="school", account="asleep")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fsync", choices=["always", "everysec", "no"], default="everysec")
    parser.add_argument("--waiting", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--connections", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    limits = f"max_connections = {options.connections}" if options.connections else ""
    accounts = 'default_account = "main"\n' + account("main", limits=limits) + account("asleep") + TENANTS
    settings: dict[str, Any] = {"processes": options.processes, "threads": options.threads, "fsync": options.fsync}
    with stage(accounts, **settings, delay=options.delay, maxmemory="8gb") as play:
        ours, theirs = [], []
        if options.waiting:
            fill(play, options.waiting)
        postier_round(play, 500)
        for number in range(options.rounds):
            ours.append(postier_round(play, options.deliveries))
            theirs.append(smtplib_round(play, options.deliveries if not options.delay else 20))
            if not options.json:
                print(f"round {number + 1}: {_short(ours[-1])} | smtplib {_short(theirs[-1])}", flush=True)
        answered, accepted = latency(play, 500)
        memory = {f"worker_{i}": round(peak_memory(worker.pid), 1) for i, worker in enumerate(play.workers)}
    median = {key: round(statistics.median(row[key] for row in ours), 3) for key in ours[0]}
    loop = {key: round(statistics.median(row[key] for row in theirs), 3) for key in theirs[0]}
    result: dict[str, Any] = {
        "deliveries": options.deliveries,
        "rounds": options.rounds,
        "fsync": options.fsync,
        "waiting": options.waiting,
        "delay": options.delay,
        "postier": median,
        "spread_cpu_s_per_1000": [
            round(min(r["cpu_s_per_1000"] for r in ours), 3),
            round(max(r["cpu_s_per_1000"] for r in ours), 3),
        ],
        "smtplib_loop": loop,
        "cpu_ratio_to_smtplib": round(median["cpu_s_per_1000"] / loop["cpu_s_per_1000"], 2),
        "publish_ms": percentiles(answered),
        "publish_to_accepted_ms": percentiles(accepted),
        "peak_memory_mb": memory,
    }
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))


def percentiles(times: list[float]) -> dict[str, float]:
    """p50 and p99."""
    return {f"p{share * 100:.0f}": round(percentile(times, share), 2) for share in (0.5, 0.99)}


def _short(row: dict[str, float]) -> str:
    return ", ".join(
        f"{key} {value:.2f}"
        for key, value in row.items()
        if key in ("deliveries_per_second", "per_second", "cpu_s_per_1000")
    )


if __name__ == "__main__":
    main()
