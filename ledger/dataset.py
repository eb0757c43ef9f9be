"""Which data this ledger holds: workers remember it, and send nothing from a ledger that was flushed or restored.

The ledger has a name made once, and the time of its last sign of life. A worker keeps both in its data folder. A
ledger with another name, without one, or whose last sign of life lies more than a minute before the remembered one is
not the one the worker knew: sending on would send old mail again. All workers stop then, until a person accepts it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from postier.ledger.store import Store, translated
from postier.schemas.errors import LedgerUnavailable
from postier.settings.logs import log

# What a crash of Redis, a power cut or a failover may cost is not a restored backup (microseconds).
_TOLERATED = 60_000_000
_TELL_SECONDS = 60.0
_FIELDS = ("id", "seen", "stopped", "forgiven")


class LedgerChanged(LedgerUnavailable):
    """The ledger is not the one this worker knew; a person must say that it may go on."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of a ledger: its name and its last sign of life (Redis microseconds)."""

    id: str
    seen: int


class Dataset:
    """This machine's memory of a ledger, in a file of `folder`. Install `check` as the store's guard, then `beat`.

    A disk that is full or read-only costs the memory, never a delivery.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        at = urlsplit(store.url)
        where = f"{at.hostname}:{at.port}{at.path}#{store.namespace}"
        self._path = folder / f"dataset-{hashlib.sha256(where.encode()).hexdigest()[:12]}.json"
        self._known = self._read()
        self._told_at = -_TELL_SECONDS

    def check(self, connection: Any) -> None:
        """Look at the ledger behind a new connection. Raises LedgerChanged."""
        connection.send_command("HMGET", self._store.key("dataset"), *_FIELDS, check_health=False)
        self._judge(*(_text(value) for value in connection.read_response()))

    def beat(self) -> None:
        """Write a sign of life, and remember it. Raises LedgerChanged, LedgerUnavailable."""
        with translated():
            row = self._store.redis.hmget(self._store.key("dataset"), _FIELDS)
        self._judge(*map(_text, row))
        known = self._known.id if self._known else ""
        name, seen = self._store.run("dataset", (uuid4().hex, known))
        if known and name.decode() != known:
            self._stop("it holds other data")
        self._remember(_Known(name.decode(), int(seen)))

    def _judge(self, name: str, seen: str, stopped: str, forgiven: str) -> None:
        if stopped:
            self._raise(str(json.loads(stopped).get("words", "")))
        known = self._known
        if known is None or (name == known.id and int(seen or 0) >= known.seen):
            return
        if forgiven:
            pardon = json.loads(forgiven)
            if pardon["id"] == known.id and known.seen <= pardon["seen"] + _TOLERATED:
                self._known = None
                return
        if not name:
            self._stop("it is empty, and was not")
        if name != known.id:
            self._stop("it holds other data")
        back = known.seen - int(seen or 0)
        if back > _TOLERATED:
            self._stop(f"it went back {back / 1e6 / 60:.0f} minutes, as a restored backup does")
        log().warning("ledger.went_back", seconds=round(back / 1e6, 1))
        self._known = _Known(name, int(seen or 0))

    def _stop(self, words: str) -> None:
        assert self._known is not None
        text = json.dumps({**asdict(self._known), "words": words})
        with translated():
            self._store.redis.hsetnx(self._store.key("dataset"), "stopped", text)
        self._raise(words)

    def _raise(self, words: str) -> None:
        self._store.forget_connections()
        now = time.monotonic()
        if now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            log().error(
                "ledger.changed", reason=words, advice="look at Redis; then `postier doctor --accept-dataset` goes on"
            )
        raise LedgerChanged(f"this is not the ledger that was here before: {words}")

    def _read(self) -> _Known | None:
        try:
            found = json.loads(self._path.read_text("utf-8"))
            return _Known(str(found["id"]), int(found["seen"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _remember(self, known: _Known) -> None:
        self._known = known
        fresh = self._path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh.write_text(json.dumps(asdict(known)), "utf-8")
            fresh.replace(self._path)


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("utf-8", "replace")


def why_stopped(store: Store) -> str | None:
    """Why workers refuse this ledger, in words; None when they do not. Raises LedgerUnavailable."""
    with translated():
        stopped = store.redis.hget(store.key("dataset"), "stopped")
    return None if stopped is None else str(json.loads(stopped).get("words", ""))


def accept_dataset(store: Store) -> bool:
    """A person says that this ledger may be worked on; False when nobody had stopped. Raises LedgerUnavailable."""
    key = store.key("dataset")
    with translated():
        stopped = store.redis.hget(key, "stopped")
        if stopped is None:
            return False
        store.redis.hset(key, "forgiven", stopped)
        store.redis.hdel(key, "stopped")
    return True
