"""Proofs of acceptance on local disk, written within microseconds of the provider's answer.

Should the process die before the ledger knows, the next start tells it: an `unknown` delivery becomes `sent`.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic_core import to_json

from postier.ledger.entries import Entry
from postier.schemas.errors import LedgerUnavailable

_ENOUGH = 1_000_000
_REPEATED = 1000


class ReceiptFile:
    """Appends one line per receipt to a file of this process alone. Thread-safe.

    A disk that is full or read-only costs the extra safety, never a delivery.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        self._path = folder / f"{worker}.receipts"
        self._lock = threading.Lock()
        self._descriptor = -1
        self._size = 0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._descriptor = -1

    def write(self, entry: Entry) -> None:
        """Remember that a provider took this delivery."""
        if self._descriptor < 0:
            return
        line = to_json(entry) + b"\n"
        try:
            with self._lock:
                os.write(self._descriptor, line)
                self._size += len(line)
        except OSError:
            return

    @property
    def size(self) -> int:
        """How many bytes the file has."""
        return self._size

    def since(self, offset: int) -> list[Entry]:
        """The receipts behind an offset, the last thousand at most."""
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                lines = file.read().splitlines()[-_REPEATED:]
        except OSError:
            return []
        return [tuple(entry) for entry in map(_parse, lines) if entry]

    def trim(self, *, settled: Callable[[], bool]) -> None:
        """Start the file anew when it is large and everything in it is settled."""
        with self._lock:
            if self._descriptor >= 0 and self._size > _ENOUGH and settled():
                with suppress(OSError):  # a disk that became read-only
                    os.ftruncate(self._descriptor, 0)
                    self._size = 0

    def close(self) -> None:
        """Remove the file: everything in it is settled. Calling twice is safe."""
        with self._lock:
            if self._descriptor >= 0:
                _remove(self._path)
                os.close(self._descriptor)
                self._descriptor = -1


def _left_behind(folder: Path) -> Iterator[tuple[Path, list[Entry]]]:
    for path in sorted(folder.glob("*.receipts")):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lines = file.read().splitlines()
        except OSError:
            continue  # its process lives
        yield path, [tuple(entry) for entry in map(_parse, lines) if entry]


def _parse(line: bytes) -> list[str | int] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None  # torn by the crash
    whole = isinstance(entry, list) and len(entry) == 9 and entry[0] == "sent"
    return entry if whole and all(type(part) in (str, int) for part in entry) else None


def replay_receipts(folder: Path, settle: Callable[[Sequence[Entry]], object], *, batch: int = 500) -> int:
    """Tell the ledger what dead workers of this machine could not; returns how many receipts were read.

    Safe to repeat. Raises LedgerUnavailable and keeps the files then.
    """
    read = 0
    for path, entries in _left_behind(folder):
        for start in range(0, len(entries), batch):
            settle(entries[start : start + batch])
        read += len(entries)
        _remove(path)
    return read


def _remove(path: Path) -> None:
    """What cannot be removed is told again by the next start, which is safe."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


__all__ = ["LedgerUnavailable", "ReceiptFile", "replay_receipts"]
