"""What this process keeps open between conversations, as the ledger hears of it: providers count idle connections too.

The ledger hands out no conversation that would open one more than an account's `max_connections`, over all workers. For
that it must never believe in fewer than there are: a count is read after a connection was put by, and of two counts the
later read one holds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from postier.ledger.entries import Entry, Kept, keep

_GOODBYE = 1.5  # seconds: more than servers get to close


class Keeper(Protocol):
    """Who has the drivers."""

    def idle_connections(self, name: str) -> int: ...

    def close_idle(self, name: str, *, keep: int | None = None) -> None: ...


class Nobody:
    """Keeps nothing open."""

    def idle_connections(self, name: str) -> int:
        """None."""
        return 0

    def close_idle(self, name: str, *, keep: int | None = None) -> None:
        """Nothing to close."""


class Connections:
    """The idle connections of one worker process: `most` at once, or those unused longest are given up. Thread-safe."""

    def __init__(
        self, worker: str, keeper: Keeper, tell: Callable[[Iterable[Entry]], object], *, most: float = math.inf
    ) -> None:
        self._worker = worker
        self._keeper = keeper
        self._tell = tell
        self._lock = threading.Lock()
        self._said: dict[str, int] = {}  # none of them 0, the latest said last
        self._leaving: set[str] = set()
        self._most = most
        self._total = self._at = 0
        self._giving_up: list[threading.Thread] = []

    def kept(self, account: str) -> Kept:
        """How many there are now, to be told with the end of a conversation."""
        with self._lock:
            self._at += 1
            kept = Kept(self._keeper.idle_connections(account), self._at)
            self._total += kept.connections - self._said.pop(account, 0)
            if kept.connections:
                self._said[account] = kept.connections
            self._leaving.discard(account)
            too_many = self._unused_longest() if self._total > self._most else []
        for name in too_many:
            self.give_up(name)
        return kept

    def _unused_longest(self) -> list[str]:
        """Whose connections to give up, so that no more than `most` are left."""
        over = self._total - self._most - sum(self._said.get(name, 0) for name in self._leaving)
        found: list[str] = []
        for name, count in self._said.items():
            if over <= 0:
                break
            if name not in self._leaving:
                found.append(name)
                over -= count
        self._leaving.update(found)
        return found

    def tidy(self) -> None:
        """Close what is old or dead, and say so."""
        for account, before in list(self._said.items()):
            self._keeper.close_idle(account)
            if self._keeper.idle_connections(account) < before:
                self._say(account)

    def give_up(self, account: str) -> None:
        """Others may wait for them and nothing here will use them: close them and say so, aside from the caller."""
        thread = threading.Thread(target=self._give_up, args=(account,), name="postier-give-up", daemon=True)
        thread.start()
        with self._lock:
            self._giving_up = [*(one for one in self._giving_up if one.is_alive()), thread]

    def leave(self) -> None:
        """This process begins nothing more: give everything up."""
        for account in list(self._said):
            self.give_up(account)

    def all_closed(self) -> list[Entry]:
        """What is left to say when every driver is closed."""
        for thread in self._giving_up:
            thread.join(_GOODBYE)
        return [keep(self._worker, account, self.kept(account)) for account in list(self._said)]

    def _give_up(self, account: str) -> None:
        self._keeper.close_idle(account, keep=0)
        self._say(account)

    def _say(self, account: str) -> None:
        self._tell([keep(self._worker, account, self.kept(account))])
