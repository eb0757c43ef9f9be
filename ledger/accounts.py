"""Accounts in the ledger: what publishers route by, and the limits the claim script enforces."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Iterable

from postier.ledger.store import Argument, Store, translated
from postier.schemas.account import Account, Registry

# Mail leaves a little after its permit was given, and the claim script makes up for half of this share of the window:
# the other half keeps late mails from adding up to an excess.
_GUARD = 0.075
_BURST_SHARE = 0.02


def pace(limit: float, window: float) -> tuple[int, int]:
    """GCRA interval (microseconds) and burst for `limit` mails per `window` seconds.

    Chosen so that no window holds more than `limit` mails, even when one leaves 3.75 % of the window late:
    burst + floor((window + lateness made up for + lateness) / interval) <= limit.
    """
    burst = max(1, math.floor(limit * _BURST_SHARE))
    interval = (1 + _GUARD) * window / (limit - burst + 1 if limit > 1 else limit)
    return max(1, math.ceil(interval * 1_000_000)), burst


def _limits(account: Account) -> Iterable[Argument]:
    yield account.name
    yield account.limits.max_connections
    for limit, window in ((account.limits.per_second, 1.0), (account.limits.per_minute, 60.0)):
        if limit is None:
            yield from ("", "")
        else:
            yield from pace(limit, window)


def configure(store: Store, registry: Registry) -> bool:
    """Make the ledger know these accounts and tenants (without their options). Returns whether that was news.

    Accounts' states and running counts are kept; repeating is safe. Raises LedgerUnavailable.
    """
    text = public_text(registry)
    args: list[Argument] = [text, hashlib.sha256(text.encode()).hexdigest(), len(registry.accounts)]
    for account in registry.accounts.values():
        args.extend(_limits(account))
    return bool(store.run("configure", args))


def public_text(registry: Registry) -> str:
    """The registry as JSON without any driver options: what publishers may know."""
    return registry.model_dump_json(exclude={"accounts": {"__all__": {"options"}}})


class RegistryReader:
    """The registry as publishers see it, read from the ledger at most once every `fresh` seconds. Thread-safe."""

    def __init__(self, store: Store, *, fresh: float = 5.0) -> None:
        self._store = store
        self._fresh = fresh
        self._lock = threading.Lock()
        self._read_at = -math.inf
        self._version = b""
        self._registry = Registry()

    def current(self, *, again: bool = False) -> Registry:
        """The registry; `again` forces a look. Raises LedgerUnavailable."""
        with self._lock:
            if again or time.monotonic() - self._read_at > self._fresh:
                with translated():
                    version, text = self._store.redis.hmget(self._store.key("registry"), "version", "text")
                if text is not None and version != self._version:
                    self._registry = Registry.model_validate_json(text)
                    self._version = version
                self._read_at = time.monotonic()
            return self._registry
