"""What do servers that accept and never greet cost the accounts beside them?

    python bench/hanging.py [--accounts 40] [--mails 20] [--seconds 30] [--processes 2] [--threads 8]

Half of the accounts hang. The healthy half gets reset links, 20 a second, first alone; then, with new worker processes
and accounts that never sent before, the hanging half gets `--mails` each at the moment the same stream begins again.
Prints latency from publish to the SMTP server in both.
"""

from __future__ import annotations

import argparse
import json
import socket
import threading
import time

from stage import TENANTS, Stage, account, percentile, reset_link, stage, wait_until

from postier.ledger.store import Store


def hang() -> int:
    """A server that accepts, holds on and never says a word; its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            held.append(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


def stream(play: Stage, seconds: float, healthy: int, per_second: float = 20.0) -> list[float]:
    """Reset links round the healthy accounts: seconds from publish to the server."""
    published: dict[str, float] = {}
    began = time.time()
    for number in range(int(seconds * per_second)):
        time.sleep(max(0.0, began + number / per_second - time.time()))
        at = time.time()
        answer = play.client.publish(reset_link(number), tenant="school", account=f"healthy{number % healthy}")
        published[answer.deliveries[0]] = at
    time.sleep(2.0)
    arrived = {message.strip("<>").split("@")[0]: at for at, _, message in play.sink.log()}
    return [arrived.get(key, at + 3600) - at for key, at in published.items()]


def restart(play: Stage) -> None:
    """New worker processes instead of those there are, and wait until they look for mail."""
    count = len(play.workers)
    for worker in play.workers:
        worker.terminate()
        worker.wait(30)
    play.workers.clear()
    store = Store(play.redis.url)
    store.redis.delete(store.key("workers"))
    for _ in range(count):
        play.start_worker()
    wait_until(lambda: store.redis.zcard(store.key("workers")) == count, 30, "the new workers")
    time.sleep(2)
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=40)
    parser.add_argument("--mails", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    half, port = options.accounts // 2, str(hang())
    accounts = "".join(account(f"healthy{number}") for number in range(half))
    accounts += "".join(account(f"hanging{number}", port=port) for number in range(half)) + TENANTS
    with stage(accounts, processes=options.processes, threads=options.threads) as play:
        stream(play, 5, half)
        idle = stream(play, options.seconds, half)
        restart(play)
        for number in range(half):
            play.client.publish_many(
                [reset_link(i) for i in range(options.mails)], tenant="school", account=f"hanging{number}"
            )
        beside = stream(play, options.seconds, half)
    result = {
        name: {
            "p50_ms": round(1000 * percentile(took, 0.5), 1), "p95_ms": round(1000 * percentile(took, 0.95), 1),
            "p99_ms": round(1000 * percentile(took, 0.99), 1), "max_ms": round(1000 * max(took), 1),
        }
        for name, took in (("idle", idle), ("beside_hanging", beside))
    }  # fmt: skip
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
