"""The ledger's own fixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from postier.ledger.store import Store
from postier.settings.seal import Sealer
from tests.ledger.kit import Ledger, move_time_by_hand, registry


@pytest.fixture
def make_ledger(store: Store, sealer: Sealer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ledger]:
    """A ledger whose accounts have the limits given by name; its clock stands still until it is moved."""
    move_time_by_hand(monkeypatch)

    def make(**limits: dict[str, Any]) -> Ledger:
        return Ledger(store, sealer, registry(**limits))

    return make


@pytest.fixture
def ledger(make_ledger: Callable[..., Ledger]) -> Ledger:
    """A ledger with one account without limits, `main`."""
    return make_ledger()
