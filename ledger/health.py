"""What the server behind a ledger is and promises, and whether workers are at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from postier.ledger.store import Store, translated


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The server's own words; None where it does not tell (managed servers often forbid CONFIG). Sizes in bytes."""

    name: str
    version: str
    policy: str | None
    append_only: bool | None
    append_fsync: str | None
    writes_fail: bool
    used_memory: int | None
    max_memory: int | None


def server_facts(store: Store, *, condition_only: bool = False) -> ServerFacts:
    """Ask the server; how it is, or (dearer) what it is and promises, too. Raises LedgerUnavailable."""
    info: dict[str, object] = {}
    found: dict[Any, Any] = {}
    with translated():
        for section in ("memory", "persistence") if condition_only else ("server", "memory", "persistence"):
            try:
                info |= store.redis.info(section)
            except ResponseError:  # NOPERM: an access list without INFO
                continue
        try:
            found = {} if condition_only else store.redis.config_get("appendfsync")
        except ResponseError:
            found = {}
    fsync = found.get("appendfsync", found.get(b"appendfsync"))
    return ServerFacts(
        name=str(info.get("server_name", "redis")),
        version=str(info.get("valkey_version") or info.get("redis_version") or "unknown"),
        policy=_text(info.get("maxmemory_policy")),
        append_only=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
        append_fsync=_text(fsync),
        writes_fail=info.get("aof_last_write_status", "ok") != "ok",
        used_memory=_number(info.get("used_memory")),
        max_memory=_number(info.get("maxmemory")),
    )


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value is None else str(value)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def last_claim(store: Store) -> float | None:
    """Seconds since a worker last looked for mail; None when none ever did. Living ones look every second."""
    with translated():
        tick = store.redis.get(store.key("tick"))
    return None if tick is None else max(0.0, (store.now() + store.ahead() - int(float(tick))) / 1e6)
