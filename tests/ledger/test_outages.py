"""A store outlives any number of refused connections."""

from __future__ import annotations

from pathlib import Path

import pytest

from postier.ledger.embedded import EmbeddedServer, free_port
from postier.ledger.store import Store
from postier.schemas.errors import LedgerUnavailable


def test_a_store_works_again_after_hundreds_of_refused_connections(tmp_path: Path) -> None:
    port = free_port()
    store = Store(f"redis://127.0.0.1:{port}/0", timeout=1.0)
    for _ in range(300):
        with pytest.raises(LedgerUnavailable):
            store.run("dataset", ("name", ""))
    with EmbeddedServer(tmp_path, port=port, fsync="no"):
        assert store.run("dataset", ("name", ""))[0] == b"name"
    store.close()


def test_a_connection_that_the_server_closed_is_replaced_unseen_once_it_lay_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postier.ledger.store._SURELY_OPEN", 0.0)
    with EmbeddedServer(tmp_path, fsync="no") as redis:
        store = Store(redis.url, timeout=1.0)
        store.run("dataset", ("name", ""))
        store.redis.client_kill_filter(_type="normal", skipme=True)
        assert store.run("dataset", ("name", ""))[0] == b"name"
        assert store.lost_connections == 1
        store.close()
