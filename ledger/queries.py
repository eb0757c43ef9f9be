"""Reading the ledger: one delivery, lists of them, accounts, workers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from postier.ledger.groups import WAITING_FOR_A_PERSON, Groups
from postier.ledger.search import Filters, slices
from postier.ledger.standing import standing
from postier.ledger.store import Store, translated

ENDS = ("sent", "failed", "expired", "unknown", "discarded", "suppressed")
STATES = ("waiting", "leased", "sending", *ENDS)
_TIMES = ("accepted_at", "due", "deadline", "leased_at", "sending_at", "ended_at")
_WAITED_FOR = ("due", "deadline", "leased_at")  # in the ledger's own time
_LEFTOVERS = ("was", "was_ended", "was_account", "was_deadline", "was_attempt", "pace", "group")
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
_HIDDEN = ("rkey", "fence", "conversation", "class", *_LEFTOVERS)


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _read(delivery_id: str, raw: dict[bytes, bytes], history: Iterable[bytes] = (), *, ahead: int = 0) -> Status:
    record: dict[str, Any] = {key.decode(): value.decode("utf-8", "replace") for key, value in raw.items()}
    lives = record.get("state") not in ENDS
    for name in _TIMES:
        if name in record:
            behind = ahead if lives and name in _WAITED_FOR else 0
            record[name] = (int(float(record[name])) - behind) / 1e6
    for name in _NUMBERS:
        if record.get(name):
            record[name] = int(record[name])
    facts = {key: value for key, value in record.items() if key not in _OWN and key not in _HIDDEN and value != ""}
    if "key" in facts:
        facts["key"] = facts["key"].partition(":")[2]
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
        found = self.statuses((delivery_id,))
        return found[0] if found else None

    def statuses(self, ids: Iterable[str]) -> list[Status]:
        """Several deliveries with their timelines; unknown ids are left out."""
        found: list[Status] = []
        left = iter(ids)
        while names := list(islice(left, _PAGE)):
            rows, ahead = self._store.run("whole", (1, *names)), self._store.ahead()
            pairs = zip(names, rows[::2], rows[1::2], strict=True)
            found.extend(_read(name, _pairs(raw), lines, ahead=ahead) for name, raw, lines in pairs if raw)
        return found

    def in_state(self, ids: Iterable[str], state: str) -> Iterator[str]:
        """Those of the ids that are in this state now, page by page."""
        left = iter(ids)
        while names := list(islice(left, _PAGE)):
            answers = self._store.run("facts", (1, "state", *names))
            yield from (name for name, (now,) in zip(names, answers, strict=True) if now == state.encode())

    def deliveries_of(self, tenant: str, idempotency_key: str) -> list[str]:
        """The delivery ids of the event that was published under this key (default: its id)."""
        with translated():
            known = self._redis.get(self._key(f"key:{tenant}:{idempotency_key}"))
        return known.decode().rpartition(" ")[2].split(",") if known else []

    def find(self, wanted: str, tenants: Iterable[str]) -> list[Status]:
        """What is known by a delivery id, Message-ID, event id, idempotency key or provider's id, in these tenants."""
        tenants = list(tenants)
        name = wanted.strip()
        message_id = name.strip("<>").partition("@")[0] if "@" in name else name
        one = self.status(message_id)
        if one is not None:
            return [one] if one.tenant in tenants or not tenants else []
        ids: list[str] = []
        for tenant in tenants:
            ids += self.deliveries_of(tenant, name) or self._deliveries_of_event(tenant, name)
        if not ids:
            ids = self._deliveries_of_provider(name)
        found = [status for status in map(self.status, dict.fromkeys(ids)) if status is not None]
        return [status for status in found if status.tenant in tenants or not tenants]

    def _deliveries_of_event(self, tenant: str, event_id: str) -> list[str]:
        with translated():
            key = self._redis.get(self._key(f"event:{tenant}:{event_id}"))
        return self.deliveries_of(tenant, key.decode().partition(":")[2]) if key else []

    def _deliveries_of_provider(self, provider_id: str) -> list[str]:
        with translated():
            known = self._redis.hget(self._key("provider"), provider_id)
            if known is None:
                return []
            key, packet = self._redis.hmget(self._key(f"delivery:{known.decode()}"), "key", "packet")
        if key and packet:  # recipients of one mail have one provider's id
            tenant, _, name = key.decode().partition(":")
            together = [one for one in map(self.status, self.deliveries_of(tenant, name)) if one is not None]
            return [one.id for one in together if one.facts.get("provider_id") == provider_id]
        return [known.decode()]

    def deliveries(
        self,
        *,
        states: Iterable[str] = STATES,
        account: str | None = None,
        kind: str | None = None,
        tenant: str | None = None,
        cause: str | None = None,
        text: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
    ) -> list[Status]:
        """Up to `limit` deliveries, those that changed last first within each state; times filter on acceptance."""
        filters = Filters(account, kind, tenant, cause, text, since, until)
        found: list[Status] = []
        asked = set(states)
        ends = [f"ended:{state}" for state in ENDS if state in asked]
        if filters == Filters():
            newest = self._newest(ends, limit)
            found.extend(self._of(newest, len(newest)))
        else:
            for key in ends:
                found.extend(self._of(self._index(key, filters, newest_first=True), limit))
        living = asked - set(ENDS)
        if living:
            found.extend(islice((one for one in self._living(filters) if one.state in living), limit))
        found.sort(key=lambda status: status.accepted_at, reverse=True)
        return found[:limit]

    def failures(
        self, filters: Filters, *, states: Iterable[str] | None = None, group: str | None = None, limit: int = 100
    ) -> list[Status]:
        """Up to `limit` deliveries that wait for a person, the latest failure first; times are when they failed."""
        groups, asked = Groups(self._store), tuple(WAITING_FOR_A_PERSON if states is None else states)
        if filters.text:
            newest = groups.newest_with_text(filters, states=asked, group=group, limit=limit)
        elif group is None and not filters.of_records:
            newest = groups.newest((f"ended:{state}" for state in asked), filters, limit)
        else:
            parts = groups.parts(filters, states=asked, group=group)
            newest = groups.newest((part.index for part in parts), filters, limit)
        return list(self._of(newest, limit))

    def ended(
        self, filters: Filters, *, states: Iterable[str], group: str | None = None
    ) -> Iterator[str]:  # fmt: skip
        """Ids of all that ended in these states and fits; times are of the end for what waits for a person."""
        for state in states:
            if state in WAITING_FOR_A_PERSON:
                yield from Groups(self._store).members(filters, states=(state,), group=group)
            elif group is None:
                yield from self._index(f"ended:{state}", filters)

    def _newest(self, indexes: Iterable[str], limit: int) -> list[str]:
        """The last ids of each index."""
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for key in indexes:
                pipe.zrevrange(self._key(key), 0, limit - 1)
            return [item.decode() for page in pipe.execute() for item in page]

    def _of(self, ids: Iterable[str], limit: int) -> Iterator[Status]:
        wanted = islice(ids, limit)
        while page := list(islice(wanted, _PAGE)):
            yield from self._records(item.encode() for item in page)

    def _index(self, key: str, filters: Filters, *, newest_first: bool = False) -> Iterator[str]:
        """Ids of an index that fit; without filters only as much of it is read as is asked for."""
        if filters.of_records or filters.since is not None or filters.until is not None:
            for found in slices(self._store, key, filters, newest_first=newest_first, by_acceptance=True):
                yield from found.ids
            return
        first = 0
        while True:
            with translated():
                ids = self._redis.zrange(self._key(key), first, first + _PAGE - 1, desc=newest_first)
            yield from (item.decode() for item in ids)
            if len(ids) < _PAGE:
                return
            first += _PAGE

    def _living(self, filters: Filters) -> Iterator[Status]:
        seen: set[str] = set()
        with translated():
            names = sorted(name.decode() for name in self._redis.smembers(self._key("accounts")))
        lanes = [f"lane:{name}:{lane}" for name in names if filters.account in (None, name) for lane in "ub"]
        for key in self._filled(("lease", "scheduled"), lanes):
            for page in slices(self._store, key, filters, by_acceptance=True):
                fresh = [item for item in page.ids if item not in seen]
                seen.update(fresh)
                for at in range(0, len(fresh), _PAGE):
                    yield from self._records(item.encode() for item in fresh[at : at + _PAGE])

    def _filled(self, sets: Iterable[str], lists: Iterable[str]) -> list[str]:
        """Those of these indexes that are not empty: most lanes are."""
        sets, lists = list(sets), list(lists)
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for key in sets:
                pipe.zcard(self._key(key))
            for key in lists:
                pipe.llen(self._key(key))
            sizes = pipe.execute()
        return [key for key, size in zip([*sets, *lists], sizes, strict=True) if size]

    def _records(self, ids: Iterable[bytes]) -> Iterator[Status]:
        names = [item.decode() for item in ids]
        if not names:
            return
        ahead = self._store.ahead()
        for name, row in zip(names, self._store.run("whole", (0, *names)), strict=True):
            if row:
                yield _read(name, _pairs(row), ahead=ahead)

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

    def accounts(self, *, now: float | None = None) -> dict[str, dict[str, Any]]:
        """How every account stands (`standing`), its waiting mail of both priorities, its conversations in progress.

        `now` is in seconds, by default Redis time.
        """
        now = self._store.now() / 1e6 if now is None else now
        with translated():
            names = sorted(name.decode() for name in self._redis.smembers(self._key("accounts")))
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(self._key(f"account:{name}"))
                pipe.llen(self._key(f"lane:{name}:u"))
                pipe.llen(self._key(f"lane:{name}:b"))
                pipe.zcard(self._key(f"sending:{name}"))
            pipe.get(self._key("clock"))
            *rows, ahead = pipe.execute()
        found: dict[str, dict[str, Any]] = {}
        for index, name in enumerate(names):
            record = {key.decode(): value.decode("utf-8", "replace") for key, value in rows[4 * index].items()}
            urgent, bulk, busy = rows[4 * index + 1 : 4 * index + 4]
            found[name] = {
                **standing(record, now, int(ahead or 0) / 1e6),
                "waiting_urgent": urgent,
                "waiting_bulk": bulk,
                "conversations": busy,
            }
        return found
