"""`postier work`: processes that stay, drain when asked, and never outlive their supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postier.console.demo_catcher import Catcher
from postier.ledger.queries import Queries
from postier.ledger.store import Store
from postier.workers.supervisor import Supervisor
from tests.console.helpers import Run, publish, reset_link, wait_until, write_lines

# A child that says its number of starts and then waits for its end as workers do.
CHILD = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with open(sys.argv[1], "a") as starts: starts.write(f"{os.getpid()}\\n")
if len(sys.argv) > 2: sys.exit(int(sys.argv[2]))
signal.sigwait({signal.SIGTERM})
"""


def child(starts: Path, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", CHILD, str(starts), *arguments)


def pids(starts: Path) -> list[int]:
    return [int(line) for line in starts.read_text().splitlines()] if starts.exists() else []


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def work(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `postier work`; ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "work.log").open("ab") as log:
            command = [sys.executable, "-P", "-m", "postier.console", "work", *arguments]
            started.append(subprocess.Popen(command, stderr=log))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def logged(tmp_path: Path, what: str) -> int:
    return (tmp_path / "work.log").read_text().count(f'"{what}"')


def test_a_dead_child_is_started_again_after_a_growing_pause(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    supervisor = Supervisor(processes=2, drain_seconds=60, command=child(starts))
    supervisor.start()
    wait_until(lambda: len(pids(starts)) == 2)

    os.kill(supervisor.pids[0], signal.SIGKILL)

    def three() -> bool:
        supervisor.watch()
        return len(pids(starts)) == 3

    wait_until(three)
    assert len(supervisor.pids) == 2
    assert supervisor.stop()
    assert not any(alive(pid) for pid in pids(starts))


def test_a_child_that_finds_its_set_up_wrong_ends_the_supervisor(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    supervisor = Supervisor(processes=1, drain_seconds=1, command=child(starts, "2"))
    supervisor.start()

    def refused() -> bool:
        supervisor.watch()
        return supervisor.wrong_set_up

    wait_until(refused)
    supervisor.watch()
    assert supervisor.pids == []
    assert len(pids(starts)) == 1
    supervisor.stop()


def test_hurry_kills_what_does_not_drain(tmp_path: Path) -> None:
    stubborn = (sys.executable, "-I", "-S", "-c", CHILD.replace("sigwait({signal.SIGTERM})", "pause()"))
    supervisor = Supervisor(processes=1, drain_seconds=60, command=(*stubborn, str(tmp_path / "starts")))
    supervisor.start()
    wait_until(lambda: pids(tmp_path / "starts"))
    supervisor.hurry()

    assert not supervisor.stop()
    assert not any(alive(pid) for pid in pids(tmp_path / "starts"))


def test_published_mail_leaves_once_a_second_publish_sends_nothing_and_sigterm_ends_in_order(
    postier: Run,
    store: Store,
    catcher: Catcher,
    work: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    working = work("--processes", "1", "--threads", "2")
    file = write_lines(tmp_path / "events.jsonl", reset_link(id="a"), reset_link("ann@example.org", id="b"))
    first = postier("publish", file)
    wait_until(lambda: Queries(store).counts()["sent"] == 2)

    again = postier("publish", file)
    publish(postier, tmp_path, reset_link("last@example.org"))  # whatever was published before it has left with it
    wait_until(lambda: Queries(store).counts()["sent"] == 3)

    assert [line["deliveries"] for line in first.lines] == [line["deliveries"] for line in again.lines]
    assert catcher.taken == 3
    assert postier("doctor", "--json").json["ok"]
    working.send_signal(signal.SIGTERM)
    assert working.wait(timeout=60) == 0
    assert logged(tmp_path, "worker.stopped") == 1


def test_a_killed_worker_is_replaced_and_goes_on_delivering(
    postier: Run,
    store: Store,
    catcher: Catcher,
    work: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    working = work("--processes", "1", "--threads", "2")
    wait_until(lambda: logged(tmp_path, "worker.started") == 1)
    (victim,) = children(working.pid)

    os.kill(victim, signal.SIGKILL)

    publish(postier, tmp_path, reset_link())
    wait_until(lambda: Queries(store).counts()["sent"] == 1)
    assert logged(tmp_path, "worker.died") == 1
    assert victim not in children(working.pid)


def test_workers_end_by_themselves_when_their_supervisor_is_killed(
    store: Store, work: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    working = work("--processes", "2", "--threads", "1")
    wait_until(lambda: logged(tmp_path, "worker.started") == 2)
    orphans = children(working.pid)

    working.kill()
    working.wait()

    wait_until(lambda: not any(alive(pid) for pid in orphans))
    assert logged(tmp_path, "worker.stopped") == 2


def children(pid: int) -> list[int]:
    """The children of a process, by /proc."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


@pytest.mark.parametrize(("name", "value"), [("POSTIER_SEAL_KEYS", ""), ("POSTIER_ACCOUNTS_FILE", "/nowhere.toml")])
def test_a_wrong_set_up_starts_nothing_and_is_exit_2_in_one_line(
    postier: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "postier.console", "work"], capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"postier: {name}: ")
    assert done.stderr.count("\n") == 1
