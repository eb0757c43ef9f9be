"""A ledger that nobody used before, commands on it, and a mail server that they may reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from postier.console.demo_catcher import Catcher
from postier.console.demo_certificate import make_certificate
from postier.ledger.account_store import AccountStore
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.store import Store
from postier.schemas.account import Registry
from postier.settings.seal import Sealer
from tests.accounts.kit import Mail, MakeBook
from tests.conftest import alone_in_the_environment


@pytest.fixture
def environment(
    valkey: EmbeddedServer, namespace: str, seal_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Settings without any accounts file; loopback may be reached."""
    settings = {
        "POSTIER_REDIS_URL": valkey.url,
        "POSTIER_NAMESPACE": namespace,
        "POSTIER_SEAL_KEYS": seal_key,
        "POSTIER_DATA_DIR": str(tmp_path / "data"),
        "POSTIER_EGRESS_ALLOW": "127.0.0.1",
        "POSTIER_PUBLIC_URL": "https://mail.example.org",
    }
    return alone_in_the_environment(settings, monkeypatch)


@pytest.fixture
def make_book(store: Store, sealer: Sealer) -> MakeBook:
    """The accounts kept in the ledger, beside these files, changed by `anna`."""

    def make(files: Registry | None = None, *, who: str = "anna", trusted: bool = True) -> AccountStore:
        return AccountStore(store, files or Registry(), who=who, sealer=sealer, trusted=trusted)

    return make


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[Mail]:
    """A mail server with STARTTLS that lets `office` in with `open sesame`."""
    authority, certificate = make_certificate(tmp_path / "tls")
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "office").write_text("open sesame")
    running = Catcher(passwords=tmp_path / "users", mail=tmp_path / "mail", certificate=certificate).start()
    yield Mail(running.port, str(authority), tmp_path / "mail" / "office")
    running.stop()
