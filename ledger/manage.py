"""What people do to deliveries and accounts: replay, discard, pause, resume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Literal

from postier.ledger.queries import Queries, Status
from postier.ledger.store import Store
from postier.schemas.errors import InvalidEvent
from postier.schemas.events import kind_named

Answer = Literal["done", "not_possible", "over", "unknown_id"]

_ANSWERS: dict[int, Answer] = {1: "done", 0: "not_possible", -1: "unknown_id"}
_BATCH = 500
_UNKNOWN_KIND = timedelta(hours=48)
# A record's deadline that is this much earlier than its kind's was cut by the event's own expiry.
_SLACK = 1.0


class Management:
    """Changes by a person, whose name `who` is written into each timeline. All raise LedgerUnavailable.

    Repeating is safe: what is done already answers `not_possible`.
    """

    def __init__(self, store: Store, who: str, *, keep: int) -> None:
        self._store = store
        self._queries = Queries(store)
        self._who = who[:80]
        self._keep = keep

    def pause(self, account: str) -> bool:
        """Stop an account; its mail waits. False when the ledger does not know it."""
        return bool(self._store.run("manage", ("pause", account, self._who)) == 1)

    def resume(self, account: str) -> bool:
        """Let a paused or parked account go on. False when the ledger does not know it."""
        return bool(self._store.run("manage", ("resume", account, self._who)) == 1)

    def replay(self, ids: Iterable[str]) -> Iterator[tuple[str, Answer]]:
        """Start failed, expired or unknown deliveries anew, each with its kind's full time from now.

        `over`: its event said how long it is of use, and that time has passed (a link that no longer opens).
        """
        for batch in _batches(ids):
            now = self._store.now() / 1e6
            by_deadline: dict[int, list[str]] = defaultdict(list)
            for delivery_id in batch:
                status = self._queries.status(delivery_id)
                if status is None:
                    yield delivery_id, "unknown_id"
                    continue
                deadline = _new_deadline(status, now)
                if deadline <= now:
                    yield delivery_id, "over"
                else:
                    by_deadline[int(deadline * 1e6)].append(delivery_id)
            for micros, group in by_deadline.items():
                answers = self._store.run("manage", ("replay", micros, self._who, self._keep, *group))
                yield from _named(group, answers)

    def discard(self, ids: Iterable[str], reason: str) -> Iterator[tuple[str, Answer]]:
        """Give up on deliveries that failed or wait; their payload is removed."""
        for batch in _batches(ids):
            answers = self._store.run("manage", ("discard", self._who, reason[:300], self._keep, *batch))
            yield from _named(batch, answers)


def _named(ids: Sequence[str], answers: Sequence[int]) -> Iterator[tuple[str, Answer]]:
    for delivery_id, answer in zip(ids, answers, strict=True):
        yield delivery_id, _ANSWERS[answer]


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(dict.fromkeys(ids))
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _new_deadline(status: Status, now: float) -> float:
    try:
        lifetime = kind_named(status.kind).deadline.total_seconds()
    except InvalidEvent:  # a kind of a later version: it waits for workers that know it
        lifetime = _UNKNOWN_KIND.total_seconds()
    deadline = float(status.facts.get("deadline", now))
    said_by_the_event = deadline < status.accepted_at + lifetime - _SLACK
    return deadline if said_by_the_event else now + lifetime
