"""Accounts in the ledger: what publishers route by, and the limits the claim script enforces."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from postier.ledger.retention import tell_retention
from postier.ledger.store import Argument, Store, translated
from postier.schemas.account import Account, Limits, Registry

# What the claim script makes up for when it looks late (LATE in permits.lua), as a share of the window.
_LATE = 0.015
# Seconds that a mail may leave later than its neighbours after its permit, before a window at the provider holds one
# too many. Half of that was too little beside twice as much work as the machine has cores for.
_ROOM = 0.05


def pace(limit: float, window: float) -> int:
    """GCRA interval (microseconds) for `limit` mails per `window` seconds.

    Chosen so that no window holds more than `limit` mails, however late the looks are and though a mail leaves late:
    1 + floor((window + lateness made up for + lateness) / interval) <= limit.
    """
    # Less than that is as good as never, and the least that TOML can write would make an infinite interval.
    limit = max(limit, 0.000_001)
    return max(1, math.ceil((window * (1 + _LATE) + _ROOM) / limit * 1_000_000))


def _day_end(limits: Limits, now: datetime) -> datetime:
    """When the day that `now` is in ends for these limits."""
    hour, minute = map(int, limits.day_resets_at.split(":"))
    local = now.astimezone(ZoneInfo(limits.timezone))
    end = local.replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0)
    if end.timestamp() <= now.timestamp():  # by the clock on the wall, the hour that comes twice compares wrongly
        tomorrow = local.date() + timedelta(days=1)
        end = end.replace(year=tomorrow.year, month=tomorrow.month, day=tomorrow.day)
    return end


def _fields(account: Account, now: datetime) -> dict[str, Argument]:
    limits = account.limits
    fields: dict[str, Argument] = {
        "cap": limits.max_connections,
        "max_given": limits.max_recipients,
        "hour_limit": limits.per_hour or "",
        "day_limit": limits.per_day or "",
        "day_end": int(_day_end(limits, now).timestamp() * 1e6) if limits.per_day else "",
        "counts": "r" if limits.counts == "recipients" else "m",
        "fallback": account.fallback or "",
        "overflow": account.overflow if account.fallback else "",
    }
    for rule, limit, window in (("second", limits.per_second, 1.0), ("minute", limits.per_minute, 60.0)):
        fields[f"{rule}_t"] = pace(limit, window) if limit is not None else ""
        fields[f"{rule}_b"] = 1 if limit is not None else ""  # a burst, of which workers of before had more
    return fields


def configure(
    store: Store,
    registry: Registry,
    *,
    credentials: Mapping[str, str] | None = None,
    told: Mapping[str, str] | None = None,
    files: Registry | None = None,
    public: bool = True,
) -> list[str]:
    """Make the ledger know these accounts and tenants (without their options), and when their quotas start anew.

    `credentials` names, by account, the secrets it logs in with (a keyed fingerprint): an account that waits for a
    better one is tried again when it changes. `told` are those that this worker named last: what it merely repeats is
    no change, even where another worker has other secrets; an account that it did not know is tried again if it waits
    because a worker did not have it. `files` is the part of the registry that comes from accounts files: it
    is kept for commands that run where those files are not. States and counts are kept; repeating is safe, and wanted
    once a minute.
    Returns the accounts whose credential changed. Raises LedgerUnavailable.
    """
    text = public_text(registry) if public else ""
    args: list[Argument] = [text, hashlib.sha256(text.encode()).hexdigest(), len(registry.accounts)]
    now = datetime.fromtimestamp(store.now() / 1e6, UTC)
    for account in registry.accounts.values():
        credential = (credentials or {}).get(account.name)
        fields = _fields(account, now)
        if credential is not None:
            before = None if told is None else told.get(account.name)
            fields["repeated" if credential == before else "credential"] = credential
            if told is not None and before is None:
                fields["appeared"] = 1
        args.extend((account.name, len(fields)))
        for field, value in fields.items():
            args.extend((field, value))
    changed = [name.decode() for name in store.run("configure", args)]
    if files is not None:
        with translated():
            store.redis.hset(store.key("registry"), "files", public_text(files))
    tell_retention(store, registry)
    return changed


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
