"""What every benchmark needs: an embedded Redis, an SMTP sink, workers, accounts, and the CPU each of them used."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from postier.client import Postier, Recipient, ResetLink
from postier.ledger.embedded import EmbeddedServer, free_port
from postier.settings.seal import Sealer

HERE = Path(__file__).parent
TENANT = "school"


def wait_until(condition: Callable[[], bool], seconds: float, what: str, *, every: float = 0.01) -> None:
    """Wait for a condition, or raise TimeoutError saying for what."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)


def cpu_seconds(pid: int) -> float:
    """CPU a process and its dead children have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> float:
    """Largest resident size of a process so far, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def reset_link(number: int, *, at: datetime | None = None) -> ResetLink:
    """A reset link for recipient `number`."""
    now = at or datetime.now(UTC)
    return ResetLink(
        recipient=Recipient(address=f"user{number}@example.com", name="Ana Lima"),
        action_url=f"https://app.example.org/reset/{number}",
        requested_at=now,
        expires_at=now + timedelta(hours=6),
    )


class SinkProcess:
    """An SMTP sink of its own; `log` is what it took."""

    def __init__(self, *, delay: float = 0.0) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "sink.py"), str(self.port), str(delay)], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def _ask(self, verb: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port)) as line, line.makefile("rwb") as file:
            file.readline()
            file.write(verb + b"\r\n")
            file.flush()
            return bytes(file.readline()[4:])

    def count(self) -> int:
        """How many mails it took."""
        return int(self._ask(b"XNUM"))

    def log(self) -> list[tuple[float, str, str]]:
        """(seconds since 1970, envelope sender, Message-ID) of every mail."""
        return [tuple(row) for row in json.loads(self._ask(b"XLOG"))["taken"]]

    def took(self, count: int, seconds: float) -> float:
        """Wait until it has `count` mails and say when the last of them came, in seconds since 1970.

        Looks rarely, since what it measures has the same cores; the log knows the time better than who looks.
        """
        wait_until(lambda: self.count() >= count, seconds, f"{count} mails to arrive", every=0.05)
        return self.log()[count - 1][0] if count else 0.0

    def most_open(self) -> int:
        """The most connections open at once."""
        return int(json.loads(self._ask(b"XLOG"))["most_open"])

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


class Stage:
    """A whole postier in a scratch folder. `accounts` is the TOML of the accounts, with {port} for the sink's port."""

    def __init__(
        self, accounts: str, *, processes: int = 1, threads: int = 8, fsync: str = "everysec", delay: float = 0.0,
        maxmemory: str = "2gb", **settings: str,
    ) -> None:  # fmt: skip
        self.folder = Path(tempfile.mkdtemp(prefix="postier-bench-"))
        self.sink = SinkProcess(delay=delay)
        self.redis = EmbeddedServer(self.folder / "redis", fsync=fsync, maxmemory=maxmemory).start()  # type: ignore[arg-type]
        (self.folder / "accounts.toml").write_text(accounts.replace("{port}", str(self.sink.port)))
        self.environment = {
            **os.environ,
            "POSTIER_REDIS_URL": self.redis.url,
            "POSTIER_SEAL_KEYS": Sealer.new_key(),
            "POSTIER_ACCOUNTS_FILE": str(self.folder / "accounts.toml"),
            "POSTIER_DATA_DIR": str(self.folder / "data"),
            "POSTIER_THREADS": str(threads),
            "POSTIER_LOG_LEVEL": "warning",
            **settings,
        }
        os.environ.update(self.environment)
        self.workers: list[subprocess.Popen[bytes]] = []
        self._looking = 0.0
        self.client = Postier()
        try:
            for _ in range(processes):
                self.start_worker()
            wait_until(self._configured, 30, "the accounts to be known")
        except BaseException:
            self.close()
            raise

    def _configured(self) -> bool:
        with contextlib.suppress(Exception):
            return TENANT in self.client._reader.current(again=True).tenants
        return False

    def start_worker(self) -> subprocess.Popen[bytes]:
        """One more worker process."""
        worker = subprocess.Popen([sys.executable, "-m", "postier.workers.main"], env=self.environment)
        self.workers.append(worker)
        return worker

    def took(self, count: int, seconds: float) -> float:
        """`SinkProcess.took`, whose CPU is not the publisher's."""
        began = time.thread_time()
        try:
            return self.sink.took(count, seconds)
        finally:
            self._looking += time.thread_time() - began

    def cpu(self) -> dict[str, float]:
        """CPU seconds used so far by publisher, workers and Redis; the publisher is this process, without `took`."""
        assert self.redis.pid is not None
        return {
            "publisher": time.process_time() - self._looking,
            "workers": sum(cpu_seconds(worker.pid) for worker in self.workers if worker.poll() is None),
            "redis": cpu_seconds(self.redis.pid),
        }

    def close(self) -> None:
        """End everything that was started."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.terminate()
        for worker in self.workers:
            try:
                worker.wait(timeout=35)
            except subprocess.TimeoutExpired:
                worker.kill()
        self.client.close()
        self.redis.stop()
        self.sink.stop()


@contextlib.contextmanager
def stage(accounts: str, **settings: Any) -> Iterator[Stage]:
    """A Stage that is closed at the end."""
    made = Stage(accounts, **settings)
    try:
        yield made
    finally:
        made.close()


def account(name: str, *, limits: str = "", port: str = "{port}", sender: str | None = None) -> str:
    """TOML of one account on the sink."""
    return (
        f'[accounts.{name}]\ndriver = "smtp"\n'
        f'sender = {{ address = "{sender or name}@example.org", name = "{name}" }}\n'
        f"limits = {{ {limits} }}\n"
        f'options = {{ host = "127.0.0.1", port = {port}, security = "none", auth = "none", '
        'allow_hosts = ["127.0.0.1"] }\n'
    )


TENANTS = f'[tenants.{TENANT}]\nallowed_hosts = ["app.example.org"]\n'
