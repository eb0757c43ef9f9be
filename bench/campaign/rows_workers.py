"""F1–F9: processes that die, hang or are stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

from campaign.kit import Arena, console, contact_form, data_change, eventually, reset_link, row, smtp
from campaign.server import OK, Gate, Gone, Peer, slowly

THREADS = 4  # of a worker here
# In doubt after a death: a body under way each, and one whose 250 is some milliseconds old and unwritten.
IN_DOUBT = 2 * THREADS


def stage(arena: Arena, **answers: Any) -> Any:
    """One account on one server, with the shipping durability."""
    server = arena.server(**answers)
    arena.house(arena.redis(fsync="always").url, main=smtp(server.port))
    return server


def kill_at(arena: Arena, point: str, nth: int, **settings: Any) -> tuple[list[str], float]:
    """Sixty mails, a worker that dies at the nth time of a trace point, and another on another machine."""
    ids = arena.burst(60)
    doomed = arena.worker(fault=f"{point}:kill", environment={"POSTIER_FAULT_AT": str(nth)}, ready=False, **settings)
    eventually(lambda: doomed.poll() is not None, 20)
    arena.check("the worker died by SIGKILL", doomed.poll() == -signal.SIGKILL)
    died = time.time()
    arena.worker(machine="two")
    arena.all_sent(arena.taken_back_within + 20)
    return ids, died


def whats(arena: Arena, ids: list[str], what: str) -> list[str]:
    """Deliveries whose timeline has this line for attempt 1 or later."""
    return [one for one in ids if any(line["what"] == what for line in arena.status(one).history)]


def last_come(arena: Arena, ids: list[str], since: float) -> float:
    """When the last of these came."""
    return max((taken.at - since for server in arena.servers for taken in server.log if taken.id in ids), default=0.0)


@row("F1", "kill -9 worker before DATA", "L 0, D 0, resent within 3 leases, attempt 1 `crashed`")
def before_data(arena: Arena) -> None:
    stage(arena, DOT=slowly(0.01))
    # One thread and one mail at a time: nothing else is past its body when the worker dies.
    nth = arena.random.randint(5, 40)
    ids, died = kill_at(arena, "before_mark", nth, threads=1, conversation_size=1)
    crashed = whats(arena, ids, "crashed")
    arena.check("attempts are shown as crashed", crashed)
    first = [line for one in crashed for line in arena.status(one).history if line["what"] == "crashed"]
    arena.check("they are the first attempts", all(line["attempt"] == 1 for line in first))
    arena.check("nothing is shown as unknown", not whats(arena, ids, "unknown"))
    arena.recovered(last_come(arena, crashed, died), arena.taken_back_within)


@row("F2", "kill -9 worker after the body, before 250", "L 0, D <= 1 per killed send, shown as `unknown`")
def before_250(arena: Arena) -> None:
    doomed: list[subprocess.Popen[bytes]] = []
    at = arena.random.randint(5, 30)

    def kill(peer: Peer, line: str) -> str:
        if len(peer.server.log) == at:
            doomed[0].kill()
            doomed[0].wait()
            raise Gone
        return OK

    stage(arena, DOT=kill)
    ids = arena.burst(60)
    doomed.append(arena.worker(ready=False))
    eventually(lambda: doomed[0].poll() is not None, 20)
    died = time.time()
    arena.worker(machine="two")
    arena.all_sent(arena.taken_back_within + 20)
    unknown = whats(arena, ids, "unknown")
    arena.check("the killed send is shown as unknown", unknown)
    arena.allowed_extra = min(len(unknown), IN_DOUBT)
    arena.recovered(last_come(arena, unknown, died), arena.taken_back_within)


@row("F3", "kill -9 worker after 250, before the record", "as F2; the window's p99 <= 10 ms")
def after_250(arena: Arena) -> None:
    server = stage(arena)
    ids, _ = kill_at(arena, "after_250", arena.random.randint(5, 40))
    unknown = whats(arena, ids, "unknown")
    arena.allowed_extra = min(len(unknown), IN_DOUBT)
    arena.check("the killed send is shown as unknown", unknown)
    more = []
    for _ in range(200):
        time.sleep(0.02)
        more += arena.publish(reset_link())
    arena.all_sent(20)
    said = {taken.id: taken.answered_at for taken in server.log}
    window = sorted((arena.status(one).ended_at or 0) - said[one] for one in more)
    arena.notes.append(f"250 to record: p50 {window[100] * 1000:.1f} ms, p99 {window[197] * 1000:.1f} ms")
    arena.check("window p99 <= 10 ms", window[197] <= 0.010)


@row("F4", "F2 and F3 with on_unknown: hold", "L 0, D 0; state `unknown`, listed for a person")
def held(arena: Arena) -> None:
    doomed: list[subprocess.Popen[bytes]] = []

    def kill(peer: Peer, line: str) -> str:
        if len(peer.server.log) == 3:  # the body is complete, and nothing is said about it
            doomed[0].kill()
            doomed[0].wait()
            raise Gone
        return OK

    server = stage(arena, DOT=kill)
    ids = [one for _ in range(10) for one in arena.publish(contact_form())]
    doomed.append(arena.worker(ready=False))
    eventually(lambda: doomed[0].poll() is not None, 20)
    again = arena.worker(
        fault="after_250:kill", environment={"POSTIER_FAULT_AT": str(arena.random.randint(2, 6))}, machine="two",
        ready=False,
    )  # fmt: skip
    eventually(lambda: again.poll() is not None, 20)
    arena.check("both died by SIGKILL", doomed[0].poll() == again.poll() == -signal.SIGKILL)
    arena.worker(machine="three")
    arena.check("all end", arena.all_end(arena.taken_back_within + 20))
    unknown = [one for one, state in arena.states().items() if state == "unknown"]
    arena.check(f"the killed sends wait for a person ({len(unknown)})", len(unknown) >= 2)
    arena.check("they are shown to the person on call", "may have left" in console(arena, "failed"))
    arena.check("its cause is worker_died", {arena.status(one).cause for one in unknown} == {"worker_died"})
    arena.check("it is listed", set(unknown) <= {one.id for one in arena.home.queries.deliveries(states=["unknown"])})
    arena.check("no other came to harm", arena.count()["sent"] == len(ids) - len(unknown) and server.log)


@row("F5", "kill -9 the same delivery 3 times", "failed as `crashed`, no 4th try; neighbours unharmed")
def poison(arena: Arena) -> None:
    stage(arena)
    ids = arena.burst(30)
    victim = ids[arena.random.randrange(30)]
    arena.keep(fault="before_mark:kill", environment={"POSTIER_FAULT_ID": victim})
    arena.check("all end", arena.all_end(4 * arena.taken_back_within))
    status = arena.status(victim)
    # With a neighbour's mark it may be marked, too: then the ledger cannot know that nothing left.
    crashes = [line for line in status.history if line["what"] in ("crashed", "unknown")]
    arena.check(
        f"failed as crashed ({status.state}, {status.cause})", (status.state, status.cause) == ("failed", "crashed")
    )
    arena.check(f"three tries ({len(crashes)})", len(crashes) == 3)
    arena.check("neighbours are sent", arena.count([one for one in ids if one != victim]) == {"sent": 29})
    # What other threads had in hand when it died is F2's matter.
    arena.allowed_extra = min(arena.unknowns(), 3 * IN_DOUBT)
    deaths = sum(worker.poll() == -signal.SIGKILL for worker in arena.workers)
    arena.check(f"three deaths ({deaths})", deaths == 3)


@row("F6", "SIGTERM with sends of 1-20 s running", "exit <= 30 s, L 0, D 0; prefetched work elsewhere <= 5 s")
def drained(arena: Arena) -> None:
    longest = arena.scaled(20, 4)
    server = stage(arena, DOT=lambda peer, line: slowly(arena.random.uniform(1, longest))(peer, line))  # type: ignore[operator]
    first_worker = arena.worker()
    ids = arena.burst(12)
    eventually(lambda: len(server.log) >= 2, 10)
    began = time.time()
    busy = {taken.id for taken in server.log}
    first_worker.send_signal(signal.SIGTERM)
    arena.worker(machine="two")
    eventually(lambda: any(taken.id not in busy for taken in list(server.log)), 10)
    elsewhere = arena.first_copy(began, [one for one in ids if one not in busy])
    first_worker.wait(40)
    arena.check(f"exit <= 30 s ({time.time() - began:.1f} s)", time.time() - began <= 30)
    arena.check("exit code 0", first_worker.returncode == 0)
    arena.all_sent(60)
    arena.recovered(elsewhere if elsewhere is not None else 99.0, 5)


@row("F7", "SIGTERM while one send hangs", "exit <= 30 s; that one as F2")
def hangs(arena: Arena) -> None:
    gate = Gate(free=arena.random.randint(0, 5))
    stage(arena, DOT=gate)
    drain = arena.scaled(25, 3)
    worker = arena.worker(drain_seconds=drain)
    arena.burst(20)
    gate.reached.acquire(timeout=20)
    began = time.time()
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    arena.check(f"exit <= drain + 5 s ({time.time() - began:.1f} s)", time.time() - began <= drain + 5)
    arena.worker(machine="two")
    arena.all_sent(arena.taken_back_within + 20)
    arena.check(f"one unknown send ({arena.unknowns()})", arena.unknowns() == 1)
    arena.allowed_extra = 1
    gate.opened.set()


@row(
    "F8", "worker SIGSTOP 120 s, then CONT", "taken over <= 3 leases; stale fence refused; D <= 1 past the body, else 0"
)
def stopped(arena: Arena) -> None:
    server = stage(arena, DOT=slowly(0.02))
    stale = arena.worker()
    ids = arena.burst(60)
    eventually(lambda: len(server.log) >= arena.random.randint(5, 25), 10)
    stale.send_signal(signal.SIGSTOP)
    at = time.time()
    arena.worker(machine="two")
    arena.all_sent(arena.taken_back_within + 20)
    taken_over = [
        one for one in ids if any(line["what"] in ("crashed", "unknown") for line in arena.status(one).history)
    ]
    arena.recovered(last_come(arena, taken_over, at), arena.taken_back_within)
    time.sleep(arena.scaled(120, 2))
    before = len(server.log)
    stale.send_signal(signal.SIGCONT)
    time.sleep(2.0)
    arena.allowed_extra = min(arena.unknowns(), THREADS)
    late = {taken.id for taken in server.log[before:]}
    arena.check(
        f"the stale worker hands over nothing that was taken from it unsent ({len(late)})",
        all(arena.unknown_attempts(one) for one in late),
    )
    arena.check("all stay sent", arena.count() == {"sent": 60})


PUBLISHER = """
import sys
from postier.client import Postier
from postier.settings.config import Settings
from tests.ledger.kit import data_change
url, key = sys.argv[1:]
client = Postier(settings=Settings(redis_url=url, namespace="faults", seal_keys=key))
for number in range(100000):
    print("try", number, flush=True)
    answer = client.publish(data_change(), tenant="school", idempotency_key=f"k{number}")
    print("ok", number, answer.deliveries[0], flush=True)
"""


@row(
    "F9", "kill -9 publisher around its call", "a record exists whole or not at all; the same id gives the first answer"
)
def publisher_killed(arena: Arena) -> None:
    stage(arena)
    store = arena.home.store
    for round_number in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PUBLISHER), arena.home.settings.redis_url, arena.seal_key],
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.Random(arena.seed * 100 + round_number).uniform(0.01, 0.2))
        process.kill()
        lines = process.stdout.read().decode().splitlines()
        process.wait()
        told = {
            int(line.split()[1]): line.split()[2] for line in lines if line.startswith("ok") and len(line.split()) == 3
        }
        for number in range(max(told, default=-1) + 3):
            (known,) = arena.home.queries.deliveries_of("school", f"k{number}") or ("",)
            whole = known == "" or (
                store.redis.exists(store.key(f"delivery:{known}")) and store.redis.exists(store.key(f"payload:{known}"))
            )
            if not whole or (number in told and told[number] != known):
                arena.check(f"round {round_number}, key {number}: whole, and as told", False)
            if known:
                arena.accepted[known] = time.time()
        store.redis.delete(*[store.key(f"key:school:k{number}") for number in range(max(told, default=0) + 3)])
    arena.check("every record whole", True)
    again = data_change()
    answers = [arena.client.publish(again, tenant="school", idempotency_key="same") for _ in range(2)]
    arena.accepted[answers[0].deliveries[0]] = time.time()
    arena.check("the same id gives the first answer", answers[0].deliveries == answers[1].deliveries)
    arena.worker()
    arena.all_sent(30)
