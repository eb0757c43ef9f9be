"""One yard for all attacks of a test run: commands in front, a worker process behind, real servers at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from postier.ledger.embedded import EmbeddedServer
from tests.attacks.kit import Yard
from tests.drivers.conftest import certificates

__all__ = ["certificates"]


@pytest.fixture(scope="session")
def yard(valkey: EmbeddedServer, seal_key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    made = Yard(valkey.url, f"yard-{os.getpid()}", seal_key, tmp_path_factory.mktemp("yard"))
    try:
        made.start_worker()
        yield made
    finally:
        made.close()
