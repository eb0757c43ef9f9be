"""Failures in groups: what waits for a person, by state, cause, account and kind. The index is kept by the scripts."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from postier.ledger.search import Filters, ranks, slices
from postier.ledger.store import Store, translated

WAITING_FOR_A_PERSON = ("failed", "unknown", "expired", "suppressed")
_PIPED = 500
_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Part:
    """One tenant's share of a group, as the ledger keeps it: the key of its index and what its members share."""

    index: str
    state: str
    cause: str
    account: str
    kind: str
    tenant: str

    @property
    def group(self) -> str:
        """The id people quote; the same for the same state, cause, account and kind, for ever."""
        text = json.dumps([self.state, self.cause, self.account, self.kind])
        return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Span:
    """Ranks `first` to `last` of a part, the oldest failure first."""

    part: Part
    first: int
    last: int


@dataclass(slots=True)
class Group:
    """Deliveries that failed alike. Times are seconds since 1970; `code`, `enhanced`, `words` are the newest reply."""

    id: str
    state: str
    cause: str
    account: str
    kind: str
    count: int = 0
    first: float = 0.0
    last: float = 0.0
    code: int | None = None
    enhanced: str = ""
    words: str = ""
    sample: str = ""
    tenants: set[str] = field(default_factory=set)

    def as_dict(self) -> dict[str, Any]:
        """The group as one JSON-ready object."""
        shown = {name: getattr(self, name) for name in self.__slots__}
        return {**shown, "tenants": sorted(self.tenants)}


def _scores(filters: Filters) -> tuple[int | str, str]:
    low = int(filters.since * 1e6) if filters.since is not None else "-inf"
    return low, f"({int(filters.until * 1e6)}" if filters.until is not None else "+inf"


class Groups:
    """Questions to one ledger about what waits for a person. All raise LedgerUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def parts(
        self, filters: Filters, *, states: Iterable[str] | None = None, group: str | None = None
    ) -> list[Part]:  # fmt: skip
        """The indexes that hold what fits `filters` (but for its times and text), of one group or of all."""
        wanted = set(states or WAITING_FOR_A_PERSON)
        with translated():
            rows = self._store.redis.hgetall(self._store.key("groups"))
        found = (Part(f"group:{key.decode()}", *json.loads(name)) for key, name in rows.items())
        return [
            part
            for part in found
            if part.state in wanted
            and group in (None, part.group)
            and filters.account in (None, part.account)
            and filters.kind in (None, part.kind)
            and filters.tenant in (None, part.tenant)
            and filters.cause in (None, part.cause or part.state)
        ]

    def find(
        self, filters: Filters, *, states: Iterable[str] | None = None, group: str | None = None
    ) -> list[Group]:  # fmt: skip
        """Groups with what fits, the largest first. The cost is by group, but for `text`, which looks at each reply."""
        groups: dict[str, Group] = {}
        newest: dict[str, str] = {}
        parts = self.parts(filters, states=states, group=group)
        for part, (count, first, last, sample) in zip(parts, self._extents(parts, filters), strict=True):
            if not count:
                continue
            found = groups.setdefault(part.group, Group(part.group, part.state, part.cause, part.account, part.kind))
            if not found.count or first < found.first:
                found.first = first
            if last >= found.last:
                found.last, newest[found.id] = last, sample
            found.count += count
            found.tenants.add(part.tenant)
        self._add_replies(groups, newest)
        return sorted(groups.values(), key=lambda one: (-one.count, one.id))

    def counts(self) -> Counter[tuple[str, str, str]]:
        """How many wait for a person, by state, cause and account; the cost is by group."""
        parts = self.parts(Filters())
        tally: Counter[tuple[str, str, str]] = Counter()
        for at in range(0, len(parts), _PIPED):
            page = parts[at : at + _PIPED]
            with translated():
                pipe = self._store.redis.pipeline(transaction=False)
                for part in page:
                    pipe.zcard(self._store.key(part.index))
                sizes = pipe.execute()
            for part, size in zip(page, sizes, strict=True):
                tally[part.state, part.cause, part.account] += size
        return tally

    def _extents(self, parts: Sequence[Part], filters: Filters) -> Iterator[tuple[int, float, float, str]]:
        if filters.text:
            yield from (self._extent_of_text(part, filters) for part in parts)
            return
        low, high = _scores(filters)
        for at in range(0, len(parts), _PIPED):
            with translated():
                pipe = self._store.redis.pipeline(transaction=False)
                for part in parts[at : at + _PIPED]:
                    key = self._store.key(part.index)
                    pipe.zcount(key, low, high)
                    pipe.zrangebyscore(key, low, high, start=0, num=1, withscores=True)
                    pipe.zrevrangebyscore(key, high, low, start=0, num=1, withscores=True)
                rows = pipe.execute()
            for count, first, last in zip(rows[0::3], rows[1::3], rows[2::3], strict=True):
                if not count or not first or not last:
                    yield 0, 0.0, 0.0, ""
                else:
                    yield int(count), first[0][1] / 1e6, last[0][1] / 1e6, last[0][0].decode()

    def _extent_of_text(self, part: Part, filters: Filters) -> tuple[int, float, float, str]:
        first, last = ranks(self._store, part.index, filters.since, filters.until)
        wanted = Filters(text=filters.text)
        found = [s for s in slices(self._store, part.index, wanted, ids=False, first=first, last=last) if s.fit]
        if not found:
            return 0, 0.0, 0.0, ""
        return sum(s.fit for s in found), found[0].first / 1e6, found[-1].last / 1e6, ""

    def _add_replies(self, groups: dict[str, Group], newest: dict[str, str]) -> None:
        chosen = [(one, newest[one.id]) for one in groups.values() if newest.get(one.id)]
        with translated():
            pipe = self._store.redis.pipeline(transaction=False)
            for _, sample in chosen:
                pipe.hmget(self._store.key(f"delivery:{sample}"), "code", "enhanced", "words")
            rows = pipe.execute()
        for (one, sample), row in zip(chosen, rows, strict=True):
            code, enhanced, words = (value.decode("utf-8", "replace") if value else "" for value in row)
            one.sample, one.code = sample, int(code) if code.isdigit() else None
            one.enhanced, one.words = enhanced, words

    def members(
        self,
        filters: Filters,
        *,
        states: Iterable[str] | None = None,
        group: str | None = None,
        newest_first: bool = False,
    ) -> Iterator[str]:
        """The ids of what fits, group by group, the oldest failure first; read in slices as they are asked for."""
        for part in self.parts(filters, states=states, group=group):
            yield from self._members_of(part, filters, newest_first=newest_first)

    def spans(
        self, filters: Filters, *, states: Iterable[str] | None = None, group: str | None = None
    ) -> list[Span]:  # fmt: skip
        """Where what fits stands (but for `text`), group by group, in the order of `members`."""
        parts = self.parts(filters, states=states, group=group)
        low, high = _scores(filters)
        found: list[Span] = []
        for at in range(0, len(parts), _PIPED):
            page = parts[at : at + _PIPED]
            with translated():
                pipe = self._store.redis.pipeline(transaction=False)
                for part in page:
                    pipe.zcount(self._store.key(part.index), "-inf", f"({low}" if low != "-inf" else "(-inf")
                    pipe.zcount(self._store.key(part.index), low, high)
                rows = pipe.execute()
            found += [Span(part, rows[2 * n], rows[2 * n] + rows[2 * n + 1] - 1) for n, part in enumerate(page)]
        return [span for span in found if span.first <= span.last]

    def _members_of(self, part: Part, filters: Filters, *, newest_first: bool) -> Iterator[str]:
        first, last = ranks(self._store, part.index, filters.since, filters.until)
        if newest_first:
            with translated():
                size = self._store.redis.zcard(self._store.key(part.index))
            first, last = size - 1 - last, size - 1 - first
        wanted = Filters(text=filters.text)
        for found in slices(self._store, part.index, wanted, newest_first=newest_first, first=first, last=last):
            yield from found.ids

    def newest(self, indexes: Iterable[str], filters: Filters, limit: int) -> list[str]:
        """The ids that came last into any of these indexes, within the times of `filters`."""
        low, high = _scores(filters)
        keys = [self._store.key(index) for index in indexes]
        found: list[tuple[float, str]] = []
        for at in range(0, len(keys), _PIPED):
            with translated():
                pipe = self._store.redis.pipeline(transaction=False)
                for key in keys[at : at + _PIPED]:
                    pipe.zrevrangebyscore(key, high, low, start=0, num=1, withscores=True)
                heads = [rows[0][1] if rows else 0.0 for rows in pipe.execute()]
            # What is among the last `limit` of all is in one of the `limit` indexes with the last heads.
            chosen = [one for one in heapq.nlargest(limit, zip(heads, keys[at : at + _PIPED], strict=True)) if one[0]]
            for first in range(0, len(chosen), _AT_ONCE):
                if len(found) >= limit and chosen[first][0] < found[-1][0]:
                    break
                with translated():
                    pipe = self._store.redis.pipeline(transaction=False)
                    for _, key in chosen[first : first + _AT_ONCE]:
                        pipe.zrevrangebyscore(key, high, low, start=0, num=limit, withscores=True)
                    pages = pipe.execute()
                found.extend((score, item.decode()) for page in pages for item, score in page)
                found = heapq.nlargest(limit, found)
        return [item for _, item in found]

    def newest_with_text(
        self, filters: Filters, *, states: Iterable[str], group: str | None, limit: int
    ) -> list[str]:  # fmt: skip
        """As `newest`, of those whose reply has the text: looked for in each part, the newest first."""
        found: list[tuple[float, str]] = []
        for part in self.parts(filters, states=states, group=group):
            page = list(islice(self._members_of(part, filters, newest_first=True), limit))
            with translated():
                scores = self._store.redis.zmscore(self._store.key(part.index), page) if page else []
            found.extend((score or 0.0, item) for item, score in zip(page, scores, strict=True))
            found = heapq.nlargest(limit, found)
        return [item for _, item in found]
