"""Chaos for as long as asked: workers and Redis are killed, providers misbehave, workers are restarted in turn.

    python bench/soak.py --minutes 60 [--seed 1] [--rate 12] [--calm] [--json] [--save]

One of two workers is killed (-9) every 20 s, Redis every 120 s (away 1 to 8 s), one worker is restarted in order every
30 s, and each of three providers changes its mood every few seconds: it refuses, cuts, hangs with a whole body in hand,
says 421, dawdles. A third worker lives through all of it: its memory, descriptors and threads are measured every ten
seconds. Then all is let be, and every delivery is accounted for, by Message-ID and recipient, from the servers' logs,
the publisher's log and the ledger: 0 lost, no copy beyond the first that the ledger does not show as unknown.

`--calm` breaks nothing: with `--rate 100` it is the test of a process that must not grow.

How it goes is on the standard error every half minute; `--save` keeps the result in bench/results/.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from campaign.kit import Arena, arena, contact_form, data_change, eventually, memory, reset_link, smtp  # noqa: E402
from campaign.server import OK, Peer, Server, slowly  # noqa: E402

from postier.schemas.events import ResetLink  # noqa: E402

KILL_WORKER, KILL_REDIS, RESTART = 20.0, 120.0, 30.0


def moods(dice: random.Random) -> list[dict[str, Any]]:
    """What a provider may be like for a while."""

    def cut(peer: Peer, line: str) -> str:
        peer.reset()
        return ""

    def hang(peer: Peer, line: str) -> None:
        peer.wait_until_gone()

    def sometimes(share: float, reply: Any, usual: str) -> Any:
        def answer(peer: Peer, line: str) -> str | None:
            if dice.random() >= share:
                return usual
            return reply if isinstance(reply, str) else reply(peer, line)

        return answer

    return [
        {}, {}, {},
        {"DOT": sometimes(0.1, "451 4.3.0 try later", OK)},
        {"RCPT": sometimes(0.2, "450 4.2.1 mailbox busy", "250 ok")},
        {"MAIL": sometimes(0.2, "421 4.3.2 closing", "250 ok")},
        {"DOT": sometimes(0.05, cut, OK)},
        {"DATA": sometimes(0.05, cut, "354 go on")},
        {"DOT": sometimes(0.05, hang, OK)},
        {"BANNER": sometimes(0.5, cut, "220 hello")},
        {"RCPT": slowly(0.3, "250 ok")},
        {"DOT": slowly(0.5)},
        {"BANNER": sometimes(0.5, "421 4.3.2 busy", "220 hello")},
    ]  # fmt: skip


class Chaos:
    """The threads that break things until `stop`."""

    def __init__(self, play: Arena, redis: Any, seed: int, *, calm: bool) -> None:
        self.play, self.redis = play, redis
        self.dice = random.Random(seed)
        self.stop = threading.Event()
        self.done: Counter[str] = Counter()
        self.guard = threading.Lock()
        self.workers = [play.worker(machine=f"place{place}", ready=False) for place in range(2)]
        self.steady = play.worker(machine="steady")
        self.began = time.monotonic()
        self.samples: list[tuple[float, float, int, int]] = []
        looks = [(0.5, self.revive), (10.0, self.measure), (30.0, self.tell)]
        deeds = [
            (KILL_WORKER, self.kill_worker), (KILL_REDIS, self.kill_redis), (RESTART, self.restart),
            (7.0, self.change_moods),
        ]  # fmt: skip
        self.threads = [
            threading.Thread(target=self._every, args=job, daemon=True) for job in (looks if calm else looks + deeds)
        ]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def _every(self, seconds: float, deed: Any) -> None:
        while not self.stop.wait(seconds):
            deed()

    def _place(self) -> int:
        return self.dice.randrange(len(self.workers))

    def kill_worker(self) -> None:
        with self.guard:
            self.workers[self._place()].kill()
            self.done["workers killed"] += 1

    def restart(self) -> None:
        with self.guard:
            self.workers[self._place()].send_signal(signal.SIGTERM)
            self.done["workers restarted"] += 1

    def revive(self) -> None:
        """What a supervisor does."""
        with self.guard:
            for place, worker in enumerate(self.workers):
                if worker.poll() is not None and not self.stop.is_set():
                    self.workers[place] = self.play.worker(machine=f"place{place}", ready=False)

    def kill_redis(self) -> None:
        self.redis.kill()
        self.stop.wait(self.dice.uniform(1, 8))
        self.redis.start()
        self.done["Redis killed"] += 1

    def change_moods(self) -> None:
        for server in self.play.servers:
            server.answers = dict(self.dice.choice(moods(self.dice)))
            self.done["moods"] += 1

    def measure(self) -> None:
        """The size of the worker that lives on: MiB, descriptors, threads."""
        pid = self.steady.pid
        with contextlib.suppress(OSError):
            sizes = len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))
            self.samples.append((time.monotonic() - self.began, memory(pid), *sizes))

    def tell(self) -> None:
        on_the_wire = sum(len(server.log) for server in self.play.servers)
        deeds = ", ".join(f"{count} {deed}" for deed, count in self.done.items())
        minutes = (time.monotonic() - self.began) / 60
        print(
            f"{minutes:5.1f} min: {len(self.play.accepted)} accepted, {on_the_wire} bodies taken; {deeds}",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    def growth(self) -> dict[str, Any]:
        """How the worker that lives on grew, without the first sixth of the time (ten minutes of an hour)."""
        later = self.samples[len(self.samples) // 6 :]
        if len(later) < 3:
            return {}
        mean_at, mean = (sum(one[column] for one in later) / len(later) for column in (0, 1))
        spread = sum((one[0] - mean_at) ** 2 for one in later)
        slope = sum((one[0] - mean_at) * (one[1] - mean) for one in later) / spread * 3600
        third = max(1, len(later) // 3)
        few = self.samples[:: max(1, len(self.samples) // 12)]
        return {
            "RSS over time": " ".join(f"{one[1]:.0f}" for one in few),
            "RSS MiB": f"{later[0][1]:.1f} -> {later[-1][1]:.1f}", "RSS slope": f"{slope:+.1f} MiB/h",
            "descriptors": f"{max(one[2] for one in later[:third])} -> {max(one[2] for one in later[-third:])}",
            "threads": f"{max(one[3] for one in later[:third])} -> {max(one[3] for one in later[-third:])}",
        }  # fmt: skip

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(30)
        for server in self.play.servers:
            server.answers = {}
        for place in range(len(self.workers)):
            if self.workers[place].poll() is not None:
                self.workers[place] = self.play.worker(machine=f"place{place}", ready=False)


def lasting() -> ResetLink:
    return reset_link(lasts=timedelta(hours=6))


def settle(play: Arena, seconds: float) -> bool:
    """Let retries and probes come now, until every delivery has its end."""

    def ended() -> bool:
        keys, store = play.home.store.redis, play.home.store
        for account in play.home.registry.accounts:
            keys.zadd(store.key("parked"), {account: 1}, xx=True)
        play.bring_forward([one for one, state in play.states().items() if state == "waiting"])
        return play.all_end(0.5)

    return eventually(ended, seconds)


def soak(minutes: float, seed: int, rate: float, *, calm: bool = False) -> dict[str, Any]:
    """Run it, and account for every delivery."""
    folder = Path(tempfile.mkdtemp(prefix="postier-soak-"))
    dice = random.Random(seed)
    with arena(folder, seed, full=False) as play:
        servers = [play.server() for _ in range(3)]
        redis = play.redis(fsync="always")
        names = ("first", "second", "third")
        options = {"auth": "none", "timeout_ms": 3000, "final_timeout": 5}
        play.house(redis.url, **{
            name: smtp(server.port, options=options, limits={"max_connections": 6})
            for name, server in zip(names, servers, strict=True)
        })  # fmt: skip
        chaos = Chaos(play, redis, seed + 1, calm=calm)
        # Links that last: what is slow here shall be late, not over.
        kinds = (lasting, lasting, data_change, contact_form)
        streams = [
            play.stream(rate / 3, lambda: dice.choice(kinds)(), account=name) for name in names
        ]  # fmt: skip
        chaos.start()
        time.sleep(minutes * 60)
        chaos.end()
        for stream in streams:
            stream.end()
        finished = settle(play, 180)
        unknowns = play.allowed_extra = play.unknowns()
        found = play.verdict()
        result = {
            "minutes": minutes, "seed": seed, "rate": rate, "accepted": found["accepted"], "lost": found["lost"],
            "extra": found["extra"], "unknowns": unknowns, "states": dict(play.count()), "ended": finished,
            **chaos.done, **chaos.growth(), "steady worker": "lives" if chaos.steady.poll() is None else "died",
            "failed": found["failed"],
        }  # fmt: skip
        result["passed"] = bool(finished and found["passed"] and chaos.steady.poll() is None)
    if result["passed"]:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"logs and data stay in {folder}", file=sys.stderr)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=12.0, help="events a second")
    parser.add_argument("--calm", action="store_true", help="break nothing")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", action="store_true", help="keep the result in bench/results/")
    options = parser.parse_args()
    result = soak(options.minutes, options.seed, options.rate, calm=options.calm)
    text = "".join(f"{name:<18}{value}\n" for name, value in result.items())
    print(json.dumps(result) if options.json else text, end="")
    if options.save:
        now = datetime.now(UTC)
        command = " ".join(["python bench/soak.py", *sys.argv[1:]])
        machine = f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}"
        path = (
            HERE
            / "results"
            / f"soak-{now:%Y-%m-%d}-seed{options.seed}-{options.minutes:g}min{'-calm' * options.calm}.txt"
        )
        path.write_text(f"$ {command}   # {now:%Y-%m-%d %H:%M} UTC, {machine}\n{text}")
    return 0 if result["passed"] else 1


assert Server
if __name__ == "__main__":
    sys.exit(main())
