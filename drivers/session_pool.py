"""Keeps a few idle sessions of one driver. The one used last is used first, so the rest may grow old and go."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

_PATIENCE = 2.0  # seconds


class Line(Protocol):
    """What a session talks over."""

    def is_quiet(self) -> bool:
        """It stands, and nothing came that nobody asked for."""


class Pooled(Protocol):
    """A session that may be kept: `mails` it has sent, `idle_since` which second of the pool's clock."""

    mails: int
    idle_since: float

    @property
    def wire(self) -> Line:
        """Its connection."""

    @property
    def is_clean(self) -> bool:
        """Nothing is owed in either direction."""

    def leave(self) -> None:
        """Close politely."""

    def say_goodbye(self) -> None:
        """Begin to close politely."""

    def wait_until_gone(self, seconds: float) -> None:
        """Close, once the server has closed or after `seconds`."""

    def drop(self) -> None:
        """Close at once."""


SessionT = TypeVar("SessionT", bound=Pooled)


def leave_together(sessions: Iterable[Pooled], *, seconds: float = 1.0) -> None:
    """Leave several sessions within the time of one: a server that does not close is left after `seconds`."""
    leaving = list(sessions)
    for session in leaving:
        session.say_goodbye()
    until = time.monotonic() + seconds
    for session in leaving:
        session.wait_until_gone(max(0.0, until - time.monotonic()))


class SessionPool(Generic[SessionT]):
    """Safe for threads. Sessions made before a fork belong to the parent and are forgotten in the child.

    Who finds none waits for those that are leaving: a new one beside them would be one too many for the server.
    """

    def __init__(self, *, size: int, idle_seconds: float, max_mails: int, clock: Callable[[], float]) -> None:
        self._size = size
        self._idle_seconds = idle_seconds
        self._max_mails = max_mails
        self._clock = clock
        self._lock = threading.Lock()
        self._gone = threading.Condition(self._lock)
        self._leaving = 0
        self._idle: list[SessionT] = []
        self._owner = os.getpid()
        self._closed = False

    def take(self) -> SessionT | None:
        """A session that still stands, or None. Those found old or dead are closed."""
        while True:
            with self._lock:
                self._forget_the_parents()
                if not self._idle:
                    self._gone.wait_for(lambda: self._idle or not self._leaving, _PATIENCE)
                if not self._idle:
                    return None
                session = self._idle.pop()
            if self._clock() - session.idle_since < self._idle_seconds and session.wire.is_quiet():
                return session
            session.leave()

    def give_back(self, session: SessionT) -> None:
        """Keep a session for later, or close it: when it is spent, owes something, or there are enough."""
        now = self._clock()
        session.idle_since = now
        gone: list[SessionT] = []
        with self._lock:
            self._forget_the_parents()
            while self._idle and now - self._idle[0].idle_since >= self._idle_seconds:
                gone.append(self._idle.pop(0))
            self._leaving += len(gone)
            leaving = len(gone)
            keep = not self._closed and session.is_clean and session.mails < self._max_mails
            if keep and len(self._idle) < self._size and self._idle_seconds > 0:
                self._idle.append(session)
            else:
                gone.append(session)
        self._leave(gone, leaving)

    def close_idle(self, *, keep: int | None = None) -> None:
        """Close sessions that are old or dead, or the oldest until `keep` are left."""
        now = self._clock()
        with self._lock:
            self._forget_the_parents()
            if keep is None:
                stay = [s for s in self._idle if now - s.idle_since < self._idle_seconds and s.wire.is_quiet()]
            else:
                stay = self._idle[max(0, len(self._idle) - keep) :]
            gone = [session for session in self._idle if session not in stay]
            self._idle = stay
            self._leaving += len(gone)
        self._leave(gone, len(gone))

    def close(self) -> None:
        """Close every idle session; those in use are closed when they come back. Calling twice is safe."""
        with self._lock:
            self._forget_the_parents()
            self._closed = True
            gone, self._idle = self._idle, []
            self._leaving += len(gone)
        self._leave(gone, len(gone))

    def __len__(self) -> int:
        """How many are open and in nobody's hands, those that are leaving among them."""
        return len(self._idle) + self._leaving

    def _leave(self, sessions: Sequence[Pooled], counted: int) -> None:
        """Leave sessions; `counted` of them were idle ones."""
        if not sessions:
            return
        try:
            leave_together(sessions)
        finally:
            with self._gone:
                self._leaving -= counted
                self._gone.notify_all()

    def _forget_the_parents(self) -> None:
        if self._owner != os.getpid():
            self._owner = os.getpid()
            for session in self._idle:
                session.drop()
            self._idle = []
