"""The private Redis server ends, whatever state it is in."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from postier.ledger import embedded
from postier.ledger.embedded import EmbeddedServer


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
