"""F44, F45, F50–F52: what cannot be read or rendered, logs that nobody takes, no descriptors left, mixed versions."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path

from campaign.kit import Arena, CannotInject, data_change, eventually, memory, reset_link, row, smtp
from campaign.server import slowly
from postier.ledger.payload import Payload, open_payload, seal_payload
from postier.settings.seal import Sealer

ROOT = Path(__file__).resolve().parents[2]
# The version before this one; there is no release yet, so a revision of some days ago.
OLDER = os.environ.get("POSTIER_BENCH_OLDER", "ffd9bab")


@row(
    "F44",
    "undecodable payload / unknown kind / future version",
    "failed with its raw bytes <= 5 s; neighbours <= 5 s late; worker lives",
)
def unreadable(arena: Arena) -> None:
    server = arena.server()
    arena.house(arena.redis(fsync="everysec").url, main=smtp(server.port))
    ids = arena.burst(40)
    keys, store = arena.home.store.redis, arena.home.store
    victims = arena.random.sample(ids, 3)
    keys.set(store.key(f"payload:{victims[0]}"), os.urandom(arena.random.randint(1, 300)))
    keys.hset(store.key(f"delivery:{victims[1]}"), "kind", "no_such_kind")
    keys.hset(store.key(f"delivery:{victims[2]}"), "version", 99)
    raw = [keys.get(store.key(f"payload:{one}")) for one in victims]
    worker = arena.worker()
    began = time.time()
    arena.check("all end", arena.all_end(15))
    arena.check(f"<= 5 s ({time.time() - began:.1f} s)", time.time() - began <= 5)
    arena.check("the three failed", arena.count(victims) == {"failed": 3})
    arena.check("with their bytes", [keys.get(store.key(f"payload:{one}")) for one in victims] == raw)
    arena.check("neighbours are sent", arena.count([one for one in ids if one not in victims]) == {"sent": 37})
    arena.check("the worker lives", worker.poll() is None)


@row("F45", "template error, missing variable", "failed as `render`; never retried")
def template_error(arena: Arena) -> None:
    server = arena.server()
    arena.house(arena.redis(fsync="everysec").url, main=smtp(server.port))
    worker = arena.worker(fault="render:raise")
    ids = arena.burst(10)
    arena.check("all end", arena.all_end(15))
    arena.check(
        "failed as render",
        {(arena.status(one).state, arena.status(one).cause) for one in ids} == {("failed", "render")},
    )
    arena.check("never retried", all(arena.status(one).attempt == 1 for one in ids) and not server.log)
    arena.check("the worker lives", worker.poll() is None)


@row("F50", "ENOSPC for logs, closed stdout, full pipe", "sending goes on; what was lost is counted (`log_lost`)")
def no_logs(arena: Arena) -> None:
    # At the debug level every mail is a line of the log: enough of them to fill any pipe.
    server = arena.server()
    arena.house(arena.redis(fsync="everysec").url, main=smtp(server.port))
    reader, writer = os.pipe()
    arena.stack.callback(os.close, reader)
    ways = {"full device": open("/dev/full", "wb"), "full pipe": os.fdopen(writer, "wb"), "closed": None}  # noqa: SIM115
    for name, stderr in ways.items():
        closing = (lambda: (os.close(1), os.close(2))) if stderr is None else None
        worker = arena.worker(
            stderr=stderr or subprocess.DEVNULL, preexec=closing, ready=False, log_level="debug",  # type: ignore[arg-type]
            machine=name.replace(" ", "-"),
        )  # fmt: skip
        ids = arena.burst(600)
        arena.check(f"{name}: sending goes on", arena.all_end(30, ids))
        arena.check(f"{name}: the worker lives", worker.poll() is None)
        lost = [
            int(arena.home.store.redis.hget(key, "log_lost") or 0)
            for key in arena.home.store.redis.scan_iter(arena.home.store.key("worker:*"))
        ]
        arena.check(
            f"{name}: lost lines are counted", eventually(lambda: counted(arena) > sum(lost) or sum(lost) > 0, 10)
        )
        worker.send_signal(signal.SIGTERM)
        eventually(lambda worker=worker: worker.poll() is not None, 15)  # type: ignore[misc]
        arena.check(f"{name}: it ends in order ({worker.poll()})", worker.poll() == 0)
        if stderr:
            stderr.close()


def counted(arena: Arena) -> int:
    """Lines that workers say they could not log."""
    store = arena.home.store
    return sum(int(store.redis.hget(key, "log_lost") or 0) for key in store.redis.scan_iter(store.key("worker:*")))


@row(
    "F51",
    "thread or descriptor exhaustion (ulimit -n 64)",
    "bounded refusal, recovers; no leak after many failed connections",
)
def no_descriptors(arena: Arena) -> None:
    server = arena.server(DOT=slowly(0.05))
    dead = arena.server(BANNER=lambda peer, line: peer.leave())
    limits = {"max_connections": 100}
    names = [f"dead{number}" for number in range(30)]
    arena.house(
        arena.redis(fsync="everysec").url, main=smtp(server.port, limits=limits),
        **{name: smtp(dead.port, limits=limits) for name in names},
    )  # fmt: skip
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))  # noqa: E731
    worker = arena.worker(threads=64, preexec=few)
    ids = arena.burst(300)
    arena.all_sent(60, ids)
    arena.check("the worker lives", worker.poll() is None)
    folder = Path(f"/proc/{worker.pid}/fd")
    failed = [one for name in names for one in arena.burst(4, account=name)]
    keys, store = arena.home.store.redis, arena.home.store
    rounds = int(arena.scaled(10_000, 300, "failed connections"))

    def tried(count: int) -> bool:
        keys.zadd(store.key("parked"), dict.fromkeys(names, 1), xx=True)
        arena.bring_forward(failed)
        return len(dead.connected) >= count

    # Connections to Redis come with threads that were busy at once: the first failures bring those, no later ones may.
    arena.check("the first connections fail", eventually(lambda: tried(100), 60))
    before = len(list(folder.iterdir()))
    # Threads that work for the first time take their stacks, 13 MiB for all: a leak goes on after that.
    eventually(lambda: tried(100 + rounds // 2), rounds / 10)
    size = memory(worker.pid)
    arena.check(f"{rounds} connections fail", eventually(lambda: tried(100 + rounds), rounds / 10))
    arena.notes.append(f"{len(dead.connected)} connections failed")
    more = arena.burst(50)
    arena.all_sent(30, more)
    # Some of the failing connections are open at any moment.
    eventually(lambda: len(list(folder.iterdir())) <= before + 4, 15)
    after = len(list(folder.iterdir()))
    grown = memory(worker.pid) - size
    arena.notes.append(f"descriptors {before} -> {after}, RSS {size:.0f} MiB half way, {grown:+.1f} at the end")
    arena.check("no descriptors leak", after <= before + 4)
    arena.check("no memory leaks", grown <= (4 if arena.full else 16))
    arena.may_wait = True


def older_tree(arena: Arena, revision: str) -> Path:
    """The project as it was at a revision, importable as `postier`."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        raise CannotInject("no git history to take an older version from")
    done = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise CannotInject(f"no revision {revision}")
    tree = arena.folder / "older"
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(tree, filter="data")
    links = arena.folder / "import" / "postier"
    links.mkdir(parents=True)
    for room in ("schemas", "settings", "drivers", "ledger", "client", "workers", "console"):
        (links / room).symlink_to(tree / room)
    return links.parent


@row("F52", "rolling restart of mixed versions", "old and new read each other's records; else parked, not crashed")
def mixed_versions(arena: Arena) -> None:
    server = arena.server(DOT=slowly(0.01))
    arena.house(arena.redis(fsync="everysec").url, main=smtp(server.port))
    older = older_tree(arena, OLDER)
    arena.notes.append(f"older: {OLDER}")
    probe = [sys.executable, "-c", "import postier.workers.main as main; print(main.__file__)"]
    found = subprocess.run(
        probe, env={**os.environ, "PYTHONPATH": str(older)}, capture_output=True, text=True, check=True
    )
    arena.check(f"the old one is the old one ({found.stdout.strip()})", str(arena.folder) in found.stdout)
    ids = arena.burst(20)
    keys, store, sealer = arena.home.store.redis, arena.home.store, Sealer.from_text(arena.seal_key)
    for one in ids[:10]:  # a newer publisher: fields nobody here knows
        name = store.key(f"payload:{one}")
        payload = open_payload(sealer, one, keys.get(name))
        data = json.dumps({**json.loads(payload.data), "field_of_tomorrow": {"a": 1}}).encode()
        keys.set(name, seal_payload(sealer, one, Payload(data, payload.recipient, payload.reply_to)))
        keys.hset(store.key(f"delivery:{one}"), "field_of_tomorrow", "x")
    for one in ids[10:]:  # an older publisher: without the fields that came last
        keys.hdel(store.key(f"delivery:{one}"), "key", "packet", "via")
    stream = arena.stream(30, data_change)
    old = arena.worker(environment={"PYTHONPATH": str(older)}, machine="old", ready=False)
    arena.check("the old one works", eventually(lambda: len(server.log) > 0, 20) and old.poll() is None)
    new = arena.worker(machine="new")
    time.sleep(1.5)
    old.send_signal(signal.SIGTERM)
    old.wait(35)
    time.sleep(1.0)
    again = arena.worker(environment={"PYTHONPATH": str(older)}, machine="old")
    time.sleep(1.0)
    new.send_signal(signal.SIGTERM)
    new.wait(35)
    time.sleep(1.0)
    stream.end()
    arena.all_sent(30)
    arena.check("the old one lives", again.poll() is None)
    (odd,) = arena.publish(reset_link())
    assert odd
    arena.all_end(10)


assert resource
