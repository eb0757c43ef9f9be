"""Turns replies and broken connections into our errors, and makes servers' words safe to show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from postier.drivers.replies import ReplyClass, classify
from postier.drivers.reply_rules_account import GREYLISTED
from postier.drivers.reply_text import normalise
from postier.drivers.smtp_reply import Reply
from postier.schemas.errors import (
    AccountError,
    AuthenticationFailed,
    DeliveryError,
    EmailRefused,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    RecipientRefused,
    SenderRefused,
    Stage,
    TemporaryError,
)

MAX_WORDS = 300  # characters
_QUOTA_PROBE = 3600.0  # seconds: windows slide or end at an hour that no reply tells
_GREYLISTED = 60.0  # seconds: an earlier try would be refused again, and may begin the wait anew (RFC 6647 section 5)
_LONGEST_WAIT = 86_400.0  # seconds: a server that asks for more is asked again tomorrow

_ADDRESS = re.compile(r"([^\s<>@\"'(),:;=\[\]])[^\s<>@\"'(),:;=\[\]]*@([\w\[])[\w.:\[\]-]*")
_LINK = re.compile(r"(\bhttps?://[^/\s?#<>\"']{1,253})[/?#][^\s\"'<>]*", re.IGNORECASE)
_UNIT = r"(?:s\b|secs?\b|seconds?|m\b|mins?\b|minutes?|h\b|hrs?\b|hours?)"
_WAIT = re.compile(
    rf"(?:(?:in|after|for|wait|another|least)\s+|delay[=: ]\s*|retry[-_ ]?after[=: ]\s*)(\d{{1,6}})\s*({_UNIT})?",
    re.IGNORECASE,
)
# A 5xx that speaks of these means pace, not a spent allowance.
_SOON = re.compile(
    r"per (?:second|minute)|too (?:fast|quickly|frequent)|connections?|concurren|slow(?:ing)? down", re.I
)
_CROWDED = re.compile(
    r"too many (?:recipients|rcpts?)|recipients? limit|maximum (?:number of )?recipients", re.IGNORECASE
)


def safe_words(text: str, secrets: Sequence[str] = ()) -> str:
    """The server's words as people may see them: one line of 300 characters, addresses masked, links cut behind their
    host (a filter may quote the one that lets people in), secrets and control characters gone."""
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, "***")
    if "://" in text:
        text = _LINK.sub(r"\1/…", text[: 8 * MAX_WORDS])
    if "@" in text:
        text = _ADDRESS.sub(r"\1***@\2***", text[: 4 * MAX_WORDS])
    if "\n" in text:
        text = " ".join(text.splitlines())
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:MAX_WORDS])
    return text[:MAX_WORDS]


def wished_wait(text: str) -> float | None:
    """The seconds a server asks us to wait, if its words say a time."""
    found = _WAIT.search(text[:2_000])
    if found is None:
        return None
    number, unit = float(found.group(1)), (found.group(2) or "s")[0].lower()
    return min(number * {"s": 1, "m": 60, "h": 3600}[unit], _LONGEST_WAIT)


def refusal(reply: Reply, stage: Stage, secrets: Sequence[str] = ()) -> DeliveryError:
    """The error one refusing reply stands for."""
    code, enhanced = reply.code, reply.enhanced
    reply_class = str(classify(code, enhanced, reply.text, "data" if stage == "body" else stage))
    if reply_class == ReplyClass.SENT:  # a 2xx or 3xx where it has no meaning
        reply_class = str(ReplyClass.RETRY)
    words = safe_words(reply.text, secrets)
    details: dict[str, Any] = {"code": code, "enhanced": enhanced, "stage": stage, "reply_class": reply_class}
    if reply_class == ReplyClass.THROTTLE:
        if code >= 500 and not _SOON.search(reply.text) and not _CROWDED.search(reply.text):
            return QuotaExhausted(words, until=wished_wait(reply.text) or _QUOTA_PROBE, **details)
        crowded = enhanced in ("4.5.3", "5.5.3") or bool(_CROWDED.search(reply.text))
        return RateLimited(words, retry_after=wished_wait(reply.text), too_many_recipients=crowded, **details)
    if code == 421 and stage not in ("connect", "ehlo"):  # it closes on us: fewer, slower (RFC 5321 section 3.8)
        return RateLimited(words, retry_after=wished_wait(reply.text), **details)
    if reply_class == ReplyClass.RETRY or code == 421:
        wish = wished_wait(reply.text)
        if wish is None and GREYLISTED.search(normalise(reply.text)[1]):
            wish = _GREYLISTED
        return TemporaryError(words, retry_after=wish, **details)
    if stage == "auth":
        return AuthenticationFailed(words, **details)
    if reply_class == ReplyClass.SUPPRESS:
        return RecipientRefused(words, suppress=True, **details)
    return _BY_CLASS[reply_class](words, **details)


_BY_CLASS: dict[str, type[PermanentError] | type[AccountError]] = {
    ReplyClass.PERMANENT_RECIPIENT: RecipientRefused,
    ReplyClass.PERMANENT_CONTENT: EmailRefused,
    ReplyClass.CONFIG: SenderRefused,
    ReplyClass.AUTH: AuthenticationFailed,
}
