"""The book: accounts, tenants and senders that people keep in the ledger. Every change is whole, versioned, audited.

One hash holds it all, so that one number (`version`) tells whether anything changed and one script call changes
several entries together. Fields are `a:<account>`, `t:<tenant>`, `s:<sender>` and `default`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from postier.ledger.audit import KEPT, line
from postier.ledger.store import Argument, Store, translated
from postier.schemas.errors import ConfigurationError, LedgerUnavailable

HISTORY_KEPT = 100
_TRIES = 20
_HASH = "book"


class ChangedMeanwhile(ConfigurationError):
    """Somebody else changed the entry after it was read; look at it again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its content, its version (from 1), and who changed it last, when (Redis microseconds)."""

    data: dict[str, Any] = field(repr=False)
    version: int
    at: int
    who: str


@dataclass(frozen=True, slots=True)
class Page:
    """The whole book as it was at one version. `raw` is what the ledger holds, field by field."""

    version: int
    raw: Mapping[str, str] = field(repr=False)

    def names(self, prefix: str) -> list[str]:
        """The names of all entries of a sort, sorted."""
        return sorted(name.removeprefix(prefix) for name in self.raw if name.startswith(prefix))

    def entry(self, name: str) -> Entry | None:
        """An entry by its field. Raises ValueError when it cannot be read."""
        text = self.raw.get(name)
        if text is None:
            return None
        read = json.loads(text)
        if not isinstance(read, dict) or not isinstance(read.get("data"), dict):
            raise ValueError("the entry is no object")
        return Entry(read["data"], int(read.get("version", 0)), int(read.get("at", 0)), str(read.get("who", "")))

    def version_of(self, name: str) -> int:
        """The entry's version; 0 when there is none. An unreadable entry has version -1."""
        try:
            found = self.entry(name)
        except ValueError:
            return -1
        return found.version if found else 0


@dataclass(frozen=True, slots=True)
class Change:
    """What to write (None removes) and what to tell about it: a dotted fact, its subject, details without secrets."""

    put: Mapping[str, dict[str, Any] | None]
    what: str
    subject: str
    details: Mapping[str, Any] = field(default_factory=dict)
    count: int = 1


class Book:
    """Reads and changes the book. All raise LedgerUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def version(self) -> int:
        """Rises with every change."""
        with translated():
            return int(self._store.redis.hget(self._store.key(_HASH), "version") or 0)

    def read(self) -> Page:
        """The whole book."""
        with translated():
            rows = self._store.redis.hgetall(self._store.key(_HASH))
        raw = {name.decode(): value.decode("utf-8", "replace") for name, value in rows.items()}
        return Page(int(raw.pop("version", 0)), raw)

    def change(self, who: str, work: Callable[[Page], Change | None]) -> Page:
        """Apply what `work` answers for the book as it is now; asks it again when somebody else was faster.

        `work` may refuse by raising; nothing is written then. Returns the book afterwards.
        """
        for _ in range(_TRIES):
            page = self.read()
            change = work(page)
            if change is None:
                return page
            after = self._write(page, change, who)
            if after is not None:
                return after
        raise LedgerUnavailable("too many others change accounts at this moment", retry_after=1.0)

    def history(self, name: str) -> list[dict[str, Any]]:
        """The last changes of an entry, oldest first: at (seconds since 1970), who, what, version and details."""
        with translated():
            rows = self._store.redis.lrange(self._store.key(f"book:history:{name}"), 0, -1)
        found = []
        for row in rows:
            at, _, text = row.decode("utf-8", "replace").partition(" ")
            found.append({"at": int(at) / 1e6, **json.loads(text)})
        return found

    def _write(self, page: Page, change: Change, who: str) -> Page | None:
        now = self._store.now()
        after = dict(page.raw)
        fields: list[Argument] = ["version", str(page.version or ""), page.version + 1]
        histories: list[Argument] = []
        for name, data in change.put.items():
            version = max(page.version_of(name), 0) + 1
            text = ""
            if data is not None:
                text = json.dumps({"version": version, "at": now, "who": who, "data": data}, ensure_ascii=False)
                after[name] = text
            else:
                after.pop(name, None)
            fields += [name, page.raw.get(name, ""), text]
            told = {"who": who, "what": change.what, "version": version, **_own(change.details, name)}
            histories += [f"book:history:{name}", json.dumps(told, ensure_ascii=False, default=str), HISTORY_KEPT]
        words = line(who=who, what=change.what, subject=change.subject, count=change.count, details=change.details)
        args: list[Argument] = [_HASH, len(change.put) + 1, *fields, len(words), *words, KEPT, *histories]
        if self._store.run("amend", args) != 1:
            return None
        return Page(page.version + 1, after)


def _own(details: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Of details that are sorted by entry, this entry's alone."""
    own = details.get(name)
    return own if isinstance(own, Mapping) else details
