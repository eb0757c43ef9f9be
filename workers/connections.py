"""What this process keeps open between conversations, as the ledger hears of it: providers count idle connections too.

The ledger hands out no conversation that would open one more than an account's `max_connections`, over all workers. For
that it must never believe in fewer than there are: a count is read after a connection was put by, and of two counts the
later read one holds.
"""

from __future__ import annotations

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
    """The idle connections of one worker process. Thread-safe."""

    def __init__(self, worker: str, keeper: Keeper, tell: Callable[[Iterable[Entry]], object]) -> None:
        self._worker = worker
        self._keeper = keeper
        self._tell = tell
        self._lock = threading.Lock()
        self._said: dict[str, int] = {}
        self._at = 0
        self._giving_up: list[threading.Thread] = []

    def kept(self, account: str) -> Kept:
        """How many there are now, to be told with the end of a conversation."""
        with self._lock:
            self._at += 1
            self._said[account] = count = self._keeper.idle_connections(account)
            return Kept(count, self._at)

    def tidy(self) -> None:
        """Close what is old or dead, and say so."""
        for account in [name for name, count in list(self._said.items()) if count]:
            before = self._said[account]
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
        for account in [name for name, count in list(self._said.items()) if count]:
            self.give_up(account)

    def all_closed(self) -> list[Entry]:
        """What is left to say when every driver is closed."""
        for thread in self._giving_up:
            thread.join(_GOODBYE)
        return [keep(self._worker, account, self.kept(account)) for account, count in list(self._said.items()) if count]

    def _give_up(self, account: str) -> None:
        self._keeper.close_idle(account, keep=0)
        self._say(account)

    def _say(self, account: str) -> None:
        self._tell([keep(self._worker, account, self.kept(account))])
