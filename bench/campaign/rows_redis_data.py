"""F20, F21, F42, F43: a full disk, a ledger that was flushed or restored, clocks that go wrong."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import redis as client_library

from campaign.kit import Arena, CannotInject, data_change, eventually, reset_link, row, smtp
from campaign.rows_redis import doctor, newest_log
from campaign.server import slowly
from postier.ledger.embedded import EmbeddedServer, find_server


def disk_full(arena: Arena, fsync: str) -> None:
    """The append-only file may not grow any more, and then it may again."""
    server = arena.server(DOT=slowly(0.01))
    # The signal of the size limit is ignored: the server sees a write that fails, as on a full disk.
    script = arena.folder / f"server-{fsync}"
    script.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {find_server()} \"$@\"\n")
    script.chmod(0o700)
    redis = arena.redis(fsync=fsync, binary=str(script))
    arena.house(redis.url, main=smtp(server.port))
    arena.worker()
    stream = arena.stream(50)
    eventually(lambda: len(server.log) >= 30, 20)
    assert redis.pid
    soft = newest_log(redis).stat().st_size + 5000
    resource.prlimit(redis.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
    full = time.time()
    told = eventually(lambda: stream.trouble, 15)
    arena.check("publishers are told", told)
    if redis.pid:
        eventually(lambda: "disk_full" in doctor(arena), 10)
        arena.check(f"doctor says disk_full ({time.time() - full:.0f} s)", "disk_full" in doctor(arena))
        arena.check("workers say so", "disk_full" in arena.log())
        resource.prlimit(redis.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        arena.notes.append(f"{fsync}: writes refused, Redis lives")
    else:
        arena.notes.append(f"{fsync}: Redis ended itself")
        redis.start()
    room = time.time()
    eventually(lambda: arena.first_copy(room + 0.3) is not None, 20)
    arena.recovered((arena.first_copy(room + 0.3) or 99.0) + 0.3, 15)
    stream.end()
    missing = [one for one, state in arena.states().items() if not state]
    if fsync == "everysec" and len(missing) <= 1:
        arena.drop(missing)
    arena.all_sent(3 * arena.lease + 20)
    arena.allowed_extra = arena.unknowns()


@row(
    "F20",
    "disk full for the AOF (file-size limit)",
    "publishes refused, status `disk_full`; L 0 of accepted (<= 1 everysec)",
)
def no_disk(arena: Arena) -> None:
    disk_full(arena, "everysec")
    for worker in arena.workers:
        worker.kill()
    arena.next_phase("everysec")
    disk_full(arena, "always")


@row(
    "F21",
    "Redis flushed, or restored from yesterday",
    "workers stop on a changed data set; a person confirms; no mass resend",
)
def other_data(arena: Arena) -> None:
    server = arena.server()
    redis = arena.redis(fsync="always")
    arena.house(redis.url, main=smtp(server.port))
    arena.worker()
    keys, store = arena.home.store.redis, arena.home.store
    arena.all_sent(20, arena.burst(5))
    arena.check("workers know the ledger", eventually(lambda: keys.hget(store.key("dataset"), "seen"), 10))
    for worker in arena.workers:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    ids = arena.burst(30)
    redis.stop()
    backup = arena.folder / "backup"
    shutil.copytree(redis.folder, backup)
    # The clock seam: a day passes between the backup and the restore, so the backup's last sign of life is a day old.
    aged = EmbeddedServer(backup).start()
    with client_library.Redis.from_url(aged.url) as copy:
        copy.hset(store.key("dataset"), "seen", int(copy.hget(store.key("dataset"), "seen")) - 86_400_000_000)
    aged.stop()
    redis.start()
    arena.worker()
    arena.all_sent(20, ids)
    seen = keys.hget(store.key("dataset"), "seen")
    eventually(lambda: keys.hget(store.key("dataset"), "seen") != seen, 15)
    sent_before = len(server.log)
    redis.kill()
    shutil.rmtree(redis.folder)
    shutil.copytree(backup, redis.folder)
    redis.start()
    arena.check("the backup holds the mails as waiting", arena.count(ids) == {"waiting": 30})
    arena.check("the worker says why", eventually(lambda: "ledger.changed" in arena.log(), 15))
    time.sleep(2.0)
    arena.check(f"no mass resend ({len(server.log) - sent_before} left)", len(server.log) == sent_before)
    arena.check("doctor says why", "--accept-dataset" in doctor(arena))
    arena.drop(list(arena.accepted))
    keys.flushall()
    arena.worker(ready=False)
    arena.check("a flushed ledger stops workers too", eventually(lambda: arena.log().count("ledger.changed") >= 2, 15))
    doctor(arena, "--accept-dataset")

    def publish() -> bool:
        try:
            return bool(arena.burst(1))
        except Exception:
            return False

    arena.check("a person accepts, and mail flows", eventually(publish, 15))
    arena.all_sent(20)


def shim(arena: Arena) -> Path:
    """A library that makes the wall clock of a process go wrong."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise CannotInject("no C compiler for the clock library")
    library = arena.folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@row("F42", "clock +-1 h / +-1 d on a worker", "no early or lost sends, no lease theft; links expire by their own time")
def worker_clock(arena: Arena) -> None:
    library = shim(arena)
    server = arena.server(DOT=slowly(0.02))
    arena.house(arena.redis(fsync="everysec").url, main=smtp(server.port))
    offsets = (3600, -3600, 86_400, -86_400)
    for number, offset in enumerate(offsets):
        path = arena.folder / f"offset{number}"
        path.write_text(str(offset))
        arena.worker(
            machine=f"clock{number}", threads=2,
            environment={"LD_PRELOAD": str(library), "POSTIER_CLOCK_FILE": str(path)},
        )  # fmt: skip
    from datetime import UTC, datetime, timedelta

    soon = datetime.now(UTC) + timedelta(seconds=6)
    late = arena.publish(*(data_change() for _ in range(20)), not_before=soon)
    ids = arena.burst(100) + arena.burst(60, data_change)
    arena.all_sent(20, ids)
    arena.check(
        "nothing scheduled left early", not any(taken.id in late for taken in server.log if taken.at < soon.timestamp())
    )
    arena.all_sent(20)
    stolen = sum(line["what"] in ("crashed", "unknown") for one in arena.accepted for line in arena.status(one).history)
    arena.check(f"no lease was stolen ({stolen})", stolen == 0)


@row("F43", "Redis clock steps +-1 h", "sends delayed or early <= a backoff step; no double sends")
def redis_clock(arena: Arena) -> None:
    library = shim(arena)
    offset = arena.folder / "offset"
    offset.write_text("0")
    before = {name: os.environ.get(name) for name in ("LD_PRELOAD", "POSTIER_CLOCK_FILE")}
    os.environ |= {"LD_PRELOAD": str(library), "POSTIER_CLOCK_FILE": str(offset)}
    try:
        # A static server does not look at libraries; the one of the system does.
        redis = arena.redis(fsync="everysec", binary=shutil.which("redis-server"))
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    server = arena.server(DOT=slowly(0.02))
    arena.house(redis.url, main=smtp(server.port, limits={"per_second": 50}))
    arena.worker()
    began = arena.home.store.now()
    offset.write_text("3600")
    if arena.home.store.now() - began < 3_000_000_000:
        raise CannotInject("this Redis server does not take its time from the C library")
    offset.write_text("0")
    for step in ("3600", "0", "-3600", "0"):
        stream = arena.stream(40, data_change)
        time.sleep(1.5)
        offset.write_text(step)
        time.sleep(2.5)
        stream.end()
    arena.all_sent(60)
    arena.allowed_extra = 0


assert reset_link
