"""Turns to log in, shared by all workers: a wrong password must not lock the mailbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, cast

from postier.ledger.store import Store

Answer = Literal["go", "busy", "stands", "stale", "spent"]
Outcome = Literal["good", "refused", "none"]


class Turns(Protocol):
    """Who may log in to one account now."""

    def begin(self, turn: str) -> tuple[Answer, float]:
        """Ask for a turn of this name; `go` takes it, and it must `end`. The number is the seconds to rest."""

    def end(self, turn: str, outcome: Outcome) -> None:
        """Give the turn back and say how the login went. Calling twice is safe."""


@dataclass(frozen=True, slots=True)
class LoginTurns:
    """Turns in the ledger. A credential that was refused is tried three times an hour at most, whoever tries.

    Two logins go on at once, over all workers; one while it is not known to be right. Raises LedgerUnavailable.
    """

    store: Store
    account: str
    credential: str

    def begin(self, turn: str) -> tuple[Answer, float]:
        """As `Turns` says: `stale` means that the ledger knows a newer credential than this one."""
        answer, seconds = self.store.run("login", ("begin", self.account, self.credential, turn))
        return cast(Answer, answer.decode()), float(seconds)

    def end(self, turn: str, outcome: Outcome) -> None:
        """As `Turns` says. A turn that never ends is over after a minute."""
        self.store.run("login", ("end", self.account, self.credential, turn, outcome))
