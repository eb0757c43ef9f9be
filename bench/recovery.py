"""The slowest of many recoveries: workers killed, Redis killed, workers restarted in turn.

    python bench/recovery.py [--kills 100] [--redis-kills 50] [--restarts 50] [--full] [--save]

Judged by the SMTP server's log: after a kill, until the last mail that the dead worker held is there; after Redis
answers again, until the next mail; during restarts, the longest time without any mail while 50 a second are published.
`--full` takes the shipping lease (15 s, bound 45 s); without it the lease is 3 s and the bound three of them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from campaign.kit import Arena, arena, data_change, eventually, reset_link, smtp  # noqa: E402
from campaign.server import slowly  # noqa: E402

REDIS_BOUND, GAP_BOUND = 15.0, 10.0


def told(what: str, times: list[float], bound: float, play: Arena) -> dict[str, Any]:
    """The row of one kind of recovery, its verdict with it."""
    play.allowed_extra = play.unknowns()
    found = play.verdict()
    ordered = sorted(times)
    passed = found["passed"] and ordered[-1] <= bound
    return {
        "what": what, "times": len(times), "median_s": round(ordered[len(ordered) // 2], 2),
        "max_s": round(ordered[-1], 2), "bound_s": bound, "accepted": found["accepted"], "lost": found["lost"],
        "extra": found["extra"], "unknowns": play.allowed_extra, "failed": found["failed"], "passed": passed,
    }  # fmt: skip


def progress(what: str, number: int, count: int, seconds: float) -> None:
    print(f"{what} {number + 1}/{count}: {seconds:.2f} s", file=sys.stderr, flush=True)


def worker_kills(play: Arena, count: int) -> dict[str, Any]:
    """Kill the worker that has mail in hand; another place takes over, and a new one starts there."""
    server = play.server(DOT=slowly(0.05))
    play.house(play.redis(fsync="always").url, main=smtp(server.port))
    workers = [play.worker(machine=f"place{place}") for place in range(2)]
    times: list[float] = []
    while len(times) < count:
        place = len(times) % 2
        ids = play.burst(160)  # more than one worker claims at once
        begun = len(server.log)
        eventually(lambda begun=begun: len(server.log) >= begun + 20, 20)  # type: ignore[misc]
        workers[place].kill()
        died = time.time()
        workers[place] = play.worker(machine=f"place{place}", ready=False)
        play.all_sent(play.taken_back_within + 20, ids)
        held = {one for one in ids if any(line["what"] in ("crashed", "unknown") for line in play.status(one).history)}
        if held:  # it had something in hand when it died
            last = max((taken.at for taken in server.log if taken.id in held), default=died + 99)
            times.append(last - died)
            progress("worker kill", len(times) - 1, count, times[-1])
        eventually(lambda: b"worker.started" in newest(play), 20)
    return told("kill -9 of a worker, until the last mail it held is sent again", times, play.taken_back_within, play)


def newest(play: Arena) -> bytes:
    """What the worker that was started last has logged."""
    return (play.folder / f"worker{len(play.workers) - 1}.log").read_bytes()


def redis_kills(play: Arena, count: int) -> dict[str, Any]:
    """Kill Redis under traffic, leave it away for up to 3 s."""
    server = play.server(DOT=slowly(0.01))
    redis = play.redis(fsync="always")
    play.house(redis.url, main=smtp(server.port))
    play.worker()
    stream = play.stream(30)
    times: list[float] = []
    for number in range(count):
        begun = len(server.log)
        eventually(lambda begun=begun: len(server.log) >= begun + 10, 30)  # type: ignore[misc]
        redis.kill()
        time.sleep(play.random.uniform(0, 3))
        redis.start()
        back = time.time()
        eventually(lambda back=back: play.first_copy(back) is not None, 30)  # type: ignore[misc]
        first = play.first_copy(back)
        times.append(99.0 if first is None else first)
        progress("Redis kill", number, count, times[-1])
    stream.end()
    play.all_sent(3 * play.lease + 30)
    return told("kill -9 of Redis, until the first mail after it answers again", times, REDIS_BOUND, play)


def restarts(play: Arena, count: int) -> dict[str, Any]:
    """SIGTERM one of two workers and start another in its place, in turn, under 50 mails a second."""
    server = play.server(DOT=slowly(0.01))
    play.house(play.redis(fsync="always").url, main=smtp(server.port))
    workers = [play.worker(machine=f"place{place}") for place in range(2)]
    stream = play.stream(65, lambda: random.choice((reset_link, data_change))())
    began = time.time()
    for number in range(count):
        place = number % 2
        at = time.monotonic()
        workers[place].send_signal(signal.SIGTERM)
        workers[place].wait(40)
        if workers[place].returncode:
            play.check(f"restart {number + 1}: exit code {workers[place].returncode}", False)
        workers[place] = play.worker(machine=f"place{place}")
        progress("restart", number, count, time.monotonic() - at)
    ended = time.time()
    stream.end()
    play.all_sent(30)
    play.check(f"no attempt is unknown ({play.unknowns()})", not play.unknowns())
    marks = [began, *sorted(taken.at for taken in server.log if began <= taken.at <= ended), ended]
    gaps = [later - earlier for earlier, later in itertools.pairwise(marks)]
    row = told("restarts in turn, longest time without a mail", gaps, GAP_BOUND, play)
    return row | {"times": count, "mails a second": round(len(marks) / (ended - began), 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--redis-kills", type=int, default=50)
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="the shipping lease")
    parser.add_argument("--save", action="store_true", help="keep the result in bench/results/")
    options = parser.parse_args()
    parts: list[tuple[Callable[[Arena, int], dict[str, Any]], int]] = [
        (worker_kills, options.kills), (redis_kills, options.redis_kills), (restarts, options.restarts),
    ]  # fmt: skip
    rows = []
    for part, count in parts:
        if count:
            with (
                tempfile.TemporaryDirectory(prefix="postier-recovery-") as folder,
                arena(Path(folder), options.seed, full=options.full) as play,
            ):
                rows.append(part(play, count))
            print(rows[-1], flush=True)
    if options.save:
        now = datetime.now(UTC)
        machine = f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}"
        lines = [f"$ python bench/recovery.py {' '.join(sys.argv[1:])}   # {now:%Y-%m-%d %H:%M} UTC, {machine}"]
        for row in rows:
            lines += [f"{name:<18}{value}" for name, value in row.items()] + [""]
        (HERE / "results" / f"recovery-{now:%Y-%m-%d}.txt").write_text("\n".join(lines))
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
