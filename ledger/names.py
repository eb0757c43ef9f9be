"""The names of a ledger's tenants and accounts, for commands that need no more: reading them costs no model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from postier.ledger.store import Store, translated


@dataclass(frozen=True, slots=True)
class Names:
    """All tenants, and the driver of each account."""

    tenants: tuple[str, ...]
    drivers: Mapping[str, str]


def told_names(store: Store) -> Names | None:
    """What workers and account commands told the ledger last; None while nobody did. Raises LedgerUnavailable.

    No event of a tenant is accepted before the ledger was told of it.
    """
    with translated():
        text = store.redis.hget(store.key("registry"), "text")
    if text is None:
        return None
    told = json.loads(text)
    drivers = {name: str(account.get("driver", "")) for name, account in told.get("accounts", {}).items()}
    return Names(tuple(sorted(told.get("tenants", {}))), drivers)
