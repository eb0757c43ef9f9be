"""How records go: export, purge after export, erasure of a person's data."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from postier.ledger.audit import Audit
from postier.ledger.queries import Queries
from postier.ledger.replay import BATCH, batches
from postier.ledger.store import Store, translated
from postier.schemas.address import address_key
from postier.settings.seal import Sealer

Answer = Literal["done", "not_possible", "unknown_id"]
_ANSWERS: dict[int, Answer] = {1: "done", 0: "not_possible", -1: "unknown_id"}
_SCAN = 2000


def recipient_keys(sealer: Sealer, address: str) -> list[str]:
    """The fingerprints an address may have in the ledger: one for each seal key that was ever first."""
    text = address_key(address).encode()
    return [hmac.new(key, text, hashlib.sha256).hexdigest()[:24] for key in sealer.fingerprint_keys]


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did: records looked at, records of the person, those under way that have to be done again."""

    looked: int
    erased: int
    under_way: int


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

    def erase(
        self, address: str, tenant: str, sealer: Sealer, *, told: Callable[[int, int], None] | None = None
    ) -> Erased:
        """Remove what the ledger knows of one recipient in one tenant: what waits is given up, content and servers'
        words go, the fact of the mail stays. Looks at every record in bounded steps; `told` hears (looked at, erased).

        Deliveries under way are left for another run. The address is in no log: the audit has its fingerprint.
        """
        keys = {key.encode() for key in recipient_keys(sealer, address)}
        looked = erased = under_way = 0
        cursor = 0
        prefix = self._store.key("delivery:")
        while True:
            with translated():
                cursor, names = self._store.redis.scan(cursor, match=_glob(prefix) + "*", count=_SCAN)
                pipe = self._store.redis.pipeline(transaction=False)
                for name in names:
                    pipe.hmget(name, "rkey", "tenant")
                rows = pipe.execute()
            looked += len(names)
            for name, (rkey, owner) in zip(names, rows, strict=True):
                if rkey in keys and owner == tenant.encode():
                    delivery_id = name.decode().removeprefix(prefix)
                    (answer,) = self._store.run("records", ("erase", self._who, rkey, delivery_id))
                    erased += answer == 1
                    under_way += answer == 0
            if told is not None:
                told(looked, erased)
            if cursor == 0:
                break
        details = {"tenant": tenant, "fingerprint": recipient_keys(sealer, address)[0], "under_way": under_way}
        self._audit.record(who=self._who, what="person.erased", subject=tenant, count=erased, details=details)
        return Erased(looked, erased, under_way)


def _glob(text: str) -> str:
    """A key prefix as SCAN's pattern takes it literally."""
    return "".join(f"\\{c}" if c in "*?[]^\\" else c for c in text)


def _by_size(items: Iterable[Mapping[str, Any]], size: int) -> Iterator[list[Mapping[str, Any]]]:
    batch: list[Mapping[str, Any]] = []
    for item in items:
        batch.append(item)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch
