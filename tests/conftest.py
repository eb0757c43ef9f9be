"""One real Redis-protocol server per test process, a fresh ledger per test, and waiting for conditions."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from postier.ledger.embedded import EmbeddedServer
from postier.ledger.store import Store
from postier.settings.seal import Sealer

if TYPE_CHECKING:
    from tests.console.helpers import Run

PATIENCE = 30.0
"""Seconds that a test waits for what has to come: no promise of ours, only what a slow and busy machine never needs."""

os.environ.setdefault("AIOSMTPD_CONTROLLER_TIMEOUT", str(PATIENCE))
_numbers = itertools.count(1)

# Hypothesis' own limits (200 ms for an example, a second for drawing some) measure the machine.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def until(condition: Callable[[], object], seconds: float = PATIENCE, *, what: str = "the condition") -> None:
    """Wait until `condition` holds; fail the test when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {seconds:g} s")
        time.sleep(0.01)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The server that tests share; each one uses a namespace of its own."""
    with EmbeddedServer(tmp_path_factory.mktemp("valkey"), fsync="no") as server:
        yield server


@pytest.fixture
def namespace() -> str:
    return f"t{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def store(valkey: EmbeddedServer, namespace: str) -> Iterator[Store]:
    """An empty ledger."""
    store = Store(valkey.url, namespace=namespace)
    yield store
    store.close()


@pytest.fixture(scope="session")
def seal_key() -> str:
    return Sealer.new_key()


@pytest.fixture(scope="session")
def sealer(seal_key: str) -> Sealer:
    return Sealer.from_text(seal_key)


def alone_in_the_environment(settings: dict[str, str], patch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set these `POSTIER_...` variables and no others; returns them."""
    for name in list(os.environ):
        if name.startswith("POSTIER_"):
            patch.delenv(name)
    for name, value in settings.items():
        patch.setenv(name, value)
    return settings


@pytest.fixture
def postier(environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a postier command in the test's `environment`, in this process."""
    from postier.console.main import main
    from tests.console.helpers import Answer

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run
