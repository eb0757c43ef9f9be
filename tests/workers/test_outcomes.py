"""How long a delivery waits for its next attempt."""

from __future__ import annotations

import pytest

from postier.ledger.entries import Claimed
from postier.schemas.errors import TemporaryError
from postier.workers.outcomes import decide


def delivery(attempt: int) -> Claimed:
    facts = ("school", "reset_link", 1, "e", "<d@example.org>", 0, 0, "resend", b"", "a***@e***", True, "")
    return Claimed("d", 1, attempt, 0, *facts)


def wait(attempt: int, wish: float | None) -> float:
    """Seconds."""
    entry = decide(delivery(attempt), TemporaryError("later", retry_after=wish), account="a", took=0.1)
    assert entry[0] == "retry"
    return int(entry[3]) / 1e6


@pytest.mark.parametrize("attempt", [1, 3, 8])
def test_who_asks_for_a_time_gets_it_and_at_most_a_tenth_more(attempt: int) -> None:
    assert all(7.0 <= wait(attempt, 7.0) <= 7.7 for _ in range(200))


def test_who_asks_for_a_second_again_and_again_gets_growing_waits() -> None:
    assert all(wait(8, 1.0) >= 1.0 for _ in range(200))
    assert max(wait(8, 1.0) for _ in range(200)) > 60.0
