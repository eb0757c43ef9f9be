"""Standard error for logs: a full disk, a full pipe or a closed stream costs lines, never a send."""

from __future__ import annotations

import os
import select
import sys
import threading

# A pipe that takes anything takes this much at once (POSIX PIPE_BUF, on Linux).
_PIECE = 4096


class LogStream:
    """Writes lines to a descriptor that may be full or gone, without ever waiting or raising. Thread-safe.

    `lost` counts the lines that nobody got.
    """

    def __init__(self, descriptor: int | None) -> None:
        self.lost = 0
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._poll = select.poll()
        if descriptor is not None:
            self._poll.register(descriptor, select.POLLOUT)

    def write(self, text: str) -> int:
        """Write a text, or count it as lost. Returns its length."""
        octets = text.encode("utf-8", "backslashreplace")
        with self._lock:
            if not self._written(octets):
                self.lost += 1
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return self._descriptor is not None and os.isatty(self._descriptor)

    def _written(self, octets: bytes) -> bool:
        if self._descriptor is None:
            return False
        try:
            while octets:
                if not self._poll.poll(0):
                    return False
                octets = octets[os.write(self._descriptor, octets[:_PIECE]) :]
        except OSError:
            return False
        return True


def standard_error() -> LogStream:
    """The process' standard error. A closed one stays closed: its number must not become a socket's."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            if os.open(os.devnull, os.O_RDWR) != number:
                break
    try:
        return LogStream(sys.stderr.fileno() if sys.stderr is not None else None)
    except (OSError, ValueError):
        return LogStream(None)
