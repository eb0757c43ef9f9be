"""The private Redis server ends, whatever state it is in."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis

from postier.ledger import embedded
from postier.ledger.embedded import EmbeddedServer, find_server, free_port


def test_a_server_that_does_not_listen_to_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.2)
    server = EmbeddedServer(tmp_path, fsync="no").start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    server.stop()
    server.stop()

    assert server.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_still_reads_its_data_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, slow = tmp_path / "data", tmp_path / "slow-server"
    slow.write_text(f'#!/bin/sh\nexec "{find_server()}" "$@" --key-load-delay 200\n')  # microseconds
    slow.chmod(0o700)
    with EmbeddedServer(data, fsync="no") as server, redis.Redis(port=server.port) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(12_000):  # it answers after every 1,024 commands
            pipe.set(f"key{number}", "x")
        pipe.execute()
    ahead = 0.0

    class Asking(redis.Redis):
        """Lets the time to start be over once the server says that it reads."""

        def ping(self, **more: object) -> object:
            nonlocal ahead
            try:
                return super().ping(**more)
            except redis.exceptions.BusyLoadingError:
                ahead = 2 * embedded._START_SECONDS
                raise

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + ahead, sleep=time.sleep)
    monkeypatch.setattr(embedded, "time", clock)
    monkeypatch.setattr(embedded, "redis", SimpleNamespace(Redis=Asking, RedisError=redis.RedisError))

    with EmbeddedServer(data, fsync="no", binary=str(slow)) as server, redis.Redis(port=server.port) as client:
        assert client.dbsize() == 12_000
    assert ahead, "it was asked while it read"


def test_its_port_is_never_given_to_somebody_who_connects_elsewhere() -> None:
    usual = 32_768  # where Linux begins; other systems begin above

    assert all(free_port() < usual for _ in range(20))
