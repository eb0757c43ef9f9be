"""How an attempt ended, as the ledger writes it: an entry for the delivery, sometimes one for its account."""

from __future__ import annotations

import random
from typing import Any, Final

from postier.ledger.entries import Claimed, Entry, Reply, end, history, park, retry, sent, slow, split, wait
from postier.schemas.errors import (
    AccountError,
    AuthenticationFailed,
    DeliveryError,
    OutcomeUnknown,
    RateLimited,
    RecipientRefused,
    TemporaryError,
    Unreachable,
)
from postier.schemas.receipt import Receipt
from postier.settings.logs import redact
from postier.workers.logins import NotNow

# First and largest wait in seconds: urgent mail until it expires, bulk mail for two days.
_BACKOFF: Final = {"urgent": (15.0, 600.0), "bulk": (60.0, 3600.0)}
_LEAST_WAIT: Final = 1.0
_CLEAR_WISH: Final = 5.0  # seconds; who asks for less and fails again and again gets the growing waits
_THROTTLED: Final = (5.0, 30.0)
# A login is tried at most three times an hour, so that a wrong password never locks the mailbox.
PARK_SECONDS: Final = 1200.0
# The provider saw nothing of the mail, so its quota did not either.
_NEVER_ARRIVED: Final = (Unreachable, AuthenticationFailed, NotNow)
_SLOWED: Final = 2.0  # seconds without mail when the provider wants less and does not say for how long


def backoff(attempt: int, *, urgent: bool) -> float:
    """Seconds until the attempt after `attempt` (from 1): exponential with full jitter."""
    first, largest = _BACKOFF["urgent" if urgent else "bulk"]
    ceiling = min(largest, first * 2.0 ** min(attempt - 1, 20))
    return max(_LEAST_WAIT, random.uniform(0, ceiling))


def _pause(delivery: Claimed, wish: float | None) -> float:
    """Seconds until the next attempt: what was asked for and a tenth more at most, if that is long enough."""
    if wish and wish >= _CLEAR_WISH:
        return wish * random.uniform(1.0, 1.1)
    return max(backoff(delivery.attempt, urgent=delivery.urgent), wish or 0.0)


def decide(
    delivery: Claimed, result: Receipt | DeliveryError, *, account: str, took: float, shared: bool = False
) -> Entry:
    """The entry that says how this attempt ended. `took` is in seconds; `shared` when others were in the same mail."""
    micros = int(took * 1_000_000)
    if isinstance(result, Receipt):
        reply = Reply(result.code, result.enhanced, result.text)
        first = delivery.attempt == 1 and not delivery.crashes
        timeline = "" if first else _line("sent", delivery, account, micros, reply)
        return sent(delivery.id, delivery.fence, reply, provider_id=result.provider_id, took=micros, timeline=timeline)
    error = result
    reply = Reply(error.code, error.enhanced, error.text)

    def again(delay: float, *, spend: bool, what: str) -> Entry:
        line = _line(what, delivery, account, micros, reply, error, delay)
        refund = isinstance(error, _NEVER_ARRIVED)
        return retry(delivery, reply, delay=delay, spend=spend, refund=refund, cause=error.cause, timeline=line)

    def over(state: str) -> Entry:
        line = _line(state, delivery, account, micros, reply, error)
        return end(delivery, reply, state=state, cause=error.cause, timeline=line)

    match error:
        case OutcomeUnknown():
            if delivery.on_unknown == "resend":
                return again(backoff(delivery.attempt, urgent=delivery.urgent), spend=True, what="unknown")
            return over("unknown")
        case RateLimited(too_many_recipients=True) if shared:
            return again(0, spend=False, what="split")
        case NotNow():
            return again(0, spend=False, what="deferred")
        case RateLimited(retry_after=wish):
            return again(wish or random.uniform(*_THROTTLED), spend=False, what="deferred")
        case TemporaryError(retry_after=wish):
            return again(_pause(delivery, wish), spend=True, what="retried")
        case RecipientRefused(suppress=True):
            return over("suppressed")
        case AccountError():
            return again(0, spend=False, what="deferred")
    return over("failed")


def unopened(delivery: Claimed, words: str, *, account: str) -> Entry:
    """The entry of a mail that this worker has no key for: it waits as after any failure of the moment."""
    delay = backoff(delivery.attempt, urgent=delivery.urgent)
    line = history(
        "retried", attempt=delivery.attempt, account=account, cause="undecodable", words=words, next_in=round(delay, 1)
    )
    return retry(delivery, Reply(words=words), delay=delay, spend=True, refund=True, cause="undecodable", timeline=line)


def react(account: str, result: Receipt | DeliveryError, *, recipients: int) -> Entry | None:
    """What the result means for its account: it parks, slows down, or takes fewer recipients in a mail; or nothing."""
    match result:
        case AuthenticationFailed(needs_login=True):
            return park(account, state="needs_login", seconds=0, cause=result.cause, words=result.text)
        case AccountError(until=until):
            return park(account, state="parked", seconds=until or PARK_SECONDS, cause=result.cause, words=result.text)
        case RateLimited(too_many_recipients=True) if recipients > 1:
            return split(account, recipients=recipients)
        case NotNow():
            return wait(account, seconds=_LEAST_WAIT)
        case RateLimited(retry_after=wish):
            return slow(account, seconds=wish or _SLOWED)
        case Receipt(refused=refused) if any(_crowded(one.error) for one in refused):
            return split(account, recipients=2 * (recipients - len(refused)))  # it took that many
    return None


def _crowded(error: DeliveryError) -> bool:
    return isinstance(error, RateLimited) and error.too_many_recipients


def _line(
    what: str,
    delivery: Claimed,
    account: str,
    micros: int,
    reply: Reply,
    error: DeliveryError | None = None,
    delay: float | None = None,
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
        **_more(error, delay),
    )


def _more(error: DeliveryError | None, delay: float | None) -> dict[str, Any]:
    """What only some attempts leave behind: the class of the reply, the wait that follows, what speaks for a mail that
    may have left."""
    more: dict[str, Any] = {"class": error.reply_class if error else None}
    if delay is not None:
        more["next_in"] = round(delay, 1)
    if isinstance(error, OutcomeUnknown) and error.evidence:
        more["evidence"] = {name: redact(str(value))[:200] for name, value in list(error.evidence.items())[:8]}
    return more
