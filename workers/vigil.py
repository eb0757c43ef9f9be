"""What a worker process looks after beside sending: is this still the ledger it knew, and does it take writes?"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from postier.ledger.dataset import Dataset
from postier.ledger.entries import FORGOTTEN, Entry
from postier.ledger.health import server_facts
from postier.ledger.store import Store, translated
from postier.schemas.errors import LedgerUnavailable
from postier.settings.logs import log, lost_lines
from postier.workers.receipts import ReceiptFile

_FULL = 0.95  # share of maxmemory; what commands need for themselves comes on top
_LOOKS_BACK = 120.0  # seconds of receipts that are told again after a lost connection


class Vigil:
    """Asked every few seconds by the process' main thread. `look` never raises."""

    def __init__(
        self, store: Store, dataset: Dataset, receipts: ReceiptFile, settle: Callable[[Sequence[Entry]], Sequence[int]],
        *, worker: str,
    ) -> None:  # fmt: skip
        self._store, self._dataset, self._receipts, self._settle = store, dataset, receipts, settle
        self._worker = worker
        self._lost_lines = 0
        self._lost = store.lost_connections
        self._marks: deque[tuple[float, int]] = deque(((time.monotonic(), 0),))
        self._trouble = ""

    def look(self) -> None:
        """Look once. Safe to repeat at any pace."""
        try:
            self._tell_trouble()
            self._dataset.beat()
            self._store.offer("publish", "whole")
            self._repeat_receipts()
            self._count_lost_lines()
        except LedgerUnavailable as error:
            log().warning("ledger.unavailable", reason=str(error))

    def _tell_trouble(self) -> None:
        """One line when the server stops taking writes, one when it takes them again."""
        facts = server_facts(self._store, condition_only=True)
        trouble = ""
        if facts.writes_fail:
            trouble = "disk_full"
        elif facts.max_memory and (facts.used_memory or 0) >= _FULL * facts.max_memory:
            trouble = "redis_full"
        if trouble and trouble != self._trouble:
            log().error("ledger.refuses_writes", cause=trouble, advice="`postier doctor` says what to do")
        elif self._trouble and not trouble:
            log().info("ledger.takes_writes", after=self._trouble)
        self._trouble = trouble

    def _repeat_receipts(self) -> None:
        """After an outage Redis may be an older copy of itself: what was sent lately is told again.

        A delivery it still has becomes `sent`; one it does not know at all was sent and is forgotten: that is told.
        """
        now, size = time.monotonic(), self._receipts.size
        if size < self._marks[-1][1]:  # begun anew meanwhile
            self._marks.clear()
            self._marks.append((now, 0))
        while len(self._marks) > 1 and self._marks[1][0] < now - _LOOKS_BACK:
            self._marks.popleft()
        if self._store.lost_connections != self._lost:
            lost = self._store.lost_connections
            entries = self._receipts.since(self._marks[0][1])
            forgotten = sum(answer == FORGOTTEN for answer in self._settle(entries)) if entries else 0
            if forgotten:
                log().error("ledger.went_back", forgotten=forgotten, means="mails were sent that the ledger forgot")
            self._lost = lost
        self._marks.append((now, size))

    def _count_lost_lines(self) -> None:
        """Where logs cannot say it, the ledger does."""
        lost = lost_lines()
        if lost != self._lost_lines:
            with translated():
                self._store.redis.hset(self._store.key(f"worker:{self._worker}"), "log_lost", lost)
            self._lost_lines = lost
            log().warning("log.lost", lines=lost)
            self._lost_lines = lost_lines()
