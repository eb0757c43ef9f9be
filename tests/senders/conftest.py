"""A ledger of one's own, commands on it, and the page behind confirmation links."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from postier.console.sender_pages import ConfirmationServer
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.senders import Senders
from postier.ledger.store import Store
from tests.conftest import alone_in_the_environment


@pytest.fixture
def environment(
    valkey: EmbeddedServer, namespace: str, seal_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    settings = {
        "POSTIER_REDIS_URL": valkey.url,
        "POSTIER_NAMESPACE": namespace,
        "POSTIER_SEAL_KEYS": seal_key,
        "POSTIER_DATA_DIR": str(tmp_path / "data"),
        "POSTIER_EGRESS_ALLOW": "127.0.0.1",
        "POSTIER_PUBLIC_URL": "https://mail.instance.example",
        "POSTIER_ALLOW_VOLATILE": "1",
    }
    return alone_in_the_environment(settings, monkeypatch)


@pytest.fixture
def senders(store: Store) -> Senders:
    return Senders(store, who="anna")


@pytest.fixture
def pages(senders: Senders) -> Iterator[int]:
    """The port of the page."""
    server = ConfirmationServer(senders)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join(30)
