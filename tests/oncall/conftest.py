"""A ledger whose clock is moved by hand, for the tests of what people on call do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from postier.ledger.replay import Replays
from postier.ledger.store import Store
from postier.settings.seal import Sealer
from tests.ledger.kit import Ledger, move_time_by_hand, registry

MakeLedger = Callable[..., Ledger]


@pytest.fixture
def make_ledger(store: Store, sealer: Sealer, monkeypatch: pytest.MonkeyPatch) -> MakeLedger:
    """A ledger whose accounts have the limits given by name; its clock stands still until it is moved."""
    move_time_by_hand(monkeypatch)

    def make(**limits: dict[str, Any]) -> Ledger:
        made = Ledger(store, sealer, registry(**limits))
        monkeypatch.setattr(store, "now", lambda: made.now)
        return made

    return make


@pytest.fixture
def ledger(make_ledger: MakeLedger) -> Ledger:
    """A ledger with the accounts `main` and `spare`."""
    return make_ledger(main={}, spare={})


@pytest.fixture
def replays(ledger: Ledger) -> Replays:
    return Replays(ledger.store, "ann")
