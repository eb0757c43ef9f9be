"""How an idle worker learns at once that something is due: it listens to the ledger, and to its own threads."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from typing import Any

from postier.ledger.store import Store, translated
from postier.schemas.errors import LedgerUnavailable

_ASKED_FOR = 2.0  # seconds a wake-up is asked for at a time; Redis may end that a tenth of a second late
_AGAIN = 1.0  # seconds without listening once the ledger could not be asked
_UNREAD = 60  # seconds a wake-up stays that nobody reads


class Wakes:
    """The wake-ups of one worker. One thread waits; any may ring.

    The question stays open in Redis between two waits, and a wait ends by a clock of our own: Redis ends short ones up
    to a tenth of a second late. Whoever can begin nothing must not listen, or it takes what another could use.
    """

    def __init__(self, store: Store, worker: str) -> None:
        self._store = store
        self._own = store.key(f"wake:{worker}")
        self._everybody = store.key("wake")
        self._connection: Any = None
        self._question: list[bytes] = []
        self._socket = -1
        self._asked_at: float | None = None
        self._not_before = 0.0
        self._rung = self._waiting = False
        self._taken = ""  # the list that the last wake-up came from
        self._hear, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        self._poll = select.poll()
        self._poll.register(self._hear, select.POLLIN)

    def ring(self) -> None:
        """End the wait, or the next one if none is under way. Safe from any thread, any number of times."""
        self._rung = True
        if self._waiting:
            with suppress(BlockingIOError):  # then it was rung often enough
                os.write(self._bell, b"!")

    def wait(self, seconds: float, *, listen: bool) -> bool:
        """Wait for a ring and, if `listen`, for a wake-up from the ledger; False when the time ran out.

        A connection that breaks ends the wait. Without the ledger it waits for a ring alone.
        """
        ends = time.monotonic() + seconds
        self._waiting = True
        self._taken = ""
        if not listen:
            self.pass_on()
        try:
            while not self._rung:
                if listen:
                    self._ask()
                ready = {number for number, _ in self._poll.poll(max(0.0, ends - time.monotonic()) * 1000)}
                if not ready:
                    return False
                if self._hear in ready:
                    os.read(self._hear, 64)
                elif self._answer():
                    break
        except LedgerUnavailable:
            self._not_before = time.monotonic() + _AGAIN
        finally:
            self._waiting = False
        self._rung = False
        return True

    def pass_on(self) -> None:
        """Stop listening, and leave a wake-up that came for anybody to another worker."""
        try:
            with translated():
                if self._asked_at is not None:
                    # Whatever it waits for ends the question; unread it is one look too many later.
                    with self._store.redis.pipeline(transaction=False) as pipe:
                        pipe.lpush(self._own, "1").expire(self._own, _UNREAD).execute()
                    self._answer()
                if self._taken == self._everybody:
                    self._store.redis.lpush(self._everybody, "1")
        except LedgerUnavailable:
            self._lose()
        self._taken = ""

    def close(self) -> None:
        """Stop listening for good. Calling twice is safe."""
        self.pass_on()
        self._disconnect()

    def _ask(self) -> None:
        """Have the one question open. Raises LedgerUnavailable."""
        now = time.monotonic()
        if self._asked_at is not None:
            if now < self._asked_at + _ASKED_FOR + self._store.timeout:
                return
            self._lose()  # nobody answers there any more
        if now < self._not_before:
            return
        try:
            with translated():
                if self._connection is None:
                    self._connection = self._store.new_connection()
                    self._question = self._connection.pack_command("BLPOP", self._own, self._everybody, _ASKED_FOR)
                    self._socket = self._connection._sock.fileno()
                    self._poll.register(self._socket, select.POLLIN)
                self._connection.send_packed_command(self._question, check_health=False)
        except BaseException:
            self._lose()
            raise
        self._asked_at = now

    def _answer(self) -> bool:
        """Whether it is a wake-up; else Redis ended the question. Raises LedgerUnavailable."""
        try:
            with translated():
                woken = self._connection.read_response()
        except BaseException:
            self._lose()
            raise
        self._asked_at = None
        self._taken = woken[0].decode() if woken else ""
        return woken is not None

    def _lose(self) -> None:
        self._store.lost_connections += self._connection is not None
        self._disconnect()

    def _disconnect(self) -> None:
        self._asked_at = None
        connection, self._connection = self._connection, None
        if connection is not None:
            self._poll.unregister(self._socket)
            connection.disconnect()
