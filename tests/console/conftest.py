"""A real Valkey for the session; each test has a ledger of its own on it, and runs commands in this process."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from postier.console.demo_catcher import Catcher
from postier.console.demo_certificate import make_certificate
from postier.ledger.accounts import configure
from postier.ledger.embedded import EmbeddedServer
from postier.ledger.store import Store
from postier.settings.config import read_registry
from postier.settings.seal import Sealer
from tests.conftest import alone_in_the_environment
from tests.console.helpers import ACCOUNTS

_namespaces = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("valkey"), fsync="always") as running:
        yield running


@pytest.fixture
def environment(server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of a ledger that nobody used before, in the environment."""
    accounts = tmp_path / "accounts.toml"
    (tmp_path / "password").write_text("open sesame")
    accounts.write_text(ACCOUNTS.format(folder=tmp_path, port=9, more=""))
    settings = {
        "POSTIER_REDIS_URL": server.url,
        "POSTIER_NAMESPACE": f"t{os.getpid()}-{next(_namespaces)}",
        "POSTIER_SEAL_KEYS": Sealer.new_key(),
        "POSTIER_ACCOUNTS_FILE": str(accounts),
        "POSTIER_DATA_DIR": str(tmp_path / "data"),
    }
    return alone_in_the_environment(settings, monkeypatch)


@pytest.fixture
def store(environment: dict[str, str]) -> Iterator[Store]:
    """The test's ledger, which knows the accounts as if a worker had started."""
    opened = Store(environment["POSTIER_REDIS_URL"], namespace=environment["POSTIER_NAMESPACE"])
    configure(opened, read_registry(Path(environment["POSTIER_ACCOUNTS_FILE"])))
    yield opened
    opened.close()


@pytest.fixture
def catcher(environment: dict[str, str], tmp_path: Path) -> Iterator[Catcher]:
    """A mail server that `office` of the accounts file points to."""
    authority, certificate = make_certificate(tmp_path / "tls")
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "office").write_text("open sesame")
    running = Catcher(passwords=tmp_path / "users", mail=tmp_path / "mail", certificate=certificate).start()
    Path(environment["POSTIER_ACCOUNTS_FILE"]).write_text(
        ACCOUNTS.format(folder=tmp_path, port=running.port, more=f'ca_file = "{authority}"\n')
    )
    yield running
    running.stop()
