"""How records go: export, and purge of exactly what was exported. Erasure of a person is in `erasure.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from postier.ledger.audit import Audit
from postier.ledger.queries import Queries
from postier.ledger.replay import BATCH, batches
from postier.ledger.store import Store

Answer = Literal["done", "not_possible", "unknown_id"]
_ANSWERS: dict[int, Answer] = {1: "done", 0: "not_possible", -1: "unknown_id"}


class Records:
    """Export and removal in one ledger, in the name of `who`. All raise LedgerUnavailable."""

    def __init__(self, store: Store, who: str) -> None:
        self._store = store
        self._who = who[:80]
        self._audit = Audit(store)
        self._queries = Queries(store)

    def export(self, ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Everything the ledger knows of these deliveries but their content, each as one JSON-ready object."""
        for batch in batches(ids, BATCH):
            for status in self._queries.statuses(batch):
                ended = {"ended_us": round(status.ended_at * 1e6)} if status.ended_at is not None else {}
                yield {**status.as_dict(), **ended}

    def purge(self, exported: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Answer]]:
        """Remove the deliveries of an export for good, content and all, but those that changed since."""
        tally: Counter[str] = Counter()
        try:
            for batch in _by_size(exported, BATCH):
                rows = {str(line["id"]): int(line.get("ended_us") or 0) for line in batch}
                args = [value for pair in rows.items() for value in pair]
                for delivery_id, answer in zip(rows, self._store.run("records", ("purge", *args)), strict=True):
                    tally[_ANSWERS[answer]] += 1
                    yield delivery_id, _ANSWERS[answer]
        finally:
            if tally["done"]:
                self._audit.record(who=self._who, what="records.purged", count=tally["done"])


def _by_size(items: Iterable[Mapping[str, Any]], size: int) -> Iterator[list[Mapping[str, Any]]]:
    batch: list[Mapping[str, Any]] = []
    for item in items:
        batch.append(item)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch
