"""postier beside what a team would otherwise glue together, in one run on one machine.

    python bench/peers.py [--deliveries 3000] [--rounds 3] [--peers postier,bullmq,dramatiq,celery] [--json]

Peers are installed by name and version into .postier/peers (npm and pip) at the first run. Each round publishes N reset
mails of about 12 kB and waits until the sink took every one, peer after peer, so that a noisy minute hits all of them.
Two worker processes each; postier 8 threads, BullMQ and Dramatiq 8 at a time per process, Celery one per process
(prefork). CPU counts publisher, workers and Redis (AOF everysec for all); counts are verified at the sink.
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

from stage import TENANTS, SinkProcess, Stage, account, cpu_seconds, wait_until

from postier.ledger.embedded import EmbeddedServer

HERE = Path(__file__).parent
APPS = HERE / "peers_apps"
FOLDER = HERE.parent / ".postier" / "peers"
NPM = ("bullmq@5", "nodemailer@7")
PIP = ("celery[redis]==5.5.3", "dramatiq[redis]==2.2.1")
PROCESSES = 2


def install(peers: list[str]) -> None:
    """Bring the peers, once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if "bullmq" in peers and not (FOLDER / "node_modules" / "bullmq").exists():
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", *NPM], cwd=FOLDER, check=True)
    if {"celery", "dramatiq"} & set(peers) and not (FOLDER / "venv").exists():
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
            "bullmq": (["node", str(APPS / "bullmq.mjs"), "publish"], [["node", str(APPS / "bullmq.mjs"), "work"]] * 2),
            "dramatiq": (
                [python, str(APPS / "dramatiq_app.py")],
                [[python, "-m", "dramatiq", "dramatiq_app", "--processes", str(PROCESSES), "--threads", "8"]],
            ),
            "celery": (
                [python, str(APPS / "celery_app.py")],
                [[python, "-m", "celery", "-A", "celery_app", "worker", "-c", str(PROCESSES), "-l", "ERROR"]],
            ),
        }[name]
        quiet = subprocess.DEVNULL
        self.workers = [
            subprocess.Popen(command, cwd=APPS, env=self.environment, stdout=quiet, stderr=quiet) for command in work
        ]
        self.publisher = subprocess.Popen(
            publish, cwd=APPS, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.round(50)

    def round(self, count: int) -> dict[str, float]:
        """Publish and deliver `count` mails."""
        before, had, began = self._cpu(), self.sink.count(), time.monotonic()
        assert self.publisher.stdin is not None
        assert self.publisher.stdout is not None
        self.publisher.stdin.write(f"{count}\n")
        self.publisher.stdin.flush()
        self.publisher.stdout.readline()
        wait_until(lambda: self.sink.count() - had >= count, 120, f"{self.name} to deliver")
        took = time.monotonic() - began
        return {"per_second": count / took, "cpu_s_per_1000": (self._cpu() - before) / count * 1000}

    def _cpu(self) -> float:
        assert self.redis.pid is not None
        mine = [self.publisher, *self.workers]
        return sum(tree_cpu(process.pid) for process in mine) + cpu_seconds(self.redis.pid)

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
        self.round(50)

    def round(self, count: int) -> dict[str, float]:
        """Publish and deliver `count` events."""
        from throughput import postier_round

        row = postier_round(self.stage, count)
        return {"per_second": row["deliveries_per_second"], "cpu_s_per_1000": row["cpu_s_per_1000"]}

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="postier,bullmq,dramatiq,celery")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    peers = options.peers.split(",")
    install(peers)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in peers}
    for number in range(options.rounds):
        for name in peers:
            with contestant(name) as running:
                rows[name].append(running.round(options.deliveries))
            if not options.json:
                row = rows[name][-1]
                print(
                    f"round {number + 1} {name:9} {row['per_second']:8.0f}/s {row['cpu_s_per_1000']:6.2f} CPU s/1000",
                    flush=True,
                )
    medians = {
        name: {key: statistics.median(row[key] for row in found) for key in found[0]} for name, found in rows.items()
    }
    result = {
        name: {
            **{key: round(value, 3) for key, value in row.items()},
            "postier_rate_ratio": round(medians["postier"]["per_second"] / row["per_second"], 2),
            "cpu_ratio_to_postier": round(row["cpu_s_per_1000"] / medians["postier"]["cpu_s_per_1000"], 2),
        }
        for name, row in medians.items()
    }
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
