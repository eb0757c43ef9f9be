"""The workers' own fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from postier.ledger.embedded import EmbeddedServer
from postier.ledger.store import Store
from postier.settings.seal import Sealer
from tests.ledger.kit import Ledger, move_time_by_hand, registry
from tests.workers.kit import House

MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(valkey: EmbeddedServer, namespace: str, seal_key: str, tmp_path: Path) -> Iterator[MakeHouse]:
    """A ledger with these accounts; every worker it started is gone after the test."""
    houses: list[House] = []

    def make(url: str | None = None, **accounts: dict[str, Any]) -> House:
        houses.append(House(url or valkey.url, namespace, seal_key, tmp_path, accounts))
        return houses[-1]

    yield make
    for house in houses:
        house.close()


@pytest.fixture
def ledger(store: Store, sealer: Sealer, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger without workers, with one account without limits, `main`; its clock stands still."""
    move_time_by_hand(monkeypatch)
    return Ledger(store, sealer, registry())
