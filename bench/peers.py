"""postier beside what a team would otherwise glue together, in one run on one machine.

    python bench/peers.py [--deliveries 3000] [--latency 400] [--rounds 3] [--peers postier,bullmq,...] [--json]

Peers are installed by name and version into .postier/peers (npm and pip) at the first run. Each round takes peer after
peer, so that a noisy minute hits all of them: `--deliveries` reset mails of about 12 kB published at once, until the
sink took every one; then, after a second of nothing and 20 mails of warm-up, `--latency` mails one at a time, 100 a
second, by a publisher that keeps its connection. Latency is the time until the publish call returned, and from just
before it until the sink accepted the mail, matched by Message-ID with the sink's log. Either may be 0.

Two worker processes each; postier 8 threads, BullMQ and Dramatiq 8 at a time per process, Celery one per process
(prefork). `bare` is a Redis stream, a loop and smtplib, with nothing that the others are for (retries, limits, dead
workers' mail, a status): the floor. CPU counts publisher, workers and Redis (AOF everysec for all), looking at the sink
is nobody's; a round ends with the last mail in the sink's log.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stage import TENANTS, SinkProcess, Stage, account, cpu_seconds
from throughput import latency, percentiles, postier_round

from postier.ledger.embedded import EmbeddedServer

HERE = Path(__file__).parent
APPS = HERE / "peers_apps"
FOLDER = HERE.parent / ".postier" / "peers"
NPM = ("bullmq@5", "nodemailer@7")
PIP = ("celery[redis]==5.5.3", "dramatiq[redis]==2.2.1")
PROCESSES = 2
RATIOS = ("per_second_ratio", "cpu_s_per_1000_ratio", "accepted_ms_p50_ratio", "accepted_ms_p99_ratio")
PEERS = ("postier", "bullmq", "dramatiq", "celery", "bare")


def install(peers: list[str]) -> None:
    """Bring the peers, once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if "bullmq" in peers and not (FOLDER / "node_modules" / "bullmq").exists():
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", *NPM], cwd=FOLDER, check=True)
    if {"celery", "dramatiq", "bare"} & set(peers) and not (FOLDER / "venv").exists():
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER / "venv")], check=True)
        subprocess.run([str(FOLDER / "venv/bin/python"), "-m", "pip", "install", "-q", *PIP], check=True)


def tree_cpu(pid: int) -> float:
    """CPU of a process and its living children."""
    total = cpu_seconds(pid)
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += sum(tree_cpu(int(child)) for child in (task / "children").read_text().split())
    return total


class Peer:
    """A queue of somebody else's: how it is published to and worked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = FOLDER / "redis" / f"{name}-{os.getpid()}"
        self.sink = SinkProcess()
        self.redis = EmbeddedServer(self.folder, fsync="everysec").start()
        self.environment = {
            **os.environ, "REDIS_PORT": str(self.redis.port), "SMTP_PORT": str(self.sink.port), "CONCURRENCY": "8",
            "FOLDER": str(FOLDER), "PYTHONPATH": str(APPS),
        }  # fmt: skip
        python = str(FOLDER / "venv/bin/python")
        publish, work = {
            "bullmq": (
                ["node", str(APPS / "bullmq.mjs"), "publish"],
                [["node", str(APPS / "bullmq.mjs"), "work"]] * PROCESSES,
            ),
            "dramatiq": (
                [python, str(APPS / "dramatiq_app.py")],
                [[python, "-m", "dramatiq", "dramatiq_app", "--processes", str(PROCESSES), "--threads", "8"]],
            ),
            "celery": (
                [python, str(APPS / "celery_app.py")],
                [[python, "-m", "celery", "-A", "celery_app", "worker", "-c", str(PROCESSES), "-l", "ERROR"]],
            ),
            "bare": (
                [python, str(APPS / "bare_app.py")],
                [[python, str(APPS / "bare_app.py"), "work"]] * PROCESSES,
            ),
        }[name]
        quiet = subprocess.DEVNULL
        self.workers: list[subprocess.Popen[bytes]] = [
            subprocess.Popen(command, cwd=APPS, env=self.environment, stdout=quiet, stderr=quiet) for command in work
        ]
        self.publisher = subprocess.Popen(
            publish, cwd=APPS, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.rate(50)

    def rate(self, count: int) -> dict[str, float]:
        """Publish and deliver `count` mails at once."""
        had, before, began = self.sink.count(), self._cpu(), time.time()
        self._publish("burst", count)
        took = self.sink.took(had + count, 120) - began
        return {"per_second": count / took, "cpu_s_per_1000": (self._cpu() - before) / count * 1000}

    def latency(self, count: int) -> tuple[list[float], list[float]]:
        """What `throughput.latency` measures of postier."""
        had = self.sink.count()
        published = self._publish("pace", count)
        self.sink.took(had + count, 120)
        came = {message_id: at for at, _, message_id in reversed(self.sink.log())}
        epoch = time.time() - time.monotonic()
        return (
            [took * 1000 for _, _, took in published],
            [(came[message_id] - epoch - began) * 1000 for message_id, began, _ in published],
        )

    def _publish(self, verb: str, count: int) -> list[tuple[str, float, float]]:
        assert self.publisher.stdin is not None
        assert self.publisher.stdout is not None
        self.publisher.stdin.write(f"{verb} {count}\n")
        self.publisher.stdin.flush()
        return [tuple(row) for row in json.loads(self.publisher.stdout.readline())]

    def _cpu(self) -> float:
        assert self.redis.pid is not None
        mine = [self.publisher.pid, *(worker.pid for worker in self.workers)]
        return sum(tree_cpu(pid) for pid in mine) + cpu_seconds(self.redis.pid)

    def close(self) -> None:
        """End everything."""
        for process in (self.publisher, *self.workers):
            process.terminate()
        for worker in (self.publisher, *self.workers):
            try:
                worker.wait(timeout=20)
            except subprocess.TimeoutExpired:
                worker.kill()
        self.redis.stop()
        self.sink.stop()


class Ours:
    """postier, everything on."""

    def __init__(self) -> None:
        self.stage = Stage('default_account = "main"\n' + account("main") + TENANTS, processes=PROCESSES)
        self.rate(50)

    def rate(self, count: int) -> dict[str, float]:
        """Publish and deliver `count` events at once."""
        row = postier_round(self.stage, count)
        return {"per_second": row["deliveries_per_second"], "cpu_s_per_1000": row["cpu_s_per_1000"]}

    def latency(self, count: int) -> tuple[list[float], list[float]]:
        """Publish `count` events one at a time; this process is the publisher, and idle but for that."""
        return latency(self.stage, count)

    def close(self) -> None:
        """End everything."""
        self.stage.close()


@contextmanager
def contestant(name: str) -> Iterator[Ours | Peer]:
    made: Ours | Peer = Ours() if name == "postier" else Peer(name)
    try:
        yield made
    finally:
        made.close()


def measured(running: Ours | Peer, deliveries: int, paced: int) -> dict[str, float]:
    """One round of one peer."""
    row: dict[str, float] = {"load": os.getloadavg()[0]}
    if deliveries:
        row |= running.rate(deliveries)
    if paced:
        time.sleep(1)
        running.latency(20)
        returned, accepted = running.latency(paced)
        row |= {f"publish_ms_{name}": value for name, value in percentiles(returned).items()}
        row |= {f"accepted_ms_{name}": value for name, value in percentiles(accepted).items()}
    return row


def compared(row: dict[str, float], ours: dict[str, float]) -> dict[str, float]:
    """A peer's medians, and how many times better postier's are."""
    found = {key: round(value, 3) for key, value in row.items()}
    for key in row.keys() - {"load"}:
        ratio = ours[key] / row[key] if key == "per_second" else row[key] / ours[key]
        found[f"{key}_ratio"] = round(ratio, 2)
    return found


def line(row: dict[str, float]) -> str:
    """The row as a person reads it."""
    said = [f"load {row['load']:4.1f}"]
    if "per_second" in row:
        said.append(f"{row['per_second']:6.0f}/s {row['cpu_s_per_1000']:5.2f} CPU s/1000")
    for key, name in (("publish_ms", "publish"), ("accepted_ms", "to accepted")):
        if f"{key}_p50" in row:
            said.append(f"{name} {row[f'{key}_p50']:6.2f} / {row[f'{key}_p99']:7.2f} ms")
    return " | ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=3000)
    parser.add_argument("--latency", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    peers = options.peers.split(",")
    install(peers)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in peers}
    for number in range(options.rounds):
        for name in peers:
            with contestant(name) as running:
                rows[name].append(measured(running, options.deliveries, options.latency))
            if not options.json:
                print(f"round {number + 1} {name:9} {line(rows[name][-1])}", flush=True)
    medians = {
        name: {key: statistics.median(row[key] for row in found) for key in found[0]} for name, found in rows.items()
    }
    if options.json:
        ours = medians.get("postier")
        print(json.dumps({name: compared(row, ours) if ours else row for name, row in medians.items()}))
        return
    print("medians; in brackets how many times better postier is: rate, CPU, p50 and p99 to accepted")
    for name, row in medians.items():
        found = compared(row, medians["postier"]) if "postier" in medians else {}
        ratios = (f"{found[key]:.2f}x" for key in RATIOS if key in found)
        print(f"{name:9} {line(row)} | ({', '.join(ratios)})")


if __name__ == "__main__":
    main()
