"""Who did what, when, to how many: a stream that is only ever added to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from postier.ledger.store import Argument, Store, translated

KEPT = 100_000  # the oldest lines go, about a hundred at a time, when there are more
_LONGEST = 4000


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line. `at` is seconds since 1970 (Redis time), `count` how many things it was done to, `details` never holds
    a secret."""

    id: str
    at: float
    who: str
    what: str
    subject: str
    count: int
    details: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The line as one JSON-ready object."""
        return {name: getattr(self, name) for name in self.__slots__}


def line(
    *, who: str, what: str, subject: str = "", count: int = 1, details: Mapping[str, Any] | None = None
) -> list[Argument]:
    """A line's fields as the stream keeps them, for scripts that write it together with what it tells."""
    text = json.dumps(details or {}, ensure_ascii=False, default=str)
    if len(text) > _LONGEST:
        text = json.dumps({"cut": text[:_LONGEST]}, ensure_ascii=False)
    return ["who", who[:80], "what", what[:80], "subject", subject[:200], "count", count, "details", text]


class Audit:
    """The audit of one ledger. Nothing in it is ever changed. All raise LedgerUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def record(
        self, *, who: str, what: str, subject: str = "", count: int = 1, details: Mapping[str, Any] | None = None
    ) -> str:
        """Write one line and return its id. `what` is a dotted past-tense fact such as `deliveries.replayed`.

        Calling twice writes two lines. `details` must not hold secrets, links or full addresses of recipients.
        """
        words = line(who=who, what=what, subject=subject, count=count, details=details)
        with translated():
            identity: bytes = self._store.redis.execute_command(
                "XADD", self._store.key("audit"), "MAXLEN", "~", KEPT, "*", *words
            )
        return identity.decode()

    def entries(self, limit: int = 100, since: float | None = None) -> list[AuditEntry]:
        """The newest lines first, at most `limit`, none older than `since` (seconds since 1970)."""
        oldest = f"{int(since * 1000)}" if since is not None else "-"
        with translated():
            rows = self._store.redis.xrevrange(self._store.key("audit"), "+", oldest, count=limit)
        return [_read(identity.decode(), fields) for identity, fields in rows]


def _read(identity: str, fields: Mapping[bytes, bytes]) -> AuditEntry:
    text = {key.decode(): value.decode("utf-8", "replace") for key, value in fields.items()}
    return AuditEntry(
        id=identity,
        at=int(identity.partition("-")[0]) / 1000,
        who=text.get("who", ""),
        what=text.get("what", ""),
        subject=text.get("subject", ""),
        count=int(text.get("count", "1")),
        details=json.loads(text.get("details", "{}")),
    )
