"""Writes of many threads in few round trips: whoever comes first writes for all who wait."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from postier.ledger.entries import Entry
from postier.schemas.errors import LedgerUnavailable
from postier.settings.logs import log

_LINGER = 0.003  # seconds an outcome may wait for company
_ENOUGH = 4  # outcomes that wait: whoever adds one more writes them, so that few are unknown should this process die
_QUIET = 2  # rounds of it without work before the flusher sleeps


class _Settles(Protocol):
    def settle(self, entries: Sequence[Entry]) -> list[int]: ...


class Ticket:
    """The answers to some entries, once they are written."""

    __slots__ = ("answers", "entries", "error")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.answers: list[int] | None = None
        self.error: LedgerUnavailable | None = None


class Settler:
    """Groups settle entries. `write` returns when they are in the ledger; `put` lets them leave with the next write.

    What was put leaves after 3 ms, or as soon as there is enough. Thread-safe. A group's error reaches each ticket.
    """

    def __init__(self, claims: _Settles) -> None:
        self._claims = claims
        self._queue: list[Ticket] = []
        self._guard = threading.Lock()
        self._turn = threading.Lock()
        self._dirty = threading.Event()
        self._asleep = False
        self._closed = threading.Event()
        self.flusher = threading.Thread(target=self._flush_late, name="postier-settler", daemon=True)
        self.flusher.start()

    def put(self, entries: Sequence[Entry]) -> Ticket:
        """Hand over entries without waiting; look at the ticket with `wait`."""
        ticket = Ticket(entries)
        with self._guard:
            self._queue.append(ticket)
            enough = len(self._queue) > _ENOUGH
            asleep, self._asleep = self._asleep, False
        if asleep:
            self._dirty.set()
        if enough and self._turn.acquire(blocking=False):
            try:
                self._write_all()
            finally:
                self._turn.release()
        return ticket

    def write(self, entries: Sequence[Entry]) -> list[int]:
        """Write entries and return their answers. Raises LedgerUnavailable."""
        ticket = Ticket(entries)
        with self._guard:
            self._queue.append(ticket)
        return self.wait(ticket)

    def wait(self, ticket: Ticket) -> list[int]:
        """The answers of a ticket. Raises LedgerUnavailable; the entries may be written again then."""
        with self._turn:
            if ticket.answers is None and ticket.error is None:
                self._write_all()
        if ticket.error is not None:
            raise ticket.error
        assert ticket.answers is not None
        return ticket.answers

    def _write_all(self) -> None:
        with self._guard:
            tickets, self._queue = self._queue, []
        entries = [entry for ticket in tickets for entry in ticket.entries]
        if not entries:
            for ticket in tickets:
                ticket.answers = []
            return
        try:
            answers = self._claims.settle(entries)
        except LedgerUnavailable as error:
            for ticket in tickets:
                ticket.error = error
            return
        except Exception as error:
            log().exception("ledger.settle_failed", entries=len(entries))
            for ticket in tickets:
                ticket.error = LedgerUnavailable(f"the ledger could not settle: {type(error).__name__}")
            return
        at = 0
        for ticket in tickets:
            end = at + len(ticket.entries)
            ticket.answers = answers[at:end]
            at = end

    def _flush_late(self) -> None:
        """Write what nobody else wrote meanwhile; sleeps only after a quiet while, for waking a thread is dear."""
        quiet = 0
        while not self._closed.wait(_LINGER):
            with self._turn:
                if self._queue:
                    self._write_all()
                    quiet = 0
            quiet += 1
            if quiet > _QUIET:
                with self._guard:
                    self._asleep = not self._queue
                if self._asleep:
                    self._dirty.wait()
                self._dirty.clear()
                quiet = 0

    def close(self) -> None:
        """Write what is left and stop. Calling twice is safe."""
        self._closed.set()
        self._dirty.set()
        self.flusher.join(timeout=5)
        with self._turn:
            self._write_all()
