"""Replay: a new start for deliveries, by a person. What it would do is counted first; the ledger keeps its pace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal

from postier.ledger.audit import Audit
from postier.ledger.groups import Span
from postier.ledger.lanes import tidy_lanes
from postier.ledger.search import SLICE
from postier.ledger.store import Argument, Store, translated
from postier.schemas.account import Registry
from postier.schemas.envelope import new_event_id
from postier.schemas.errors import InvalidEvent
from postier.schemas.events import KINDS, kind_named

Answer = Literal[
    "done", "in_this_replay", "stopped", "not_possible", "already_sent", "unknown_id", "over", "unknown", "no_content",
    "other_tenant",
]  # fmt: skip
_ANSWERS: dict[int, Answer] = {
    1: "done", 2: "in_this_replay", 3: "stopped", 0: "not_possible", -1: "unknown_id", -2: "over", -3: "unknown",
    -4: "no_content",
}  # fmt: skip
BATCH = 500
_PAGE = 2000
_KEPT = 40 * 86_400  # seconds a replay's own notes are kept
_LIFETIME_OF_UNKNOWN_KIND = 48 * 3600.0
# A record's deadline that is this much earlier than its kind's was cut by the event's own expiry.
_SLACK = 1.0
_FIELDS = ("state", "account", "kind", "tenant", "deadline", "accepted_at")


@dataclass(frozen=True, slots=True)
class How:
    """How to replay. `pace` is mails per second, `at` seconds since 1970, `account` another account for all.

    `unknown_too` also starts what may have left already.
    """

    pace: float | None = None
    at: float | None = None
    account: str | None = None
    unknown_too: bool = False

    @property
    def interval(self) -> int:
        """Microseconds between two deliveries."""
        return round(1e6 / self.pace) if self.pace else 0


@dataclass(slots=True)
class Preview:
    """What a replay would do: how many deliveries it would start, by account, and why others stay. `lasts`: seconds."""

    total: int = 0
    starts: int = 0
    accounts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    stays: Counter[str] = field(default_factory=Counter)
    lasts: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The preview as one JSON-ready object."""
        tallies = {name: dict(getattr(self, name)) for name in ("accounts", "kinds", "stays")}
        return {"total": self.total, "starts": self.starts, **tallies, "lasts": self.lasts}


@dataclass(frozen=True, slots=True)
class Progress:
    """How a replay goes. Times are seconds since 1970; `states` counts its deliveries by what became of them."""

    id: str
    by: str
    created_at: float
    total: int
    stopped_at: float | None
    pace: float | None
    account: str
    states: dict[str, int]

    @property
    def left(self) -> int:
        """How many are not over yet."""
        return sum(self.states.get(state, 0) for state in ("waiting", "leased", "sending"))

    def as_dict(self) -> dict[str, Any]:
        """The progress as one JSON-ready object."""
        return {**asdict(self), "left": self.left}


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    state: str
    account: str
    kind: str
    tenant: str
    deadline: float
    accepted_at: float

    def lifetime(self) -> float:
        try:
            return kind_named(self.kind).deadline.total_seconds()
        except InvalidEvent:  # a kind of a later version: it waits for workers that know it
            return _LIFETIME_OF_UNKNOWN_KIND

    def expiry(self) -> float:
        """When its event said it is of no more use; 0 when it did not say."""
        return self.deadline if self.deadline < self.accepted_at + self.lifetime() - _SLACK else 0.0


class Replays:
    """Replays in one ledger in the name of `who`. All raise LedgerUnavailable; everything is safe to repeat.

    A delivery starts at most once in a replay, however often `start` is called with the same replay id.
    """

    def __init__(self, store: Store, who: str) -> None:
        self._store = store
        self._who = who[:80]

    @staticmethod
    def new_id() -> str:
        """A fresh replay id."""
        return f"r-{new_event_id()[-17:]}"

    def preview(self, ids: Iterable[str], how: How, registry: Registry) -> Preview:
        """Count what `start` would do with these ids; nothing is changed. The counting is done in the ledger."""
        preview = _Previewing(self._store, how, registry)
        for batch in batches(ids, _PAGE):
            preview.ask("ids", *batch)
        return preview.done()

    def preview_groups(
        self,
        spans: Iterable[Span],
        how: How,
        registry: Registry,
        *,
        told: Callable[[int], None] | None = None,
    ) -> Preview:
        """As `preview`, for spans of groups: far cheaper, for what a group shares is not read from each record.

        `told` hears how many were looked at. Raises LedgerUnavailable.
        """
        preview = _Previewing(self._store, how, registry)
        for span in spans:
            part = span.part
            for first in range(span.first, span.last + 1, SLICE):
                last = min(span.last, first + SLICE - 1)
                preview.ask("group", part.index, first, last, part.state, part.account, part.kind, part.tenant)
                if told is not None:
                    told(preview.shown.total)
        return preview.done()

    def start(
        self,
        ids: Iterable[str],
        how: How,
        registry: Registry,
        *,
        replay_id: str | None = None,
        told: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[str, Answer]]:
        """Start deliveries anew, each with its kind's full time from its new start; answers per id.

        `over`: its event said how long it is of use, and that is past then. `told` hears how many were handled.
        """
        replay_id = replay_id or self.new_id()
        started: Counter[str] = Counter()
        handled = 0
        for batch in batches(ids, BATCH):
            rows = self._rows(batch)
            asked: list[str] = []
            args: list[Argument] = []
            for delivery_id in batch:
                row = rows.get(delivery_id)
                if row is None:
                    yield delivery_id, "unknown_id"
                elif row.state == "sent":
                    yield delivery_id, "already_sent"
                elif how.account and not _may_use(how.account, row.tenant, registry):
                    yield delivery_id, "other_tenant"
                else:
                    asked.append(delivery_id)
                    args += (delivery_id, int(row.lifetime() * 1e6), int(row.expiry() * 1e6))
            if asked:
                head = (self._who, how.interval, int((how.at or 0) * 1e6), how.account or "", int(how.unknown_too))
                answers = self._store.run("replay", ("start", replay_id, *head, _KEPT, *args))
                for delivery_id, answer in zip(asked, answers, strict=True):
                    started[_ANSWERS[answer]] += 1
                    yield delivery_id, _ANSWERS[answer]
            handled += len(batch)
            if told is not None:
                told(handled)
        if started["done"]:
            self._audit("deliveries.replayed", replay_id, started["done"], how)

    def stop(self, replay_id: str) -> int | None:
        """Take back what waits for its first attempt; answers how many, or None when there is no such replay."""
        if not self._store.run("replay", ("halt", replay_id, self._who)):
            return None
        undone = 0
        for batch in batches(self._members(replay_id), BATCH):
            undone += sum(self._store.run("replay", ("undo", replay_id, self._who, *batch)))
        tidy_lanes(self._store)
        self._audit("replay.stopped", replay_id, undone, None)
        return undone

    def progress(self, replay_id: str) -> Progress | None:
        """What became of a replay's deliveries; None when there is no such replay."""
        with translated():
            pipe = self._store.redis.pipeline(transaction=False)
            pipe.hgetall(self._store.key(f"replay:{replay_id}"))
            pipe.zcard(self._store.key(f"replay-of:{replay_id}"))
            raw, size = pipe.execute()
        if not raw:
            return None
        states: Counter[str] = Counter()
        for first in range(0, size, _PAGE):
            answer = self._store.run("replay", ("progress", replay_id, first, first + _PAGE - 1))
            for word, count in zip(answer[0::2], answer[1::2], strict=True):
                states[word.decode()] += count
        return _progress(replay_id, raw, dict(states))

    def newest(self, limit: int = 20) -> list[Progress]:
        """The newest replays first, without what became of each delivery."""
        with translated():
            names = [name.decode() for name in self._store.redis.zrevrange(self._store.key("replays"), 0, limit - 1)]
            pipe = self._store.redis.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(self._store.key(f"replay:{name}"))
            rows = pipe.execute()
        return [_progress(name, raw, {}) for name, raw in zip(names, rows, strict=True) if raw]

    def _members(self, replay_id: str) -> Iterator[str]:
        """From the one due last, so that the workers' end is reached at the end."""
        first = 0
        while True:
            with translated():
                found = self._store.redis.zrevrange(
                    self._store.key(f"replay-of:{replay_id}"), first, first + _PAGE - 1
                )  # fmt: skip
            yield from (item.decode() for item in found)
            if len(found) < _PAGE:
                return
            first += _PAGE

    def _rows(self, ids: list[str]) -> dict[str, _Row]:
        answers = self._store.run("facts", (len(_FIELDS), *_FIELDS, *ids))
        found: dict[str, _Row] = {}
        for delivery_id, row in zip(ids, answers, strict=True):
            if row[0] is not None:
                state, account, kind, tenant = (value.decode() if value else "" for value in row[:4])
                deadline, accepted = (float(value or 0) / 1e6 for value in row[4:6])
                found[delivery_id] = _Row(delivery_id, state, account, kind, tenant, deadline, accepted)
        return found

    def _audit(self, what: str, replay_id: str, count: int, how: How | None) -> None:
        details = {key: value for key, value in asdict(how).items() if value} if how else {}
        Audit(self._store).record(who=self._who, what=what, subject=replay_id, count=count, details=details)


class _Previewing:
    """A preview in the making, question by question: when each one would start depends on those before it."""

    def __init__(self, store: Store, how: How, registry: Registry) -> None:
        self.shown = Preview()
        self._store = store
        self._interval = how.interval
        self._first = max(store.now(), int((how.at or 0.0) * 1e6))
        kinds = [value for name, kind in KINDS.items() for value in (name, int(kind.deadline.total_seconds() * 1e6))]
        self._how: tuple[Argument, ...] = (
            how.interval, int(how.unknown_too), how.account or "", _only_tenant(how, registry),
            int(_LIFETIME_OF_UNKNOWN_KIND * 1e6), int(_SLACK * 1e6), len(KINDS), *kinds,
        )  # fmt: skip

    def ask(self, *which: Argument) -> None:
        shown = self.shown
        answer = self._store.run("preview", (self._first + shown.starts * self._interval, *self._how, *which))
        shown.total += int(answer[0])
        shown.starts += int(answer[1])
        tallies = {b"account": shown.accounts, b"kind": shown.kinds, b"stays": shown.stays}
        for what, name, count in zip(answer[2::3], answer[3::3], answer[4::3], strict=True):
            tallies[what][name.decode()] += int(count)

    def done(self) -> Preview:
        self.shown.lasts = max(0, self.shown.starts - 1) * self._interval / 1e6
        return self.shown


def _only_tenant(how: How, registry: Registry) -> str:
    """Whose mail alone the other account may send; empty for everybody's."""
    if not how.account:
        return ""
    known = registry.accounts.get(how.account)
    return (known.tenant or "") if known else "?"


def _may_use(account: str, tenant: str, registry: Registry) -> bool:
    known = registry.accounts.get(account)
    return known is not None and known.tenant in (None, tenant)


def _progress(replay_id: str, raw: Mapping[bytes, bytes], states: dict[str, int]) -> Progress:
    text = {key.decode(): value.decode("utf-8", "replace") for key, value in raw.items()}
    interval = int(text.get("pace") or 0)
    return Progress(
        id=replay_id, by=text.get("by", ""), created_at=float(text.get("created_at", 0)) / 1e6,
        total=int(text.get("total", 0)), stopped_at=float(text["stopped"]) / 1e6 if text.get("stopped") else None,
        pace=round(1e6 / interval, 3) if interval else None, account=text.get("account", ""), states=states,
    )  # fmt: skip


def batches(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    """Ids in lists of up to `size`, without repetition inside a list."""
    iterator = iter(ids)
    while batch := list(dict.fromkeys(islice(iterator, size))):
        yield batch
