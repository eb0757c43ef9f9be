"""Every error postier raises, and what each one blames.

    PostierError
    ├── ConfigurationError            the set-up: the process should stop and say what to mend
    ├── LedgerUnavailable(retry_after) Redis cannot answer now: nothing was accepted, the caller may repeat safely
    ├── InvalidEvent(field, code)     the event: refused at the hard edge, nothing was queued
    │   └── IdempotencyConflict       the key was used before for another content
    ├── RenderError                   the event and its templates do not fit: never retried
    └── DeliveryError(text, code, enhanced)   one attempt ended without a receipt
        ├── TemporaryError(retry_after)       the moment: another attempt follows
        │   ├── Unreachable                   no conversation came about
        │   └── RateLimited                   the provider asked us to slow down: spends no attempt
        ├── PermanentError                    this email: a person has to look
        │   ├── RecipientRefused              this address takes no mail
        │   └── EmailRefused                  this content is not taken
        ├── AccountError(until)               the account: it parks and keeps its mail
        │   ├── AuthenticationFailed          login refused
        │   ├── QuotaExhausted                nothing more may leave before `until`
        │   └── SenderRefused                 this sender, domain or host may not send here
        └── OutcomeUnknown                    our knowledge: the email may have left

Texts are short, never carry a payload, a secret or a full address, and can be shown to a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Stage = Literal["connect", "starttls", "ehlo", "auth", "mail", "rcpt", "data", "body", "http", "render"]
# Causes that a class alone does not tell; what is done about them is still the class's matter.
NarrowCause = Literal[
    "tls_unavailable",
    "certificate_expired",
    "certificate_other_name",
    "certificate_not_trusted",
    "too_slow",
    "protocol",
    "no_smtputf8",
    "oauth_unavailable",
]


class PostierError(Exception):
    """Base of everything postier raises on purpose."""


class ConfigurationError(PostierError):
    """The set-up is wrong; the text names the key, what is wrong with it and what to do.

    It stays one readable line, whatever stood in the file or variable it quotes a name from.
    """

    def __init__(self, text: str) -> None:
        escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        super().__init__(text if text.isprintable() else "".join(escaped))


class LedgerUnavailable(PostierError):
    """Redis is away, full or busy. Nothing was accepted; repeating with the same idempotency key is safe.

    `retry_after` is in seconds.
    """

    def __init__(self, text: str, *, retry_after: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class InvalidEvent(PostierError):
    """The event was refused at the hard edge. `field` is a dotted path, `code` is stable, `reason` is for people.

    `retry_after` (seconds) is set when the same event may be accepted later (cooldowns, budgets).
    """

    def __init__(
        self, reason: str, *, field: str = "", code: str = "invalid", retry_after: float | None = None
    ) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.code = code
        self.reason = reason
        self.retry_after = retry_after

    def as_dict(self) -> dict[str, Any]:
        """The refusal as one JSON-ready object."""
        answer: dict[str, Any] = {"code": self.code, "field": self.field, "reason": self.reason}
        if self.retry_after is not None:
            answer["retry_after"] = self.retry_after
        return answer


class IdempotencyConflict(InvalidEvent):
    """The idempotency key already belongs to an event with another content."""

    def __init__(self, reason: str = "this key was used for an event with other content") -> None:
        super().__init__(reason, field="idempotency_key", code="idempotency_conflict")


class RenderError(PostierError):
    """A template and the event's fields do not fit; retrying cannot help."""


class DeliveryError(PostierError):
    """One attempt ended without a receipt.

    `code` is the SMTP or HTTP status, `enhanced` the RFC 3463 code, `text` the server's own words (already masked and
    cut), `stage` how far the conversation went, `cause` a narrower one than its class has.
    """

    def __init__(
        self,
        text: str,
        *,
        code: int | None = None,
        enhanced: str | None = None,
        stage: Stage | None = None,
        reply_class: str | None = None,
        cause: NarrowCause | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.enhanced = enhanced
        self.stage = stage
        self.reply_class = reply_class
        self._narrow = cause

    @property
    def cause(self) -> str:
        """The stable snake_case name of the cause, e.g. `authentication_failed`."""
        return self._narrow or CAUSES.get(type(self), "delivery_error")


class TemporaryError(DeliveryError):
    """The moment is wrong. `retry_after` is the provider's wish in seconds, or None."""

    def __init__(self, text: str, *, retry_after: float | None = None, **details: Any) -> None:
        super().__init__(text, **details)
        self.retry_after = retry_after


class Unreachable(TemporaryError):
    """No conversation came about: name, route, connection, greeting or TLS failed before anything was sent."""


class RateLimited(TemporaryError):
    """The provider asks the account to slow down; the delivery is deferred and no attempt is spent.

    `too_many_recipients` says that splitting the packet would help.
    """

    def __init__(self, text: str, *, too_many_recipients: bool = False, **details: Any) -> None:
        super().__init__(text, **details)
        self.too_many_recipients = too_many_recipients


class PermanentError(DeliveryError):
    """This email will not be taken, now or later. `suppress` says the address must not be written to again."""

    def __init__(self, text: str, *, suppress: bool = False, **details: Any) -> None:
        super().__init__(text, **details)
        self.suppress = suppress


class RecipientRefused(PermanentError):
    """The address or its domain takes no mail."""


class EmailRefused(PermanentError):
    """The content, size or format is not taken."""


class AccountError(DeliveryError):
    """The account cannot send. `until` is seconds from now after which a probe makes sense, or None for 'a person'."""

    def __init__(self, text: str, *, until: float | None = None, **details: Any) -> None:
        super().__init__(text, **details)
        self.until = until


class AuthenticationFailed(AccountError):
    """The login was refused. `needs_login` says that a person has to consent again."""

    def __init__(self, text: str, *, needs_login: bool = False, **details: Any) -> None:
        super().__init__(text, **details)
        self.needs_login = needs_login


class QuotaExhausted(AccountError):
    """The account's allowance is used up until `until`."""


class SenderRefused(AccountError):
    """Our sender address, domain, host or relay right is refused: our fault, never the recipient's."""


class OutcomeUnknown(DeliveryError):
    """The body was handed over and no answer came: the email may have left.

    `evidence` says what is known: bytes handed over, last reply.
    """

    def __init__(self, text: str, *, evidence: Mapping[str, Any] | None = None, **details: Any) -> None:
        super().__init__(text, **details)
        self.evidence = dict(evidence or {})


CAUSES: dict[type[DeliveryError], str] = {
    TemporaryError: "temporary",
    Unreachable: "unreachable",
    RateLimited: "rate_limited",
    PermanentError: "refused",
    RecipientRefused: "recipient_refused",
    EmailRefused: "email_refused",
    AccountError: "account",
    AuthenticationFailed: "authentication_failed",
    QuotaExhausted: "quota_exhausted",
    SenderRefused: "sender_refused",
    OutcomeUnknown: "outcome_unknown",
}
