"""One conversation's worth of deliveries in a worker's hands: what is unstarted, under way and settled."""

from __future__ import annotations

import threading
import time
from collections import deque

from postier.ledger.entries import OK, SUPERSEDED, Claimed, Entry, Handed, Reply, back, end, free, history, mark
from postier.schemas.errors import LedgerUnavailable
from postier.workers.settler import Settler, Ticket


class Withdrawn(Exception):
    """The delivery may not leave: its lease is lost or it was superseded. Nothing of it was sent."""


class Conversation:
    """Deliveries of one account that one thread works through, and the outcomes it still owes the ledger.

    `next()` starts deliveries one by one until `stop()`; whatever is unstarted then goes back to its lane at once.
    """

    def __init__(self, handed: Handed, settler: Settler, *, seconds: float) -> None:
        self.name = handed.name
        self.account = handed.account
        self._settler = settler
        self._lock = threading.Lock()
        self._unstarted = deque(handed.deliveries)
        self._under_way: dict[str, Claimed] = {}
        self._tickets: list[Ticket] = []
        self._stop_at = time.monotonic() + seconds
        self._freed = False

    @property
    def has_more(self) -> bool:
        """Whether deliveries wait to be started."""
        return bool(self._unstarted)

    def held(self) -> list[Claimed]:
        """Everything not settled yet, for the renewal of leases."""
        with self._lock:
            return [*self._unstarted, *self._under_way.values()]

    def next(self) -> Claimed | None:
        """Start the next delivery; None when there is none or the conversation's time is over."""
        if time.monotonic() > self._stop_at and self._under_way:
            self.stop()
        with self._lock:
            if not self._unstarted:
                return None
            delivery = self._unstarted.popleft()
            self._under_way[delivery.id] = delivery
            return delivery

    def stop(self) -> None:
        """Give everything unstarted back. Safe from any thread, any number of times."""
        with self._lock:
            unstarted = list(self._unstarted)
            self._unstarted.clear()
        if unstarted:
            self._put([back(delivery) for delivery in unstarted])

    def lose(self, ids: set[str]) -> None:
        """Forget deliveries whose lease another worker has; those under way find out when they ask to hand over."""
        with self._lock:
            self._unstarted = deque(delivery for delivery in self._unstarted if delivery.id not in ids)

    def hand_over(self, delivery: Claimed) -> None:
        """Write `sending`. Raises Withdrawn, or LedgerUnavailable when nobody can write it: nothing may leave then."""
        answer = self._settler.write([mark(delivery)])[0]
        if answer == OK:
            return
        if answer == SUPERSEDED:
            self.settle(
                delivery, end(delivery, Reply(), state="discarded", cause="superseded", timeline=history("superseded"))
            )
        else:
            self._forget(delivery)
        raise Withdrawn

    def settle(self, delivery: Claimed, *entries: Entry) -> None:
        """Owe the ledger this outcome; it is written within milliseconds, at the latest by `flush`."""
        self._put(entries)
        self._forget(delivery)

    def release(self, delivery: Claimed) -> None:
        """Give back a started delivery of which nothing was sent."""
        self.settle(delivery, back(delivery))

    def _forget(self, delivery: Claimed) -> None:
        with self._lock:
            self._under_way.pop(delivery.id, None)

    def _put(self, entries: list[Entry] | tuple[Entry, ...]) -> None:
        self._tickets.append(self._settler.put(entries))

    def flush(self) -> None:
        """Write everything owed and free the slot. Raises LedgerUnavailable; calling again repeats what is missing."""
        self.stop()
        with self._lock:
            left = list(self._under_way.values())
            self._under_way.clear()
        if left:
            self._put([back(delivery) for delivery in left])
        if not self._freed:
            self._put([free(self.name, self.account)])
            self._freed = True
        owed, self._tickets = self._tickets, []
        failed: LedgerUnavailable | None = None
        for ticket in owed:
            if ticket.error is not None:
                ticket = self._settler.put(ticket.entries)
            try:
                self._settler.wait(ticket)
            except LedgerUnavailable as error:
                failed = error
                self._tickets.append(ticket)
        if failed is not None:
            raise failed
