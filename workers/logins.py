"""How often a login may be tried: never by many at once while it may be wrong, never for an account that is parked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from postier.ledger.logins import Answer, Outcome, Turns
from postier.schemas.errors import AuthenticationFailed, LedgerUnavailable, RateLimited

_WAIT = 30.0  # seconds for a turn
_LOOK = 0.05
_TOGETHER = 2


class NotNow(RateLimited):
    """No login may be tried now: nobody was asked anything, and the provider wants no slower pace."""

    @property
    def cause(self) -> str:
        """As for a provider that asks to slow down."""
        return "rate_limited"


class AnyTime:
    """Turns for whoever checks an account beside the workers: always at once."""

    def begin(self, turn: str) -> tuple[Answer, float]:
        """Go."""
        return "go", 0.0

    def end(self, turn: str, outcome: Outcome) -> None:
        """Nothing is kept."""


class LoginGate:
    """The logins of one account in one process: two at a time here, and only when the ledger gives a turn."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._here = threading.BoundedSemaphore(_TOGETHER)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around one login. Raises NotNow when none may be tried now, AuthenticationFailed when this credential was
        refused too often of late; the delivery spends no attempt."""
        limit = time.monotonic() + _WAIT
        if not self._here.acquire(timeout=_WAIT):
            raise NotNow("no login came about in time: others of this account are still trying", stage="auth")
        try:
            turn = self._wait_for_a_turn(limit)
            outcome: Outcome = "none"
            try:
                yield
                outcome = "good"
            except AuthenticationFailed:
                outcome = "refused"
                raise
            finally:
                with suppress(LedgerUnavailable):  # the turn ends by itself
                    self._turns.end(turn, outcome)
        finally:
            self._here.release()

    def _wait_for_a_turn(self, limit: float) -> str:
        turn = uuid4().hex
        while True:
            answer, rest = self._turns.begin(turn)
            match answer:
                case "go":
                    return turn
                case "stands":
                    raise NotNow("the account was parked while this login waited", stage="auth")
                case "stale":
                    raise NotNow("another worker knows a newer credential", stage="auth")
                case "spent":
                    text = "the login was refused three times within the hour: it is not tried before that is over"
                    raise AuthenticationFailed(text, until=rest, stage="auth")
            if time.monotonic() > limit:
                raise NotNow("no login came about in time: others of this account are still trying", stage="auth")
            time.sleep(_LOOK)
