"""Reading the ledger: one delivery, lists of them, accounts, workers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from postier.ledger.store import Store, translated

ENDS = ("sent", "failed", "expired", "unknown", "discarded", "suppressed")
STATES = ("waiting", "leased", "sending", *ENDS)
_TIMES = ("accepted_at", "due", "deadline", "leased_at", "sending_at", "ended_at")
_NUMBERS = ("attempt", "crashes", "deferred", "replays", "version", "code", "took")
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Status:
    """One delivery as the ledger knows it. Times are seconds since 1970; the recipient is masked.

    `facts` holds everything else the record knows; `history` its timeline, oldest first.
    """

    id: str
    state: str
    account: str
    kind: str
    tenant: str
    event: str
    attempt: int
    recipient: str
    accepted_at: float
    due: float | None = None
    ended_at: float | None = None
    cause: str = ""
    words: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The status as one JSON-ready object without empty parts."""
        shown: dict[str, Any] = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("facts", "history")
        }
        shown.update(self.facts)
        shown = {key: value for key, value in shown.items() if value not in (None, "")}
        if self.history:
            shown["history"] = self.history
        return shown


_OWN = (
    "state",
    "account",
    "kind",
    "tenant",
    "event",
    "attempt",
    "recipient",
    "accepted_at",
    "due",
    "ended_at",
    "cause",
    "words",
)
_HIDDEN = ("rkey", "key", "fence", "conversation", "class")


def _read(delivery_id: str, raw: dict[bytes, bytes], history: Iterable[bytes] = ()) -> Status:
    record: dict[str, Any] = {key.decode(): value.decode("utf-8", "replace") for key, value in raw.items()}
    for name in _TIMES:
        if name in record:
            record[name] = int(float(record[name])) / 1e6
    for name in _NUMBERS:
        if record.get(name):
            record[name] = int(record[name])
    facts = {key: value for key, value in record.items() if key not in _OWN and key not in _HIDDEN and value != ""}
    facts["priority"] = "urgent" if record.get("class") == "u" else "bulk"
    return Status(
        id=delivery_id, history=[_event(line) for line in history], facts=facts,
        **{name: record[name] for name in _OWN if name in record},
    )  # fmt: skip


def _event(line: bytes) -> dict[str, Any]:
    at, _, text = line.decode("utf-8", "replace").partition(" ")
    return {"at": int(at) / 1e6, **json.loads(text)}


class Queries:
    """Read-only questions to one ledger. All raise LedgerUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._redis = store.redis
        self._key = store.key

    def status(self, delivery_id: str) -> Status | None:
        """One delivery with its timeline, or None."""
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(self._key(f"delivery:{delivery_id}"))
            pipe.lrange(self._key(f"history:{delivery_id}"), 0, -1)
            record, history = pipe.execute()
        return _read(delivery_id, record, history) if record else None

    def deliveries_of(self, tenant: str, idempotency_key: str) -> list[str]:
        """The delivery ids of the event that was published under this key (default: its id)."""
        with translated():
            known = self._redis.get(self._key(f"key:{tenant}:{idempotency_key}"))
        return known.decode().rpartition(" ")[2].split(",") if known else []

    def deliveries(
        self,
        *,
        states: Iterable[str] = STATES,
        account: str | None = None,
        kind: str | None = None,
        tenant: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
    ) -> list[Status]:
        """Up to `limit` deliveries, those that changed last first within each state; times filter on acceptance."""

        def wanted(status: Status) -> bool:
            return (
                account in (None, status.account)
                and kind in (None, status.kind)
                and tenant in (None, status.tenant)
                and (since is None or status.accepted_at >= since)
                and (until is None or status.accepted_at < until)
            )

        found: list[Status] = []
        asked = set(states)
        for state in ENDS:
            if state in asked:
                found.extend(islice(filter(wanted, self._ended(state)), limit))
        living = asked - set(ENDS)
        if living:
            found.extend(islice((s for s in self._living(account) if s.state in living and wanted(s)), limit))
        found.sort(key=lambda status: status.accepted_at, reverse=True)
        return found[:limit]

    def _ended(self, state: str) -> Iterator[Status]:
        start = 0
        while True:
            with translated():
                ids = self._redis.zrevrange(self._key(f"ended:{state}"), start, start + _PAGE - 1)
            yield from self._records(ids)
            if len(ids) < _PAGE:
                return
            start += _PAGE

    def _living(self, account: str | None) -> Iterator[Status]:
        seen: set[bytes] = set()
        with translated():
            names = [account.encode()] if account else sorted(self._redis.smembers(self._key("accounts")))
        sources = [("zrange", self._key("lease")), ("zrange", self._key("scheduled"))]
        sources += [("lrange", self._key(f"lane:{name.decode()}:{lane}")) for name in names for lane in "ub"]
        for command, key in sources:
            start = 0
            while True:
                with translated():
                    ids = getattr(self._redis, command)(key, start, start + _PAGE - 1)
                fresh = [item for item in ids if item not in seen]
                seen.update(fresh)
                yield from self._records(fresh)
                if len(ids) < _PAGE:
                    break
                start += _PAGE

    def _records(self, ids: Iterable[bytes]) -> Iterator[Status]:
        names = [item.decode() for item in ids]
        if not names:
            return
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(self._key(f"delivery:{name}"))
            rows = pipe.execute()
        for name, row in zip(names, rows, strict=True):
            if row:
                yield _read(name, row)

    def counts(self) -> dict[str, int]:
        """How many deliveries are in each state of the living and the ended."""
        with translated():
            names = sorted(self._redis.smembers(self._key("accounts")))
            pipe = self._redis.pipeline(transaction=False)
            for state in ENDS:
                pipe.zcard(self._key(f"ended:{state}"))
            pipe.zcard(self._key("lease"))
            pipe.zcard(self._key("scheduled"))
            for name in names:
                for lane in "ub":
                    pipe.llen(self._key(f"lane:{name.decode()}:{lane}"))
            values = pipe.execute()
        ended = dict(zip(ENDS, values, strict=False))
        lanes = values[len(ENDS) + 2 :]
        return {"waiting": values[len(ENDS) + 1] + sum(lanes), "in_hand": values[len(ENDS)], **ended}

    def accounts(self) -> dict[str, dict[str, Any]]:
        """Every account's running state: its words, waiting mail of both priorities, conversations in progress."""
        with translated():
            names = sorted(name.decode() for name in self._redis.smembers(self._key("accounts")))
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(self._key(f"account:{name}"))
                pipe.llen(self._key(f"lane:{name}:u"))
                pipe.llen(self._key(f"lane:{name}:b"))
                pipe.zcard(self._key(f"sending:{name}"))
            rows = pipe.execute()
        found: dict[str, dict[str, Any]] = {}
        for index, name in enumerate(names):
            record = {key.decode(): value.decode("utf-8", "replace") for key, value in rows[4 * index].items()}
            facts: dict[str, Any] = {key: record[key] for key in ("state", "reason", "words", "by") if record.get(key)}
            for moment in ("since", "until"):
                if record.get(moment) and record[moment] != "0":
                    facts[moment] = int(float(record[moment])) / 1e6
            urgent, bulk, busy = rows[4 * index + 1 : 4 * index + 4]
            found[name] = {**facts, "waiting_urgent": urgent, "waiting_bulk": bulk, "conversations": busy}
        return found
