"""The arena of one row: a private Redis, workers, servers, a publisher with a log, and the verdict.

The verdict reads the SMTP servers' logs, the publisher's log and the ledger; never the product's own counters.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.proxy import Proxy
from campaign.server import Server
from postier.client import Postier
from postier.console.words import advice
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.groups import WAITING_FOR_A_PERSON
from postier.ledger.queries import ENDS, Status
from postier.schemas.errors import InvalidEvent, LedgerUnavailable
from postier.schemas.events import Event
from postier.settings.config import Settings
from postier.settings.seal import Sealer
from tests.ledger.kit import TENANTS, contact_form, data_change, reset_link, somebody
from tests.workers.kit import House, smtp

WRAPPED = Path(__file__).with_name("wrapped.py")
SHORT_LEASE, LEASE = 3.0, 15.0
# Budgets of forms are not what is tried here.
TENANTS["school"] |= {"contact_per_hour": 1_000_000}
TENANTS["school"]["forms"]["contact"] |= {"per_hour": 1_000_000}  # type: ignore[index]

__all__ = [
    "ROWS",
    "Arena",
    "CannotInject",
    "Row",
    "console",
    "contact_form",
    "data_change",
    "eventually",
    "reset_link",
    "row",
    "smtp",
    "somebody",
]  # fmt: skip


class CannotInject(Exception):
    """This machine has no way to bring the fault about."""


@dataclass
class Row:
    """One row of the matrix: `run` injects the fault and says what it saw to the arena."""

    name: str
    fault: str
    bound: str
    run: Callable[[Arena], None]
    quick: bool = False


ROWS: dict[str, Row] = {}


def row(name: str, fault: str, bound: str) -> Callable[[Callable[[Arena], None]], Callable[[Arena], None]]:
    """Register a row under its name in the matrix."""

    def register(run: Callable[[Arena], None]) -> Callable[[Arena], None]:
        ROWS[name] = Row(name, fault, bound, run)
        return run

    return register


def eventually(condition: Callable[[], object], seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@dataclass
class Stream:
    """A publisher that goes on through trouble; `trouble` holds (began, seconds, error's name)."""

    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    trouble: list[tuple[float, float, str]] = field(default_factory=list)

    def end(self) -> None:
        """Stop publishing."""
        self.stop.set()
        if self.thread:
            self.thread.join(30)


class Arena:
    """What a row needs. Everything it made is ended by `close`. `full`: the durations and settings of the matrix."""

    def __init__(self, folder: Path, seed: int, *, full: bool) -> None:
        self.folder = folder
        self.seed, self.full = seed, full
        self.random = random.Random(seed)
        self.lease = LEASE if full else SHORT_LEASE
        self.accepted: dict[str, float] = {}
        self.set_aside: set[str] = set()  # published, and judged by the row itself
        self.addressees: dict[str, str] = {}  # in packets: whose copy is which delivery's
        self.forgiven: Counter[str] = Counter()  # copies that a ledger which forgot may cause
        self.before: list[dict[str, Any]] = []
        self.keys: dict[str, tuple[str, ...]] = {}
        self.servers: list[Server] = []
        self.checks: list[tuple[str, bool]] = []
        self.notes: list[str] = []
        self.allowed_extra = 0
        self.recovery: float | None = None
        self.recovery_bound: float | None = None
        self.may_wait = False
        self.stack = contextlib.ExitStack()
        self.workers: list[subprocess.Popen[bytes]] = []
        self.seal_key = Sealer.new_key()
        self.last_error = ""
        self._numbers = itertools.count(1)

    def scaled(self, seconds: float, short: float, unit: str = "s") -> float:
        """The matrix' duration, or a shorter one in the short run, which is noted."""
        if self.full or short >= seconds:
            return seconds
        self.notes.append(f"{seconds:,g} {unit} run as {short:,g}")
        return short

    @property
    def taken_back_within(self) -> float:
        """How long a dead worker's deliveries may take: 45 s at the shipping lease of 15 s."""
        return 3 * self.lease

    # --- the set

    def redis(self, **options: Any) -> EmbeddedServer:
        """A Redis of the row's own."""
        server = EmbeddedServer(self.folder / f"redis{next(self._numbers)}", **options)

        def end() -> None:
            with contextlib.suppress(OSError):
                if server.pid:
                    os.kill(server.pid, signal.SIGCONT)
            server.kill()

        self.stack.callback(end)
        return server.start()

    def server(self, **answers: Any) -> Server:
        """An SMTP server with a log."""
        server = Server(**answers)
        self.servers.append(server)
        self.stack.callback(server.close)
        return server

    def proxy(self, port: int) -> Proxy:
        """A proxy before a port."""
        proxy = Proxy(port)
        self.stack.callback(proxy.close)
        return proxy

    def house(self, url: str, **accounts: Any) -> House:
        """Accounts in a ledger; the publisher works on it too."""
        folder = self.folder / f"house{next(self._numbers)}"
        folder.mkdir()
        self.home = House(url, "faults", self.seal_key, folder, accounts)
        self.stack.callback(self.home.store.close)
        self.client = self.publisher_at(url)
        return self.home

    def publisher_at(self, url: str) -> Postier:
        """A client as applications have it, with the shipping timeouts."""
        client = Postier(settings=Settings(redis_url=url, namespace="faults", seal_keys=self.seal_key))  # type: ignore[arg-type]
        self.stack.callback(client.close)
        return client

    def worker(
        self, *, url: str | None = None, fault: str = "", ready: bool = True, machine: str = "one",
        environment: dict[str, str] | None = None, stderr: Any = None, preexec: Callable[[], None] | None = None,
        command: list[str] | None = None, **settings: Any,
    ) -> subprocess.Popen[bytes]:  # fmt: skip
        """A worker process; with `fault` one with trace points. Workers of one `machine` share its disk."""
        values: dict[str, Any] = {
            "redis_url": url or self.home.settings.redis_url, "namespace": "faults", "seal_keys": self.seal_key,
            "accounts_file": self.home.accounts_file, "data_dir": self.folder / machine, "lease_seconds": self.lease,
            "threads": 4, **settings,
        }  # fmt: skip
        env = {name: value for name, value in os.environ.items() if not name.startswith("POSTIER_")}
        env |= {f"POSTIER_{name.upper()}": str(value) for name, value in values.items()} | (environment or {})
        how = ["-m", "postier.workers.main"]
        if fault:
            env["POSTIER_FAULT"] = fault
            how = [str(WRAPPED)]
        path = self.folder / f"worker{len(self.workers)}.log"
        with path.open("ab") as log:
            process = subprocess.Popen(
                command or [sys.executable, *how], env=env, stdin=subprocess.DEVNULL, stdout=stderr or log,
                stderr=stderr or log, start_new_session=True, preexec_fn=preexec,
            )  # fmt: skip
        self.workers.append(process)
        self.stack.callback(self._end, process)
        if ready and stderr is None:
            eventually(lambda: b"worker.started" in path.read_bytes() or process.poll() is not None, 30)
        return process

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait(10)

    def keep(self, **settings: Any) -> Callable[[], None]:
        """Start a worker again whenever it died, as a supervisor does; call the answer to stop that."""
        stop = threading.Event()

        def watch() -> None:
            worker = self.worker(ready=False, **settings)
            while not stop.wait(0.05):
                if worker.poll() is not None:
                    worker = self.worker(ready=False, **settings)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()

        def end() -> None:
            stop.set()
            thread.join(5)

        self.stack.callback(end)
        return end

    def log(self) -> str:
        """What all workers logged."""
        return "".join(path.read_text("utf-8", "replace") for path in sorted(self.folder.glob("worker*.log")))

    # --- the publisher

    def publish(self, *events: Event, **options: Any) -> list[str]:
        """Publish one by one, each until it is accepted; returns delivery ids."""
        return [identity for event in events for identity in self.publish_one(event, [], **options)]

    def publish_one(
        self, event: Event, trouble: list[tuple[float, float, str]], stop: threading.Event | None = None,
        client: Postier | None = None, **options: Any,
    ) -> tuple[str, ...]:  # fmt: skip
        key = f"e{next(self._numbers)}"
        while not (stop and stop.is_set()):
            began = time.monotonic()
            try:
                answer = (client or self.client).publish(event, tenant="school", idempotency_key=key, **options)
            except LedgerUnavailable as error:
                trouble.append((began, time.monotonic() - began, type(error).__name__))
                self.last_error = str(error)
                time.sleep(0.05)
                continue
            for identity in answer.deliveries:
                self.accepted[identity] = time.time()
            self.keys[key] = answer.deliveries
            return answer.deliveries
        return ()

    def stream(self, rate: float, make: Callable[[], Event] = reset_link, **options: Any) -> Stream:
        """Publish at a rate until `end`."""
        stream = Stream()

        def run() -> None:
            while not stream.stop.wait(1 / rate):
                self.publish_one(make(), stream.trouble, stream.stop, **options)

        stream.thread = threading.Thread(target=run, daemon=True)
        stream.thread.start()
        self.stack.callback(stream.end)
        return stream

    def burst(self, count: int, make: Callable[[], Event] = reset_link, **options: Any) -> list[str]:
        """Publish many in one call."""
        ids: list[str] = []
        for answer in self.client.publish_many([make() for _ in range(count)], tenant="school", **options):
            if isinstance(answer, InvalidEvent | LedgerUnavailable):
                raise answer
            ids += answer.deliveries
        self.accepted.update(dict.fromkeys(ids, time.time()))
        return ids

    # --- what came of it

    def check(self, what: str, holds: object) -> bool:
        """One expectation of the row."""
        self.checks.append((what, bool(holds)))
        return bool(holds)

    def recovered(self, seconds: float, bound: float) -> None:
        """How long it took until mail flowed again."""
        self.recovery = max(self.recovery or 0.0, seconds)
        self.recovery_bound = bound

    def status(self, identity: str) -> Status:
        """What the ledger says. Raises LookupError when it knows nothing."""
        found = self.home.queries.status(identity)
        if found is None:
            raise LookupError(identity)
        return found

    def states(self, ids: Iterable[str] | None = None) -> dict[str, str]:
        """State by delivery id; '' for what the ledger does not know."""
        wanted = list(self.accepted if ids is None else ids)
        pipe = self.home.store.redis.pipeline(transaction=False)
        for identity in wanted:
            pipe.hget(self.home.store.key(f"delivery:{identity}"), "state")
        return {identity: (state or b"").decode() for identity, state in zip(wanted, pipe.execute(), strict=True)}

    def count(self, ids: Iterable[str] | None = None) -> Counter[str]:
        """How many deliveries are in each state."""
        return Counter(self.states(ids).values())

    def all_end(self, seconds: float, ids: Iterable[str] | None = None) -> bool:
        """Whether all deliveries end in time."""
        return eventually(lambda: set(self.count(ids)) <= set(ENDS), seconds)

    def all_sent(self, seconds: float, ids: Iterable[str] | None = None) -> bool:
        """Whether all deliveries are sent in time; a check of the row."""
        eventually(lambda: set(self.count(ids)) <= {"sent"}, seconds)
        found = self.count(ids)
        return self.check(f"all sent ({dict(found)})", set(found) <= {"sent"})

    def bring_forward(self, ids: Iterable[str]) -> None:
        """The clock seam: let the time of waiting retries come now."""
        for identity in ids:
            self.home.store.redis.zadd(self.home.store.key("scheduled"), {identity: 1}, xx=True)

    def copies(self) -> Counter[str]:
        """How often each delivery is on a server; a mail to several people is a copy for each of them."""
        found: Counter[str] = Counter()
        for server in self.servers:
            for taken in list(server.log):
                if taken.is_copy:
                    packed = [self.addressees[one] for one in taken.recipients if one in self.addressees]
                    found.update(packed or [taken.id])
        return found

    def drop(self, ids: Iterable[str]) -> None:
        """Leave these out of the verdict: the row says itself what must become of them."""
        for identity in list(ids):
            self.accepted.pop(identity, None)
            self.set_aside.add(identity)

    def forgive(self, ids: Iterable[str]) -> None:
        """Let each of these be on the wire once more: the ledger was made to forget that it was sent."""
        known = list(ids)
        self.forgiven.update(known)
        self.allowed_extra += len(known)

    def next_phase(self, name: str) -> None:
        """Judge what was so far, and begin again in the same row."""
        found = self.verdict()
        self.before.append(found)
        self.checks = [(f"{name}: {what}", False) for what in found["failed"]]
        self.set_aside |= set(self.accepted)
        self.accepted, self.forgiven, self.allowed_extra = {}, Counter(), 0
        self.servers = []

    def first_copy(self, since: float, ids: Iterable[str] | None = None) -> float | None:
        """When (seconds after `since`, wall clock) the first mail arrived."""
        wanted = None if ids is None else set(ids)
        times = [
            taken.at for server in self.servers for taken in list(server.log)
            if taken.at >= since and (wanted is None or taken.id in wanted)
        ]  # fmt: skip
        return min(times) - since if times else None

    def unknown_attempts(self, identity: str) -> int:
        """How many attempts of a delivery the ledger shows as unknown."""
        status = self.status(identity)
        return sum(line["what"] == "unknown" for line in status.history) or int(status.state == "unknown")

    def unknowns(self) -> int:
        """How many attempts the ledger shows as unknown."""
        return sum(self.unknown_attempts(identity) for identity, state in self.states().items() if state)

    def says_nothing(self, identity: str) -> bool:
        """Whether a delivery's end lacks its cause, its attempts, or what a person can do."""
        status = self.status(identity)
        tried = status.attempt > 0 or status.state == "expired"
        return not ((status.cause or status.state == "expired") and tried and advice(status, {}))

    def verdict(self) -> dict[str, Any]:
        """Lost, extra and whether all of it is as the row wants."""
        states, copies = self.states(), self.copies()
        over = set(ENDS) - {"sent"}
        lost = [
            identity for identity, state in states.items()
            if not copies[identity] and state not in over and not (self.may_wait and state in ("waiting", "leased"))
        ]  # fmt: skip
        stranded = [
            identity
            for identity, state in states.items()
            if copies[identity] and state not in ENDS and not self.may_wait
        ]
        extra = sum(count - 1 for count in copies.values() if count > 1)
        failed = [what for what, holds in self.checks if not holds]
        if stranded:
            failed.append(f"{len(stranded)} on the wire and in no end: {Counter(states[one] for one in stranded)}")
        if extra > self.allowed_extra:
            failed.append(f"{extra} extra copies, {self.allowed_extra} allowed")
        unexplained = [
            identity for identity, count in copies.items()
            if count > 1 + self.forgiven[identity] and states.get(identity)
            and count > 1 + self.forgiven[identity] + self.unknown_attempts(identity)
        ]  # fmt: skip
        if unexplained:
            failed.append(f"{len(unexplained)} with a copy that no unknown attempt explains: {unexplained[:3]}")
        if strangers := set(copies) - set(self.accepted) - self.set_aside:
            failed.append(f"{len(strangers)} on the wire that nobody published: {sorted(strangers)[:3]}")
        if lost:
            failed.append(f"lost: {Counter(states[one] for one in lost)}")
        if mute := [one for one, state in states.items() if state in WAITING_FOR_A_PERSON and self.says_nothing(one)]:
            failed.append(f"{len(mute)} that wait for a person and do not say why, or what to do: {mute[:3]}")
        slow = self.recovery is not None and self.recovery_bound is not None and self.recovery > self.recovery_bound
        if slow:
            failed.append(f"recovered after {self.recovery:.1f} s, {self.recovery_bound:g} s allowed")

        def together(name: str, now: int) -> int:
            return now + sum(one[name] for one in self.before)

        return {
            "accepted": together("accepted", len(self.accepted)), "lost": together("lost", len(lost)),
            "extra": together("extra", extra), "allowed_extra": together("allowed_extra", self.allowed_extra),
            "recovery_s": None if self.recovery is None else round(self.recovery, 2),
            "recovery_bound_s": self.recovery_bound, "failed": failed, "passed": not failed, "notes": self.notes,
        }  # fmt: skip

    def close(self) -> None:
        """End everything that was made."""
        self.stack.close()


@contextlib.contextmanager
def arena(folder: Path, seed: int, *, full: bool) -> Iterator[Arena]:
    """An arena that is closed."""
    made = Arena(folder, seed, full=full)
    try:
        yield made
    finally:
        made.close()


def console(arena: Arena, *words: str) -> str:
    """What a command of the person on call prints."""
    settings = arena.home.settings
    env = {
        **os.environ, "POSTIER_REDIS_URL": settings.redis_url, "POSTIER_NAMESPACE": "faults",
        "POSTIER_SEAL_KEYS": arena.seal_key, "POSTIER_ACCOUNTS_FILE": str(arena.home.accounts_file),
        "POSTIER_DATA_DIR": str(arena.folder / "one"),
    }  # fmt: skip
    command = [sys.executable, "-m", "postier.console", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def memory(pid: int) -> float:
    """Resident size of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0
