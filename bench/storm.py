"""Does a provider that comes back get its backlog at its limit, or all at once?

    python bench/storm.py [--waiting 1000] [--away 60] [--limit 20] [--connections 4] [--processes 2]

`--waiting` deliveries are published for a server that refuses connections for `--away` seconds and then returns. Prints
the most mails in any second, the most connections, and how long the backlog took from the return and from the first
mail, beside the time the limit allows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

from isolation import most_in_a_second
from stage import HERE, TENANTS, SinkProcess, account, reset_link, stage, wait_until

from postier.ledger.embedded import free_port


class LateSink(SinkProcess):
    """A sink on a port that was known before it listened."""

    def __init__(self, port: int) -> None:
        self.port = port
        command = [sys.executable, str(HERE / "sink.py"), str(port), "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, default=1000)
    parser.add_argument("--away", type=float, default=60)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    port = free_port()
    limits = f"per_second = {options.limit}, max_connections = {options.connections}"
    accounts = account("main", limits=limits, port=str(port)) + account("other") + TENANTS
    with stage(accounts, processes=options.processes) as play:
        for start in range(0, options.waiting, 200):
            count = min(200, options.waiting - start)
            play.client.publish_many([reset_link(start + i) for i in range(count)], tenant="school", account="main")
        time.sleep(options.away)
        sink, back = LateSink(port), time.time()
        try:
            allowed = options.waiting / options.limit
            wait_until(lambda: sink.count() >= options.waiting, 3 * allowed + 400, "the backlog to be gone")
            times = sorted(at for at, _, _ in sink.log())
            result = {
                "waiting": options.waiting,
                "away_s": options.away,
                "limit_per_second": options.limit,
                "most_in_any_second": most_in_a_second(times),
                "connections_cap": options.connections,
                "most_connections": sink.most_open(),
                "allowed_s": round(allowed, 1),
                "drained_s_after_first_mail": round(times[-1] - times[0], 1),
                "drained_95_percent_s_after_first_mail": round(times[int(0.95 * len(times))] - times[0], 1),
                "first_mail_s_after_return": round(times[0] - back, 1),
                "copies": len(times),
            }
        finally:
            sink.stop()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
