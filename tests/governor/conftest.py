"""The governor's fixtures: a ledger with a clock moved by hand, and a house of real worker processes."""

from __future__ import annotations

from typing import Any

import pytest

from postier.ledger.store import Store
from postier.settings.seal import Sealer
from tests.governor.kit import MakeGovernor, accounts
from tests.ledger.kit import Ledger, move_time_by_hand
from tests.workers.conftest import make_house

__all__ = ["make_house"]


@pytest.fixture
def make_governor(store: Store, sealer: Sealer, monkeypatch: pytest.MonkeyPatch) -> MakeGovernor:
    """A ledger whose accounts have these settings and have sent before; its clock stands still until it is moved."""
    move_time_by_hand(monkeypatch)

    def make(**given: dict[str, Any]) -> Ledger:
        return Ledger(store, sealer, accounts(**given))

    return make
