"""How often a login may be tried: never by many at once while it may be wrong, never for an account that is parked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from postier.schemas.errors import AuthenticationFailed, RateLimited

_WAIT = 30.0  # seconds for a turn
_TOGETHER = 2


class LoginGate:
    """The logins of one account in one process: one at a time until the first succeeded, two at a time after that.

    `allowed` looks at the ledger right before each login: when another process found the password wrong a moment ago,
    the account is parked and this one is not tried.
    """

    def __init__(self, allowed: Callable[[], bool]) -> None:
        self._allowed = allowed
        self._first = threading.Lock()
        self._turns = threading.BoundedSemaphore(_TOGETHER)
        self._proven = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around one login. Raises RateLimited when none may be tried now; the delivery spends no attempt."""
        turn = self._turns if self._proven else self._first
        if not turn.acquire(timeout=_WAIT):
            raise RateLimited("no login came about in time: others of this account are still trying", stage="auth")
        try:
            if not self._allowed():
                raise RateLimited("the account was parked while this login waited", stage="auth")
            yield
            self._proven = True
        except AuthenticationFailed:
            self._proven = False
            raise
        finally:
            turn.release()
