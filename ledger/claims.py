"""What a worker does with the ledger: claim, renew, settle."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence

from postier.ledger.entries import Claimed, Entry, Handed, flatten, usual
from postier.ledger.store import Store

_HOUSEKEEPING = 100


def _since_boot() -> float:
    """Seconds by a clock that nobody sets, and that runs while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Claims:
    """One worker's view of the ledger. Methods raise LedgerUnavailable and may then be called again safely.

    `lease` is in seconds; what is not renewed within it goes to another worker. `threads` is what this worker brings to
    the fleet: one account gets half of all threads at most, all accounts in trouble together a quarter. By `clock`
    (seconds) the ledger learns whether Redis' clock jumped forward or time went by.
    """

    def __init__(
        self, store: Store, worker: str, *, lease: float, crash_limit: int, keep_sent: int, threads: int = 1,
        clock: Callable[[], float] = _since_boot,
    ) -> None:  # fmt: skip
        self.store = store
        self.worker = worker
        self.lease = lease
        self._threads = threads
        self._crash_limit = crash_limit
        self._keep_sent = keep_sent
        self._names = itertools.count(1)
        self._clock = clock
        self._seen = (0, 0, 0.0)  # Redis time and the ledger's at the last claim, and when that was

    def claim(self, conversations: int, size: int) -> tuple[float, list[Handed]]:
        """Take up to `conversations` conversations of up to `size` deliveries each; 0 does the housekeeping only.

        Returns the seconds until something may be due, and the conversations. A reply that gets lost costs one lease.
        """
        name = f"{self.worker}.{next(self._names)}"
        wall, now, at = self._seen
        reply = self.store.run(
            "claim",
            (
                self.worker, conversations, size, int(self.lease * 1e6), _HOUSEKEEPING, self._crash_limit,
                self._keep_sent, name, wall, now, int((self._clock() - at) * 1e6),
            ),
        )  # fmt: skip
        wait, wall, now, *rows = reply
        self._seen = (wall, now, self._clock())
        return wait / 1e6, [Handed.read(row) for row in rows]

    def settle(self, entries: Sequence[Entry]) -> list[int]:
        """Write outcomes; answers OK, STALE or SUPERSEDED per entry. Repeating an entry is safe."""
        script = "usual" if all(map(usual, entries)) else "settle"
        answers: list[int] = self.store.run(script, (len(entries), *flatten(entries)))
        return answers

    def renew(
        self, conversations: Iterable[tuple[str, str]], held: Iterable[Claimed], *, drains: bool = False
    ) -> set[str]:
        """Keep (account, conversation) slots and deliveries for another lease; returns the ids held no longer.

        A worker that `drains` brings no threads any more, and what it holds keeps none of other workers away.
        """
        slots = [value for pair in conversations for value in pair]
        ids = [value for delivery in held for value in (delivery.id, delivery.fence)]
        lost = self.store.run(
            "renew",
            (int(self.lease * 1e6), self.worker, 0 if drains else self._threads, len(slots) // 2, *slots, *ids),
        )
        return {value.decode() for value in lost}
