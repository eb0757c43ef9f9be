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
