"""Does a throttled account hold another one back?

    python bench/isolation.py [--waiting 20000] [--seconds 20] [--processes 2] [--json]

`--waiting` deliveries of an account limited to 20/s are published first; then another account's reset links at 20/s.
Prints how long those took from publish to the SMTP server, the limited account's most mails in any second, and the CPU
used while it waits.
"""

from __future__ import annotations

import argparse
import json
import time

from stage import TENANTS, account, percentile, reset_link, stage

LIMIT = 20


def most_in_a_second(times: list[float]) -> int:
    """The most events in any window of one second."""
    times = sorted(times)
    most = start = 0
    for end, at in enumerate(times):
        while at - times[start] >= 1.0:
            start += 1
        most = max(most, end - start + 1)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    accounts = account("slow", limits=f"per_second = {LIMIT}") + account("quick") + TENANTS
    with stage(accounts, processes=options.processes) as play:
        for start in range(0, options.waiting, 200):
            count = min(200, options.waiting - start)
            play.client.publish_many(
                [reset_link(start + number) for number in range(count)], tenant="school", account="slow"
            )
        before, began = play.cpu(), time.monotonic()
        time.sleep(min(5.0, options.seconds / 2))
        after, waited = play.cpu(), time.monotonic() - began
        published: dict[str, float] = {}
        for number in range(int(options.seconds * 20)):
            at = time.time()
            answer = play.client.publish(reset_link(1_000_000 + number), tenant="school", account="quick")
            published[answer.deliveries[0]] = at
            time.sleep(max(0.0, 0.05 - (time.time() - at)))
        time.sleep(1.0)
        log = play.sink.log()
        quick = [
            (at - published[message_id.strip("<>").split("@")[0]]) * 1000
            for at, sender, message_id in log
            if sender.startswith("quick")
        ]
        slow = [at for at, sender, _ in log if sender.startswith("slow")]
        result = {
            "waiting": options.waiting,
            "quick_sent": len(quick),
            "quick_published": len(published),
            "p50_ms": round(percentile(quick, 0.5), 2),
            "p99_ms": round(percentile(quick, 0.99), 2),
            "max_ms": round(max(quick), 2),
            "slow_sent": len(slow),
            "slow_per_second": round(len(slow) / (max(slow) - min(slow)), 2),
            "slow_most_in_any_second": most_in_a_second(slow),
            "cpu_percent_while_waiting": {
                name: round(100 * (after[name] - before[name]) / waited, 2) for name in ("workers", "redis")
            },
        }
    print(json.dumps(result) if options.json else "\n".join(f"{key}: {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
