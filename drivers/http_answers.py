"""Turns a provider's answer into one of our errors: its own documented codes first, then the status, then the words."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, NamedTuple

from postier.drivers.replies import ReplyClass, classify
from postier.drivers.smtp_words import wished_wait
from postier.schemas.errors import (
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    OutcomeUnknown,
    RateLimited,
    RecipientRefused,
    SenderRefused,
    TemporaryError,
)

_LONGEST_WAIT = 86_400.0  # seconds
_RESETS = ("retry-after", "x-sib-ratelimit-reset", "x-ratelimit-reset")

Cause = Callable[..., DeliveryError]
suppressed: Cause = partial(RecipientRefused, suppress=True)
crowded: Cause = partial(RateLimited, too_many_recipients=True)


class Known(NamedTuple):
    """One answer the provider documents: what is given must match, and says what it means.

    `code` is the provider's own error code, `words` a part of its text, both in lower case.
    """

    cause: Cause
    status: int | None = None
    code: str | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `body` is cut at 64 kB and may be incomplete."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty when it is none."""
        with suppress(ValueError, RecursionError):
            value = json.loads(self.body)
            if isinstance(value, dict):
                return value
        return {}


def refusal(
    answer: Answer, errors: Iterable[Known], words: str, text: str, code: object, *, takes_once: bool
) -> DeliveryError:
    """The error an answer stands for. `words` and `code` are what the provider says, both may be missing; `text` is
    what people may see of it."""
    lowered, name = words.lower(), None if code is None else str(code).lower()
    for known in errors:
        if known.status in (None, answer.status) and known.code in (None, name) and known.words in lowered:
            return _build(known.cause, text, answer)
    if 200 <= answer.status <= 299 or answer.status in (502, 504) or (answer.status == 500 and not words):
        return lost(f"no usable answer: {text}", takes_once=takes_once, status=answer.status)
    return _build(_by_status(answer.status, words), text, answer)


def lost(words: str, *, takes_once: bool, **evidence: int) -> DeliveryError:
    """What an attempt ends with when nobody says whether the mail was taken. `evidence` is what is known."""
    code = evidence.get("status")
    if takes_once:
        return TemporaryError(words, code=code, stage="http")
    return OutcomeUnknown(words, code=code, stage="http", evidence=evidence)


def _by_status(status: int, words: str) -> Cause:
    if 300 <= status <= 399:  # not followed: it would carry the login and the mail elsewhere
        return SenderRefused
    return _BY_CLASS[classify(status, None, words, stage="http")]


_BY_CLASS: dict[ReplyClass, Cause] = {
    ReplyClass.SENT: TemporaryError,  # a 2xx where it has no meaning
    ReplyClass.RETRY: TemporaryError,
    ReplyClass.THROTTLE: RateLimited,
    ReplyClass.PERMANENT_RECIPIENT: RecipientRefused,
    ReplyClass.PERMANENT_CONTENT: EmailRefused,
    ReplyClass.CONFIG: SenderRefused,
    ReplyClass.AUTH: AuthenticationFailed,
    ReplyClass.SUPPRESS: suppressed,
}


def _build(cause: Cause, text: str, answer: Answer) -> DeliveryError:
    kind = cause.func if isinstance(cause, partial) else cause
    details: dict[str, Any] = {"code": answer.status, "stage": "http"}
    if isinstance(kind, type) and issubclass(kind, TemporaryError):
        details["retry_after"] = wanted_wait(answer.headers) or wished_wait(text)
    return cause(text, **details)


def wanted_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds until the provider wants to be asked again: Retry-After (seconds or a date) or the end of its window."""
    for name in _RESETS:
        value = headers.get(name, "").strip()
        seconds: float | None = None
        with suppress(ValueError):
            seconds = float(value)
        if seconds is None:
            with suppress(ValueError, TypeError, OverflowError):  # a year may have any number of digits
                seconds = parsedate_to_datetime(value).timestamp()
        if seconds is None or seconds != seconds:
            continue
        if seconds > 1e9:  # a point in time
            seconds -= time.time()
        return min(max(seconds, 0.0), _LONGEST_WAIT)
    return None
