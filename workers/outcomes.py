"""How an attempt ended, as the ledger writes it: one entry for the delivery, sometimes one for its account."""

from __future__ import annotations

import random
from typing import Final

from postier.ledger.entries import Claimed, Entry, Reply, end, history, park, retry, sent
from postier.schemas.errors import (
    AccountError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    RecipientRefused,
    TemporaryError,
)
from postier.schemas.receipt import Receipt

# First and largest wait in seconds: urgent mail until it expires, bulk mail for two days.
_BACKOFF: Final = {"urgent": (15.0, 600.0), "bulk": (60.0, 3600.0)}
_LEAST_WAIT: Final = 1.0
_THROTTLED: Final = (5.0, 30.0)
# A login is tried at most three times an hour, so that a wrong password never locks the mailbox.
PARK_SECONDS: Final = 1200.0


def backoff(attempt: int, *, urgent: bool) -> float:
    """Seconds until the attempt after `attempt` (from 1): exponential with full jitter."""
    first, largest = _BACKOFF["urgent" if urgent else "bulk"]
    ceiling = min(largest, first * 2.0 ** min(attempt - 1, 20))
    return max(_LEAST_WAIT, random.uniform(0, ceiling))


def decide(delivery: Claimed, result: Receipt | DeliveryError, *, account: str, took: float) -> tuple[Entry, ...]:
    """The entries that say how this attempt ended. `took` is in seconds."""
    micros = int(took * 1_000_000)
    if isinstance(result, Receipt):
        reply = Reply(result.code, result.enhanced, result.text)
        first = delivery.attempt == 1 and not delivery.crashes
        timeline = "" if first else _line("sent", delivery, account, micros, reply)
        return (
            sent(delivery.id, delivery.fence, reply, provider_id=result.provider_id, took=micros, timeline=timeline),
        )
    error = result
    reply = Reply(error.code, error.enhanced, error.text)

    def again(delay: float, *, spend: bool, what: str) -> Entry:
        line = _line(what, delivery, account, micros, reply, error)
        return retry(delivery, reply, delay=delay, spend=spend, cause=error.cause, timeline=line)

    def over(state: str) -> Entry:
        line = _line(state, delivery, account, micros, reply, error)
        return end(delivery, reply, state=state, cause=error.cause, timeline=line)

    match error:
        case OutcomeUnknown():
            if delivery.on_unknown == "resend":
                return (again(backoff(delivery.attempt, urgent=delivery.urgent), spend=True, what="unknown"),)
            return (over("unknown"),)
        case RateLimited(retry_after=wait):
            return (again(wait or random.uniform(*_THROTTLED), spend=False, what="deferred"),)
        case TemporaryError(retry_after=wait):
            pause = backoff(delivery.attempt, urgent=delivery.urgent)
            return (again(max(pause, wait or 0.0), spend=True, what="retried"),)
        case RecipientRefused(suppress=True):
            return (over("suppressed"),)
        case PermanentError():
            return (over("failed"),)
        case AccountError(until=until):
            seconds = until or PARK_SECONDS
            parked = park(account, seconds=seconds, cause=error.cause, words=error.text)
            return (parked, again(_LEAST_WAIT, spend=False, what="deferred"))
    return (over("failed"),)


def _line(
    what: str, delivery: Claimed, account: str, micros: int, reply: Reply, error: DeliveryError | None = None
) -> str:
    return history(
        what,
        attempt=delivery.attempt,
        account=account,
        took=micros,
        code=reply.code,
        enhanced=reply.enhanced,
        words=reply.words[:300],
        cause=error.cause if error else "",
        stage=error.stage if error else None,
    )
