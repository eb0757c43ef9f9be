"""Keeps a few idle sessions of one driver. The one used last is used first, so the rest may grow old and go."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


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

    def drop(self) -> None:
        """Close at once."""


SessionT = TypeVar("SessionT", bound=Pooled)


class SessionPool(Generic[SessionT]):
    """Safe for threads. Sessions made before a fork belong to the parent and are forgotten in the child."""

    def __init__(self, *, size: int, idle_seconds: float, max_mails: int, clock: Callable[[], float]) -> None:
        self._size = size
        self._idle_seconds = idle_seconds
        self._max_mails = max_mails
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: list[SessionT] = []
        self._owner = os.getpid()
        self._closed = False

    def take(self) -> SessionT | None:
        """A session that still stands, or None. Those found old or dead are closed."""
        while True:
            with self._lock:
                self._forget_the_parents()
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
            keep = not self._closed and session.is_clean and session.mails < self._max_mails
            if keep and len(self._idle) < self._size and self._idle_seconds > 0:
                self._idle.append(session)
            else:
                gone.append(session)
        for old in gone:
            old.leave()

    def close(self) -> None:
        """Close every idle session; those in use are closed when they come back. Calling twice is safe."""
        with self._lock:
            self._forget_the_parents()
            self._closed = True
            gone, self._idle = self._idle, []
        for session in gone:
            session.leave()

    def __len__(self) -> int:
        return len(self._idle)

    def _forget_the_parents(self) -> None:
        if self._owner != os.getpid():
            self._owner = os.getpid()
            for session in self._idle:
                session.drop()
            self._idle = []
