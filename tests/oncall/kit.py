"""Failures made as workers make them."""

from __future__ import annotations

from collections.abc import Iterable

from postier.ledger.claims import Claims
from postier.ledger.entries import Claimed, Reply, end, history
from postier.ledger.replay import How, Replays
from tests.ledger.kit import Ledger, freed


def end_claimed(
    worker: Claims, *, state: str = "failed", cause: str = "recipient_refused", code: int = 550,
    enhanced: str = "5.1.1", words: str = "no such user here", most: int = 10_000,
) -> list[str]:  # fmt: skip
    """Claim what is due and end it so; the ids, in the order they ended."""
    ended: list[str] = []
    while len(ended) < most:
        handed = worker.claim(8, min(50, most - len(ended)))[1]
        if not handed:
            return ended
        for conversation in handed:
            entries = [
                _ended(delivery, state, cause, Reply(code, enhanced, words)) for delivery in conversation.deliveries
            ]
            worker.settle([*entries, freed(conversation)])
            ended += [delivery.id for delivery in conversation.deliveries]
    return ended


def _ended(delivery: Claimed, state: str, cause: str, reply: Reply) -> tuple[str | bytes | int | float, ...]:
    line = history(state, attempt=delivery.attempt, account="main", cause=cause, code=reply.code, words=reply.words)
    return end(delivery, reply, state=state, cause=cause, timeline=line)


def replay(ledger: Ledger, ids: Iterable[str], *, replay_id: str | None = None, **how: object) -> dict[str, str]:
    """Replay in the name of ann; the answers by id."""
    started = Replays(ledger.store, "ann").start(ids, How(**how), ledger.registry, replay_id=replay_id)  # type: ignore[arg-type]
    return dict(started)
