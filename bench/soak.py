"""Chaos for as long as asked: workers and Redis are killed, providers misbehave, workers are restarted in turn.

    python bench/soak.py --minutes 5 [--seed 1] [--rate 30] [--json]

A worker is killed (-9) every 20 s, Redis every 120 s (away 1 to 8 s), one worker is restarted in order every 30 s, and
each of three providers changes its mood every few seconds. Then all is let be, and every delivery is accounted for from
the servers' logs, the publisher's log and the ledger: 0 lost, extra copies at most the unknown outcomes the ledger
shows, nothing unexplained.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from campaign.kit import Arena, arena, contact_form, data_change, eventually, reset_link, smtp  # noqa: E402
from campaign.server import OK, Peer, Server, slowly  # noqa: E402

KILL_WORKER, KILL_REDIS, RESTART = 20.0, 120.0, 30.0


def moods(dice: random.Random) -> list[dict[str, Any]]:
    """What a provider may be like for a while."""

    def cut(peer: Peer, line: str) -> str:
        peer.reset()
        return ""

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
        {"DOT": slowly(0.5)},
        {"BANNER": sometimes(0.5, "421 4.3.2 busy", "220 hello")},
    ]  # fmt: skip


class Chaos:
    """The threads that break things until `stop`."""

    def __init__(self, play: Arena, redis: Any, seed: int) -> None:
        self.play, self.redis = play, redis
        self.dice = random.Random(seed)
        self.stop = threading.Event()
        self.done: Counter[str] = Counter()
        self.guard = threading.Lock()
        self.workers = [play.worker(machine=f"place{place}", ready=False) for place in range(2)]
        self.threads = [
            threading.Thread(target=self._every, args=job, daemon=True)
            for job in (
                (KILL_WORKER, self.kill_worker), (KILL_REDIS, self.kill_redis), (RESTART, self.restart),
                (7.0, self.change_moods), (0.5, self.revive),
            )
        ]  # fmt: skip

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

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(30)
        for server in self.play.servers:
            server.answers = {}
        for place in range(len(self.workers)):
            if self.workers[place].poll() is not None:
                self.workers[place] = self.play.worker(machine=f"place{place}", ready=False)


def settle(play: Arena, seconds: float) -> bool:
    """Let retries and probes come now, until every delivery has its end."""

    def ended() -> bool:
        keys, store = play.home.store.redis, play.home.store
        for account in play.home.registry.accounts:
            keys.zadd(store.key("parked"), {account: 1}, xx=True)
        play.bring_forward([one for one, state in play.states().items() if state == "waiting"])
        return play.all_end(0.5)

    return eventually(ended, seconds)


def soak(minutes: float, seed: int, rate: float) -> dict[str, Any]:
    """Run it, and account for every delivery."""
    folder = Path(tempfile.mkdtemp(prefix="postier-soak-"))
    dice = random.Random(seed)
    with arena(folder, seed, full=False) as play:
        servers = [play.server() for _ in range(3)]
        redis = play.redis(fsync="always")
        names = ("first", "second", "third")
        play.house(redis.url, **{
            name: smtp(server.port, options={"auth": "none", "timeout_ms": 3000}, limits={"max_connections": 6})
            for name, server in zip(names, servers, strict=True)
        })  # fmt: skip
        chaos = Chaos(play, redis, seed + 1)
        kinds = (reset_link, reset_link, data_change, contact_form)
        streams = [
            play.stream(rate / 3, lambda: dice.choice(kinds)(), account=name) for name in names
        ]  # fmt: skip
        chaos.start()
        time.sleep(minutes * 60)
        chaos.end()
        for stream in streams:
            stream.end()
        finished = settle(play, 120)
        found = play.verdict()
        unknowns = play.unknowns()
        states = dict(play.count())
        unexplained = sorted(
            one for one, count in play.copies().items()
            if count > 1 + sum(line["what"] == "unknown" for line in play.status(one).history)
        )  # fmt: skip
        strangers = sorted(set(play.copies()) - set(play.accepted))
        result = {
            "minutes": minutes, "seed": seed, "accepted": found["accepted"], "lost": found["lost"],
            "extra": found["extra"], "unknowns": unknowns, "unexplained": len(unexplained), "strangers": len(strangers),
            "states": states, "ended": finished, **chaos.done,
        }  # fmt: skip
        result["passed"] = bool(
            finished and not found["lost"] and found["extra"] <= unknowns and not unexplained and not strangers
        )
        if not result["passed"]:
            for one in [*unexplained, *strangers][:5]:
                print(one, play.copies()[one], play.home.queries.status(one), file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=30.0, help="events a second")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = soak(options.minutes, options.seed, options.rate)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:<18}{value}")
    return 0 if result["passed"] else 1


assert Server
if __name__ == "__main__":
    sys.exit(main())
