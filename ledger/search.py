"""Looking through an index of the ledger: filters run in the server, slice by slice, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from postier.ledger.store import Argument, Store, translated

SLICE = 4000


@dataclass(frozen=True, slots=True)
class Filters:
    """What a delivery has to be like; None fits all. Times are seconds since 1970.

    `since` and `until` are about its end where it waits for a person, else about its acceptance. `cause` is the class
    of its failure, `text` a part of the server's reply in any case.
    """

    account: str | None = None
    kind: str | None = None
    tenant: str | None = None
    cause: str | None = None
    text: str | None = None
    since: float | None = None
    until: float | None = None

    @property
    def of_records(self) -> bool:
        """Whether more than times is asked."""
        return any(item is not None for item in (self.account, self.kind, self.tenant, self.cause, self.text))


@dataclass(frozen=True, slots=True)
class Slice:
    """What one slice of an index held: how many were looked at, how many fit, their scores, their ids."""

    looked: int
    fit: int
    first: int
    last: int
    ids: list[str]


def slices(
    store: Store,
    key: str,
    filters: Filters,
    *,
    newest_first: bool = False,
    by_acceptance: bool = False,
    ids: bool = True,
    first: int = 0,
    last: int | None = None,
) -> Iterator[Slice]:
    """Look at ranks `first` to `last` of the sorted set or list `key`, one bounded script call a slice.

    What leaves the index meanwhile may hide as many others from the look. Raises LedgerUnavailable.
    """
    since, until = (filters.since, filters.until) if by_acceptance else (None, None)
    tail: tuple[Argument, ...] = (
        int(newest_first), filters.account or "", filters.kind or "", filters.tenant or "", filters.cause or "",
        (filters.text or "").lower(), int((since or 0) * 1e6), int((until or 0) * 1e6), int(ids),
    )  # fmt: skip
    while last is None or first <= last:
        end = first + SLICE - 1 if last is None else min(last, first + SLICE - 1)
        answer = store.run("search", (key, first, end, *tail))
        yield Slice(int(answer[0]), int(answer[1]), int(answer[2]), int(answer[3]), [i.decode() for i in answer[4:]])
        if answer[0] < end - first + 1:
            return
        first = end + 1


def ranks(store: Store, key: str, since: float | None, until: float | None) -> tuple[int, int]:
    """The first and last rank of a sorted set by time whose scores are in [since, until). The last may be lower."""
    with translated():
        pipe = store.redis.pipeline(transaction=False)
        pipe.zcount(store.key(key), "-inf", f"({int((since or 0) * 1e6)}")
        pipe.zcount(store.key(key), "-inf", f"({int(until * 1e6)}" if until is not None else "+inf")
        before, through = pipe.execute()
    return int(before), int(through) - 1
